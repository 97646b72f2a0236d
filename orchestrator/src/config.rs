//! What the operator sets: arguments and environment, checked once.

use std::{env, net::SocketAddr, net::ToSocketAddrs, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};

use buildr_telemetry::log;

use crate::{error::Error, gate};

const EXAMPLES: &str = "\
Examples:
  buildr-orchestrator
      for this machine alone, on 127.0.0.1:50051
  buildr-orchestrator --listen 0.0.0.0:50051
      for the network: wants a token, which the first start shows once
  buildr-orchestrator --data /srv/buildr --queue-limit 2h --log-format json
  buildr-orchestrator --data /srv/buildr doctor
      looks for what is wrong, and says what to do

Once it listens it prints one line, `ready HOST:PORT`, on standard output; everything else goes to
standard error. SIGTERM and SIGINT end it; builds run on, and their agents come back to it.";

/// Accepts builds, queues them durably, hands them to agents, keeps logs and results.
#[derive(Clone, Debug, Parser)]
#[command(name = "buildr-orchestrator", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    /// Where to listen, HOST:PORT; port 0 takes any that is free
    #[arg(long, env = "BUILDR_LISTEN", default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    pub listen: String,

    /// The folder of the database and the logs [default: ~/.local/share/buildr/orchestrator]
    #[arg(long, env = "BUILDR_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Want a token from agents and clients on a loopback address too
    #[arg(long, env = "BUILDR_REQUIRE_TOKEN")]
    pub require_token: bool,

    /// A file with the token to want, in place of the one that the first start makes
    #[arg(long, env = "BUILDR_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// How long a build may wait in the queue: 90s, 30m, 24h
    #[arg(long, env = "BUILDR_QUEUE_LIMIT", default_value = "24h", value_parser = duration, value_name = "TIME")]
    pub queue_limit: Duration,

    /// Take no new builds while less than this is free on the disk of the data folder
    #[arg(long, env = "BUILDR_MIN_FREE", value_name = "SIZE", default_value = "256MiB")]
    pub min_free: ByteSize,

    /// Answer /metrics (Prometheus), /livez and /readyz over HTTP here; anybody who reaches it may read
    #[arg(long, env = "BUILDR_METRICS", value_name = "[HOST:]PORT")]
    pub metrics: Option<String>,

    /// What callers may have
    #[command(flatten)]
    pub gate: GateArgs,

    /// What of the log to write: a level, or levels by part, as in warn,buildr_orchestrator=debug
    #[arg(long = "log", env = "BUILDR_LOG", default_value = "info", value_name = "FILTER")]
    pub log_filter: log::Filter,

    /// How to write the log on standard error
    #[arg(long, env = "BUILDR_LOG_FORMAT", default_value = "human", value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What to do in place of the daemon's work
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do beside being a daemon.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Look for what is wrong with these settings and this machine; put it behind the usual flags
    ///
    /// Exits with 0 where there is no problem, with 4 where there is one.
    Doctor {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// What callers may have; one address counts as one caller.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Limits (0 is no limit)")]
pub struct GateArgs {
    /// Connections of all callers
    #[arg(long, env = "BUILDR_MAX_CONNECTIONS", default_value_t = gate::Settings::default().connections, value_name = "N")]
    pub max_connections: usize,

    /// Connections of one address; raise it where a proxy makes many callers one
    #[arg(long, env = "BUILDR_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = gate::Settings::default().connections_per_address, value_name = "N")]
    pub max_connections_per_address: usize,

    /// Streams that follow builds and logs; half of them for one address
    #[arg(long, env = "BUILDR_MAX_FOLLOWERS", default_value_t = gate::Settings::default().followers, value_name = "N")]
    pub max_followers: usize,

    /// Submits and cancels of one address per second; ten seconds' worth may come at once
    #[arg(long, env = "BUILDR_MAX_SUBMITS", default_value_t = gate::Settings::default().submits, value_name = "N")]
    pub max_submits: u32,

    /// Calls of one address per second that read; ten seconds' worth may come at once
    #[arg(long, env = "BUILDR_MAX_READS", default_value_t = gate::Settings::default().reads, value_name = "N")]
    pub max_reads: u32,
}

impl From<GateArgs> for gate::Settings {
    fn from(args: GateArgs) -> Self {
        let GateArgs { max_connections, max_connections_per_address, max_followers, max_submits, max_reads } =
            args;
        Self {
            connections: max_connections,
            connections_per_address: max_connections_per_address,
            followers: max_followers,
            submits: max_submits,
            reads: max_reads,
            patience: gate::Patience::default(),
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Which token callers must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPolicy {
    /// None.
    Open,
    /// The one of the data folder, which is made at the first start.
    OfFolder,
    /// The one in this file.
    OfFile(PathBuf),
}

/// Settings that fit together.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The data folder.
    pub data: PathBuf,
    /// Which token callers must have.
    pub token: TokenPolicy,
    /// How long a build may wait in the queue.
    pub queue_limit: Duration,
    /// How much must be free on the disk of the data folder for new builds.
    pub min_free: ByteSize,
    /// Where to answer those who watch.
    pub metrics: Option<SocketAddr>,
    /// What callers may have.
    pub gate: gate::Settings,
}

impl Config {
    /// Settings for a data folder, listening on any free port of this machine.
    pub fn local(data: PathBuf) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data,
            token: TokenPolicy::Open,
            queue_limit: Duration::from_secs(24 * 3600),
            min_free: ByteSize(0),
            metrics: None,
            gate: gate::Settings::default(),
        }
    }

    /// Others than this machine can reach it.
    pub fn is_exposed(&self) -> bool {
        !self.listen.ip().to_canonical().is_loopback()
    }
}

impl TryFrom<Args> for Config {
    type Error = Error;
    fn try_from(args: Args) -> Result<Self, Error> {
        let Args { listen, data, require_token, token_file, queue_limit, min_free, metrics, gate, .. } = args;
        let address = address_of("--listen", &listen)?;
        let metrics = metrics.map(|text| watched_at(&text)).transpose()?;
        let exposed = !address.ip().to_canonical().is_loopback();
        let token = match token_file {
            Some(file) => TokenPolicy::OfFile(file),
            None if exposed || require_token => TokenPolicy::OfFolder,
            None => TokenPolicy::Open,
        };
        let data = match data.or_else(default_data) {
            Some(data) => data,
            None => return Err(Error::Config("no home folder is known: set --data".to_owned())),
        };
        Ok(Self { listen: address, data, token, queue_limit, min_free, metrics, gate: gate.into() })
    }
}

fn address_of(flag: &str, text: &str) -> Result<SocketAddr, Error> {
    let unusable = |why: String| Error::Config(format!("{flag} {text}: {why}; give it as HOST:PORT"));
    let address = text.to_socket_addrs().map_err(|error| unusable(error.to_string()))?.next();
    address.ok_or_else(|| unusable("no such address".to_owned()))
}

/// A port alone is one of this machine's own.
fn watched_at(text: &str) -> Result<SocketAddr, Error> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        Err(_) => address_of("--metrics", text),
    }
}

