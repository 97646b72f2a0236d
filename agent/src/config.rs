//! What an agent is told: raw arguments become a checked [`Config`] in one conversion. Nothing
//! here touches the disk, the network or the process's environment; the latter is handed in.

pub mod args;
pub mod inherit;

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    time::Duration,
};

use buildr_proto::limits::{MAX_LABEL, MAX_LABELS, MAX_NAME};

pub use self::args::{Args, Command, DockerSocket, LogFormat, Pull};
use self::inherit::InheritRules;
use crate::backoff;

/// The most jobs at once that can be asked for.
pub const MAX_SLOTS: u32 = 1000;

/// All that an agent needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the orchestrator is, as a URL.
    pub orchestrator: String,
    /// The token that the orchestrator asks for, where it does.
    pub token: Option<Secret>,
    /// Its name, for people.
    pub name: String,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What builds can ask for.
    pub labels: BTreeMap<String, String>,
    /// Its folder.
    pub data: PathBuf,
    /// The environment that manifests may inherit from, already narrowed.
    pub inheritable: BTreeMap<String, String>,
    /// What builds get for a Docker socket.
    pub docker_socket: DockerSocket,
    /// When images come from their registries.
    pub pull: Pull,
    /// Repositories may be folders of this machine.
    pub allow_file_urls: bool,
    /// The most bytes that a stage may write.
    pub log_limit: u64,
    /// The most processes that a container may have whose manifest does not say.
    pub pids_limit: u32,
    /// The most time that a job may take, whatever its manifest says.
    pub job_timeout: Duration,
    /// Below this many bytes of free disk it takes no builds.
    pub min_free: u64,
    /// Where to answer those who watch.
    pub metrics: Option<SocketAddr>,
    /// Times and sizes that no operator has to choose.
    pub timing: Timing,
}

/// Times that are fixed in the program, and shorter in tests.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between tries to reach the orchestrator.
    pub reconnect: backoff::Limits,
    /// The most that a unary call may take.
    pub call: Duration,
    /// The oldest unsent byte of a log waits at most this long while earlier ones are on their way.
    pub flush: Duration,
    /// How long logs may stand still after a job's end, with the orchestrator answering, before the
    /// rest counts as missing.
    pub log_patience: Duration,
    /// How long a draining agent without a job waits for an orchestrator that is not there.
    pub drain_patience: Duration,
    /// The same after the second signal.
    pub cancel_patience: Duration,
    /// Between two looks for things that nobody owns.
    pub reap: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reconnect: backoff::Limits { first: Duration::from_millis(100), most: Duration::from_secs(5) },
            call: Duration::from_secs(30),
            flush: Duration::from_millis(50),
            log_patience: Duration::from_secs(30),
            drain_patience: Duration::from_secs(60),
            cancel_patience: Duration::from_secs(10),
            reap: Duration::from_secs(60),
        }
    }
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The orchestrator's address is none.
    #[error("`{0}` is not an orchestrator's address: give HOST:PORT, as in ci.example.com:50051")]
    Orchestrator(String),
    /// TLS was asked for.
    #[error(
        "`{0}` asks for TLS, which this program does not speak yet: give HOST:PORT and keep the network private"
    )]
    Tls(String),
    /// The address for metrics is none.
    #[error("--metrics {0}: no such address; give a port of this machine, or HOST:PORT")]
    Metrics(String),
    /// The name is no name.
    #[error("`{0}` is not an agent's name: 1 to 100 characters, no control characters")]
    Name(String),
    /// Nobody told a name.
    #[error("this machine has no host name: give --name")]
    NoName,
    /// The number of slots makes no sense.
    #[error("--slots {0} is not between 1 and {MAX_SLOTS}")]
    Slots(u32),
    /// A label is none.
    #[error("`{0}` is not a label: give KEY=VALUE, the key of letters, digits, `.`, `-`, `_` and `/`")]
    Label(String),
    /// A label was given twice.
    #[error("the label `{0}` is given twice")]
    LabelTwice(String),
    /// Too many labels.
    #[error("{0} labels are more than {MAX_LABELS}")]
    Labels(usize),
    /// No data folder is known.
    #[error("no home folder is known to keep the agent's data in: give --data DIR")]
    NoData,
    /// The token's file could not be read.
    #[error("read the token from {path}")]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The token is none.
    #[error("the token from {0} is empty or has characters that no token has")]
    Token(String),
    /// A glob for the environment is none.
    #[error(transparent)]
    Inherit(#[from] inherit::InvalidGlob),
}

