//! The `git` program as the network half, and for checking files out: with it the operator's ssh
//! config, agent, proxies and credential helpers work. It never asks a question, never runs a
//! hook, and never outlives its call.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use git2::Oid;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Limits, SourceError,
    address::{Address, Login},
    error::{Reason, reason},
    fetch::Fetched,
    large_files::LargeFiles,
    wanted::Line,
    workspace::Place,
};

/// How much of what git says is kept, from its end.
const MAX_SAID: usize = 16 << 10;

/// How much of an answer is taken: a list of refs.
const MAX_ANSWER: usize = 16 << 20;

/// Between TERM, on which git removes its temporary files, and KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long what was written before the exit may take to arrive; a connection that ssh keeps open
/// for later holds the pipe for longer.
const DRAIN: Duration = Duration::from_millis(200);

/// The name of the variable that carries the URL.
const URL_VARIABLE: &str = "BUILDR_SOURCE_URL";

/// The names of the variables that carry a URL's credentials. With those in the URL, the command
/// line of git's own transport helper would show them to everybody on this machine.
const USER_VARIABLE: &str = "BUILDR_SOURCE_USER";
const PASSWORD_VARIABLE: &str = "BUILDR_SOURCE_PASSWORD";

/// A credential helper that answers with them.
const CREDENTIAL_HELPER: &str = r#"!f() { if test "$1" = get; then printf 'username=%s\npassword=%s\n' "$BUILDR_SOURCE_USER" "$BUILDR_SOURCE_PASSWORD"; fi; }; f"#;

/// Variables that would make git work elsewhere than it is told, or ask through a window.
const UNWANTED: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_TEMPLATE_DIR",
    "GIT_TRACE",
    "GIT_TRACE_CURL",
    "GIT_CURL_VERBOSE",
    "SSH_ASKPASS",
];

/// Settings that win over those of the operator's own files.
const SETTINGS: &[&str] = &[
    "protocol.ext.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "submodule.recurse=false",
    // Of what an operator may have set up for all repositories, LFS is the one filter that reads the
    // repository's own settings, and asks the server that they name. Its pointers stay pointers.
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
    "fetch.prune=false",
    "fetch.pruneTags=false",
    // Packs, not loose objects: a workspace gets copies of the files.
    "fetch.unpackLimit=1",
    // Housekeeping is done under the mirror's lock or not at all.
    "gc.autoDetach=false",
    "maintenance.autoDetach=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "checkout.workers=0",
    "advice.detachedHead=false",
];

/// A git program.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    environment: Vec<(OsString, OsString)>,
    limits: Limits,
}

/// One run of it.
struct Run<'a> {
    address: &'a Address,
    arguments: Vec<OsString>,
    folder: Option<&'a Path>,
    /// It does not talk to the remote: only the limit on the whole counts.
    is_local: bool,
}

/// How a run ended.
struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    said: String,
}

impl Program {
    /// The program at `path`, where it is one that is new enough (2.32).
    pub(super) fn probe(
        path: PathBuf,
        environment: Vec<(OsString, OsString)>,
        limits: Limits,
    ) -> Option<Self> {
        let answer = std::process::Command::new(&path).arg("version").stdin(Stdio::null()).output().ok()?;
        let answer = String::from_utf8(answer.stdout).ok()?;
        let mut numbers = answer.strip_prefix("git version ")?.split(['.', ' ', '\n']).map(str::parse::<u32>);
        let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        (version >= (2, 32)).then_some(Self { path, environment, limits })
    }