fn default_data() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
    let base = folder("XDG_DATA_HOME").or_else(|| Some(folder("HOME")?.join(".local/share")))?;
    Some(base.join("buildr/orchestrator"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time: a number and s, m, h or d, as in 24h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    // Ten years are as good as for ever, and can be added to any time of ours.
    match number.checked_mul(seconds) {
        Some(seconds @ 1..=315_360_000) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("`{text}` is not between 1s and ten years")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arguments: &[&str]) -> Result<Config, Error> {
        let program = ["buildr-orchestrator", "--data", "/data"];
        Args::try_parse_from(program.iter().chain(arguments)).expect("they parse").try_into()
    }

    #[test]
    fn a_token_is_wanted_wherever_others_can_reach_it() {
        assert_eq!(config(&["--listen", "127.0.0.1:0"]).unwrap().token, TokenPolicy::Open);
        assert_eq!(config(&["--listen", "[::1]:0"]).unwrap().token, TokenPolicy::Open);
        assert_eq!(config(&["--listen", "0.0.0.0:0"]).unwrap().token, TokenPolicy::OfFolder);
        assert_eq!(config(&["--require-token"]).unwrap().token, TokenPolicy::OfFolder);
        let file = TokenPolicy::OfFile("/t".into());
        assert_eq!(config(&["--token-file", "/t"]).unwrap().token, file);
    }

    #[test]
    fn an_address_that_is_none_is_named() {
        let error = config(&["--listen", "nonsense"]).unwrap_err().to_string();
        assert!(error.contains("nonsense") && error.contains("HOST:PORT"), "{error}");
    }

    #[test]
    fn metrics_stay_on_this_machine_unless_a_host_is_given() {
        assert_eq!(config(&[]).unwrap().metrics, None);
        assert_eq!(config(&["--metrics", "9100"]).unwrap().metrics, Some("127.0.0.1:9100".parse().unwrap()));
        assert_eq!(config(&["--metrics", "0.0.0.0:1"]).unwrap().metrics, Some("0.0.0.0:1".parse().unwrap()));
        let error = config(&["--metrics", "99999"]).unwrap_err().to_string();
        assert!(error.contains("--metrics 99999"), "{error}");
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        assert_eq!(config(&[]).unwrap().min_free, ByteSize::mib(256));
        assert_eq!(config(&["--min-free", "2GB"]).unwrap().min_free, ByteSize::gb(2));
        assert_eq!(config(&["--min-free", "5GiB"]).unwrap().min_free, ByteSize::gib(5));
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86400)));
        for wrong in ["", "24", "h", "-1h", "0s", "99999999999999999999d", "é"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