impl Config {
    /// Checks the arguments. `environment` is this process's, from which the defaults and what
    /// manifests may inherit are taken.
    pub fn new(args: Args, environment: &BTreeMap<String, String>) -> Result<Self, Error> {
        let Args {
            orchestrator,
            name,
            slots,
            labels,
            data,
            token,
            token_file,
            inherit_env,
            docker_socket,
            pull,
            allow_file_urls,
            log_limit,
            pids_limit,
            job_timeout,
            min_free,
            metrics,
            log_filter: _,
            command: _,
            log_format: _,
        } = args;
        Ok(Self {
            orchestrator: endpoint(&orchestrator)?,
            token: token_from(token, token_file)?,
            name: name_from(name)?,
            slots: slots_from(slots)?,
            labels: labels_from(labels)?,
            data: data.or_else(|| default_data(environment)).ok_or(Error::NoData)?,
            inheritable: InheritRules::new(&inherit_env)?.narrow(environment),
            docker_socket,
            pull,
            allow_file_urls,
            log_limit: log_limit.as_u64(),
            pids_limit,
            job_timeout: job_timeout.0,
            min_free: min_free.as_u64(),
            metrics: metrics.map(|text| watched_at(&text)).transpose()?,
            timing: Timing::default(),
        })
    }
}

/// Makes a URL of `HOST:PORT`, and lets `http://HOST:PORT` be.
fn endpoint(text: &str) -> Result<String, Error> {
    let wrong = || Error::Orchestrator(text.to_owned());
    let trimmed = text.trim().trim_end_matches('/');
    if trimmed.starts_with("https://") {
        return Err(Error::Tls(text.to_owned()));
    }
    let authority = trimmed.strip_prefix("http://").unwrap_or(trimmed);
    let uri: tonic::transport::Uri = format!("http://{authority}").parse().map_err(|_| wrong())?;
    let plain = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
    let host = uri.host().is_some_and(|host| !host.is_empty());
    if !plain || !host || uri.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong());
    }
    Ok(format!("http://{authority}"))
}

/// A port alone is one of this machine's own.
fn watched_at(text: &str) -> Result<SocketAddr, Error> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => {
            let address = text.to_socket_addrs().ok().and_then(|mut all| all.next());
            address.ok_or_else(|| Error::Metrics(text.to_owned()))
        }
    }
}

fn token_from(token: Option<String>, file: Option<PathBuf>) -> Result<Option<Secret>, Error> {
    let (text, origin) = match (token, file) {
        (Some(token), _) => (token, "--token or BUILDR_TOKEN".to_owned()),
        (None, Some(path)) => {
            let text = fs::read_to_string(&path)
                .map_err(|source| Error::TokenFile { path: path.clone(), source })?;
            (text, path.display().to_string())
        }
        (None, None) => return Ok(None),
    };
    let text = text.trim();
    let fits = !text.is_empty() && text.len() <= 4096 && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { Ok(Some(Secret::new(text))) } else { Err(Error::Token(origin)) }
}

fn name_from(name: Option<String>) -> Result<String, Error> {
    let name = name.unwrap_or_else(host_name);
    let name = name.trim();
    match name {
        "" => Err(Error::NoName),
        _ if name.chars().count() > 100 || name.chars().any(char::is_control) || name.len() > MAX_NAME => {
            Err(Error::Name(name.to_owned()))
        }
        _ => Ok(name.to_owned()),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn slots_from(slots: Option<u32>) -> Result<u32, Error> {
    match slots {
        None => Ok(cores()),
        Some(slots @ 1..=MAX_SLOTS) => Ok(slots),
        Some(slots) => Err(Error::Slots(slots)),
    }
}

fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    u32::try_from(cores).unwrap_or(MAX_SLOTS).min(MAX_SLOTS)
}

/// The operator's labels, and `os` and `arch` where the operator says nothing else.
fn labels_from(given: Vec<String>) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = BTreeMap::new();
    for text in given {
        let (key, value) = label(&text)?;
        if labels.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Error::LabelTwice(key.to_owned()));
        }
    }
    for (key, value) in [("os", env::consts::OS), ("arch", env::consts::ARCH)] {
        labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    if labels.len() > MAX_LABELS { Err(Error::Labels(labels.len())) } else { Ok(labels) }
}

fn label(text: &str) -> Result<(&str, &str), Error> {
    let wrong = || Error::Label(text.to_owned());
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let key_fits = !key.is_empty()
        && key.len() <= MAX_LABEL
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_/".contains(&b));
    let value_fits = value.len() <= MAX_LABEL && !value.chars().any(char::is_control);
    if key_fits && value_fits { Ok((key, value)) } else { Err(wrong()) }
}

fn default_data(environment: &BTreeMap<String, String>) -> Option<PathBuf> {
    let folder = |name: &str| environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("buildr/agent"))
}

#[cfg(test)]
mod tests;