    /// The branch that the remote's HEAD is on, with the commit that it is at.
    pub(super) async fn default_branch(
        &self,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<Option<(String, String)>, SourceError> {
        let answer = self.list(address, &["--symref", "buildr", "HEAD"], cancel).await?;
        let mut branch = None;
        for line in answer.lines() {
            match line.split_once('\t') {
                Some((target, "HEAD")) if target.starts_with("ref: ") => {
                    branch = target.strip_prefix("ref: refs/heads/").map(str::to_owned);
                }
                Some((commit, "HEAD")) => return Ok(branch.map(|branch| (branch, commit.to_owned()))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// The short names of all branches or tags of the remote, as `like` is one.
    pub(super) async fn names(
        &self,
        address: &Address,
        like: &Line,
        cancel: &CancellationToken,
    ) -> Result<Vec<String>, SourceError> {
        let (flag, prefix) = match like {
            Line::Branch(_) => ("--heads", "refs/heads/"),
            Line::Tag(_) => ("--tags", "refs/tags/"),
        };
        let answer = self.list(address, &["--refs", flag, "buildr"], cancel).await?;
        let names = answer.lines().filter_map(|line| line.split_once('\t')?.1.strip_prefix(prefix));
        Ok(names.map(str::to_owned).collect())
    }

    async fn list(
        &self,
        address: &Address,
        arguments: &[&str],
        cancel: &CancellationToken,
    ) -> Result<String, SourceError> {
        let arguments = [&["ls-remote"], arguments].concat().into_iter().map(OsString::from).collect();
        let ended = self.run(Run { address, arguments, folder: None, is_local: false }, cancel).await?;
        if !ended.status.success() {
            return Err(failure(address, Path::new("/"), &ended.said));
        }
        Ok(String::from_utf8_lossy(&ended.answer).into_owned())
    }

    /// Fetches one ref, with the tags on its history, into a mirror.
    pub(super) async fn fetch(
        &self,
        mirror: &Path,
        address: &Address,
        refspec: &str,
        cancel: &CancellationToken,
    ) -> Result<Fetched, SourceError> {
        let git_dir = option("--git-dir=", mirror);
        let fetch =
            ["fetch", "--progress", "--no-recurse-submodules", "--no-write-fetch-head", "buildr", refspec];
        let arguments = std::iter::once(git_dir).chain(fetch.map(OsString::from)).collect();
        let ended =
            self.run(Run { address, arguments, folder: Some(mirror), is_local: false }, cancel).await?;
        match ended.status.success() {
            true => Ok(Fetched::Done),
            false if reason(&ended.said) == Reason::NotThere => Ok(Fetched::NotThere),
            false => Err(failure(address, mirror, &ended.said)),
        }
    }

    /// Makes the files of a checkout what its HEAD says.
    pub(super) async fn fill(
        &self,
        place: &Place,
        address: &Address,
        large_files: &LargeFiles,
        cancel: &CancellationToken,
    ) -> Result<(), SourceError> {
        // Git finds the repository by itself: LFS would take a folder on the command line for that of
        // a remote on this machine, too.
        let read = ["read-tree", "--reset", "-u", "HEAD"].map(OsString::from);
        let settings = large_files.settings().into_iter().flat_map(|setting| ["-c".into(), setting]);
        let arguments = settings.chain(read).collect();
        let run = Run { address, arguments, folder: Some(&place.files), is_local: true };
        let ended = self.run(run, cancel).await?;
        if ended.status.success() { Ok(()) } else { Err(failure(address, &place.files, &ended.said)) }
    }

    /// The settings in a blob that has git's format, as names and values. What they include is not
    /// followed.
    pub(super) async fn settings_in(
        &self,
        git: &Path,
        blob: Oid,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, SourceError> {
        let read = ["config", "--no-includes", "-z", "--list", "--blob"].map(OsString::from);
        let arguments = [option("--git-dir=", git)].into_iter().chain(read).chain([blob.to_string().into()]);
        let run = Run { address, arguments: arguments.collect(), folder: Some(git), is_local: true };
        let ended = self.run(run, cancel).await?;
        if !ended.status.success() {
            return Err(failure(address, git, &ended.said));
        }
        let answer = String::from_utf8_lossy(&ended.answer).into_owned();
        let pairs = answer.split_terminator('\0').map(|pair| pair.split_once('\n').unwrap_or((pair, "true")));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Makes few packs of many, and one file of all refs. Nothing is lost, also what no ref names.
    pub(super) async fn tidy(&self, mirror: &Path, cancel: &CancellationToken) -> Result<(), SourceError> {
        let works: [&[&str]; 2] = [&["repack", "--geometric=2", "-d", "-q"], &["pack-refs", "--all"]];
        let address = Address::nowhere();
        for work in works {
            let arguments =
                [option("--git-dir=", mirror)].into_iter().chain(work.iter().map(OsString::from)).collect();
            let run = Run { address: &address, arguments, folder: Some(mirror), is_local: true };
            let ended = self.run(run, cancel).await?;
            if !ended.status.success() {
                return Err(failure(&address, mirror, &ended.said));
            }
        }
        Ok(())
    }

    /// True where git has LFS.
    pub(super) async fn has_large_files(
        &self,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<bool, SourceError> {
        let arguments = ["lfs", "version"].map(OsString::from).to_vec();
        let ended = self.run(Run { address, arguments, folder: None, is_local: true }, cancel).await?;
        Ok(ended.status.success())
    }

    async fn run(&self, run: Run<'_>, cancel: &CancellationToken) -> Result<Ended, SourceError> {
        let start = |source| SourceError::Io { path: self.path.clone(), source };
        let mut child = self.command(&run).spawn().map_err(start)?;
        let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
        let ended = self.watch(&mut child, &run, cancel).await;
        if ended.is_err() {
            group.signal(Signal::TERM);
            if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
                group.signal(Signal::KILL);
                child.wait().await.map_err(start)?;
            }
        }
        group.0 = None;
        ended
    }

    fn command(&self, run: &Run<'_>) -> Command {
        let mut command = Command::new(&self.path);
        for setting in SETTINGS {
            command.arg("-c").arg(setting);
        }
        if let Some(Login { server, user, password }) = run.address.login() {
            // The operator's own helpers are not asked for this server.
            for helper in ["", CREDENTIAL_HELPER] {
                command.arg("-c").arg(format!("credential.{server}.helper={helper}"));
            }
            command.env(USER_VARIABLE, user).env(PASSWORD_VARIABLE, password);
        }
        command
            .arg(format!("--config-env=remote.buildr.url={URL_VARIABLE}"))
            .args(&run.arguments)
            .current_dir(run.folder.unwrap_or(Path::new("/")))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        for name in UNWANTED {
            command.env_remove(name);
        }
        let file = if run.address.is_file() { ":file" } else { "" };
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", format!("https:http:ssh:git{file}"))
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .env(URL_VARIABLE, run.address.shown());
        if run.address.is_ssh() && !has_own_ssh_command() {
            command.env(
                "GIT_SSH_COMMAND",
                "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15 -oServerAliveCountMax=4",
            );
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Reads what it says until it ends, is canceled, or is silent for too long.
    async fn watch(
        &self,
        child: &mut Child,
        run: &Run<'_>,
        cancel: &CancellationToken,
    ) -> Result<Ended, SourceError> {
        let url = || run.address.shown().to_owned();
        let mut answer = Tail::new(child.stdout.take(), MAX_ANSWER);
        let mut said = Tail::new(child.stderr.take(), MAX_SAID);
        let end = Instant::now() + self.limits.total;
        let silence = if run.is_local { self.limits.total } else { self.limits.silence };
        let mut heard = Instant::now();
        let status = loop {
            tokio::select! {
                status = child.wait() => {
                    break status.map_err(|source| SourceError::Io { path: self.path.clone(), source })?;
                }
                () = answer.read() => heard = Instant::now(),
                () = said.read() => heard = Instant::now(),
                () = cancel.cancelled() => return Err(SourceError::Canceled),
                () = tokio::time::sleep_until(end) => {
                    return Err(SourceError::TimedOut { url: url(), limit: self.limits.total, what: "it took too long" });
                }
                () = tokio::time::sleep_until(heard + silence) => {
                    return Err(SourceError::TimedOut { url: url(), limit: silence, what: "the server was silent" });
                }
            }
        };
        let drained = async { tokio::join!(answer.read_all(), said.read_all()) };
        let _ = tokio::time::timeout(DRAIN, drained).await;
        Ok(Ended { status, answer: answer.kept, said: run.address.scrub(&readable(&said.kept)) })
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// True where the operator told git how to run ssh.
fn has_own_ssh_command() -> bool {
    let variable = ["GIT_SSH_COMMAND", "GIT_SSH"].iter().any(|name| std::env::var_os(name).is_some());
    variable || git2::Config::open_default().is_ok_and(|config| config.get_string("core.sshCommand").is_ok())
}

/// Where a program of this name is in a search path.
pub(super) fn find(name: &str, search_path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search_path?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Without progress lines, which end in a carriage return.
fn readable(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines = said.split('\n').map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line));
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

/// What an unsuccessful call that worked in `folder` means. `said` holds no credentials any more.
pub(super) fn failure(address: &Address, folder: &Path, said: &str) -> SourceError {
    let url = address.shown().to_owned();
    let detail = detail(said);
    match reason(said) {
        Reason::DiskFull => SourceError::DiskFull { path: folder.to_owned() },
        Reason::HostKey => SourceError::HostKey { url },
        Reason::Authentication => SourceError::Authentication { url, detail },
        Reason::NoRepository => SourceError::NoRepository { url, detail },
        Reason::Network => SourceError::Network { url, detail },
        Reason::LargeFile => SourceError::LargeFile { url, detail },
        Reason::BadTree => SourceError::BadTree { detail },
        Reason::OtherFormat => SourceError::OtherFormat { url },
        Reason::NotThere | Reason::Other => SourceError::Git { url, detail },
    }
}

/// The lines that say something, in one, without control characters.
fn detail(said: &str) -> String {
    const NOISE: &[&str] = &["Please make sure", "and the repository exists", "Could not read from remote"];
    let tell = |line: &&str| !NOISE.iter().any(|noise| line.contains(noise));
    let lines: Vec<&str> = said.lines().filter(tell).collect();
    let last = &lines[lines.len().saturating_sub(4)..];
    last.join("; ").chars().filter(|c| !c.is_control()).take(500).collect()
}

/// The last part of what comes out of a pipe.
struct Tail<R> {
    pipe: Option<R>,
    kept: Vec<u8>,
    max: usize,
}

impl<R: AsyncRead + Unpin> Tail<R> {
    fn new(pipe: Option<R>, max: usize) -> Self {
        Self { pipe, kept: Vec::new(), max }
    }

    /// Reads once; never returns after the pipe's end. Cancel safe.
    async fn read(&mut self) {
        if !self.read_some().await {
            std::future::pending().await
        }
    }

    async fn read_all(&mut self) {
        while self.read_some().await {}
    }

    /// False at the pipe's end.
    async fn read_some(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let mut buffer = [0; 8192];
        match pipe.read(&mut buffer).await {
            Ok(length @ 1..) => {
                self.kept.extend_from_slice(&buffer[..length]);
                let surplus = self.kept.len().saturating_sub(self.max);
                self.kept.drain(..surplus);
                true
            }
            Ok(0) | Err(_) => {
                self.pipe = None;
                false
            }
        }
    }
}

/// The processes of a run; killed when the run is dropped before its end.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // It fails where all have ended already.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
