//! What a command can end with apart from a result: one table from errors to exit codes, and hints
//! apart from messages. Nothing here prints.

use std::{io, path::PathBuf};

use buildr_manifest::Outcome;
use buildr_proto::BuildId;

/// The exit code of a program that was detached by Ctrl-C.
pub const DETACHED: u8 = 130;

/// The exit code of a program whose reader went away, as if SIGPIPE had ended it.
const READER_GONE: u8 = 141;

/// How a command that did its work ended: its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// All is well.
    pub const OK: Self = Self(0);
}

/// Why a command could not do its work. The message names the thing; [`Error::hint`] says what to
/// do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for what cannot be.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A folder has no manifest.
    #[error("no manifest in {}: looked for {}", folder.display(), names.join(", "))]
    NoManifest {
        /// The folder.
        folder: PathBuf,
        /// The names looked for.
        names: &'static [&'static str],
        /// A folder above it that has one.
        elsewhere: Option<PathBuf>,
    },
    /// No repository was named and there is none here.
    #[error("{} is not in a git repository", folder.display())]
    NotARepository {
        /// The current folder.
        folder: PathBuf,
    },
    /// Git could not tell something about the repository here.
    #[error("read the git repository: {0}")]
    Git(#[from] git2::Error),
    /// Nobody listens at the orchestrator's address.
    #[error("no orchestrator can be reached at {address}: {why}")]
    Unreachable {
        /// The address.
        address: String,
        /// The operating system's reason.
        why: String,
    },
    /// Somebody listens at the orchestrator's address, and it is no orchestrator.
    #[error("what answers at {address} is not a buildr orchestrator: {why}")]
    NotAnOrchestrator {
        /// The address.
        address: String,
        /// What it did.
        why: String,
    },
    /// The orchestrator wants a token.
    #[error("the orchestrator at {address} {}", if *given { "does not accept this token" } else { "asks for a token" })]
    Token {
        /// The address.
        address: String,
        /// One was sent.
        given: bool,
    },
    /// There is no such build.
    #[error("the orchestrator at {address} has no {}", match build { Some(build) => format!("build {build}"), None => "builds yet".to_owned() })]
    NoSuchBuild {
        /// The address.
        address: String,
        /// Its number; none: the latest was asked for.
        build: Option<BuildId>,
    },
    /// The orchestrator refuses a request for what is in it.
    #[error("the orchestrator refuses this: {0}")]
    Refused(String),
    /// The orchestrator could not do what it was asked for.
    #[error("the orchestrator at {address} could not {what}: {why}")]
    Orchestrator {
        /// The address.
        address: String,
        /// What it was asked for.
        what: &'static str,
        /// Its reason.
        why: String,
    },
    /// There is no Docker daemon.
    #[error("no Docker daemon answers at {0}")]
    NoDocker(String),
    /// This user may not talk to the Docker daemon.
    #[error("no permission to talk to the Docker daemon at {0}")]
    DockerPermission(String),
    /// A build could not be planned.
    #[error("{}", plan_message(.0))]
    Plan(Outcome),
    /// The engine could not be set up.
    #[error("{what}")]
    Engine {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A program that belongs to buildr could not be started or ended by itself.
    #[error("{what}")]
    Program {
        /// Which, and how.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A file could not be read, or standard output could not be written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// A fault of the command line.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: None }
    }

    /// A fault of the command line, with a way out.
    pub fn usage_with(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), hint: Some(hint.into()) }
    }

    /// A fault of the machine.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    /// The exit code: 2 for what the user can mend in their command or manifest, 4 for the machinery.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. }
            | Self::NoManifest { .. }
            | Self::NotARepository { .. }
            | Self::Git(_)
            | Self::NoSuchBuild { .. }
            | Self::Refused(_) => 2,
            Self::Plan(outcome) => outcome.exit_code(),
            Self::Io { .. } if self.is_reader_gone() => READER_GONE,
            Self::Unreachable { .. }
            | Self::NotAnOrchestrator { .. }
            | Self::Token { .. }
            | Self::Orchestrator { .. }
            | Self::NoDocker(_)
            | Self::DockerPermission(_)
            | Self::Engine { .. }
            | Self::Program { .. }
            | Self::Io { .. } => 4,
        }
    }

    /// True where the program that read our output ended (`| head`): nothing is to be said then.
    pub fn is_reader_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } | Self::Engine { hint, .. } | Self::Program { hint, .. } => hint.clone(),
            Self::NoManifest { elsewhere, .. } => Some(no_manifest_hint(elsewhere.as_deref())),
            Self::NotARepository { .. } => Some(
                "go into a repository, or name one: `buildr submit --repo URL --branch main`".to_owned(),
            ),
            Self::Unreachable { .. } => Some(
                "start one on this machine with `buildr up`, or name another with `--orchestrator HOST:PORT` \
                 or BUILDR_ORCHESTRATOR"
                    .to_owned(),
            ),
            Self::NotAnOrchestrator { .. } => Some(
                "check host and port: `--orchestrator HOST:PORT` or BUILDR_ORCHESTRATOR; an orchestrator \
                 listens on port 50051 unless told otherwise"
                    .to_owned(),
            ),
            Self::Token { .. } => Some(
                "give the token that the orchestrator printed at its first start: BUILDR_TOKEN, or a file \
                 with it as `--token-file FILE`"
                    .to_owned(),
            ),
            Self::NoSuchBuild { build: Some(_), .. } => {
                Some("`buildr list` shows the builds that there are".to_owned())
            }
            Self::NoSuchBuild { build: None, .. } => Some("start one with `buildr submit`".to_owned()),
            Self::NoDocker(_) => Some(
                "start it (`sudo systemctl start docker`), or point DOCKER_HOST to where one listens"
                    .to_owned(),
            ),
            Self::DockerPermission(_) => Some(
                "add yourself to the group that owns the socket (`sudo usermod -aG docker $USER`, then log \
                 in again), or use a rootless Docker"
                    .to_owned(),
            ),
            Self::Git(_)
            | Self::Refused(_)
            | Self::Plan(_)
            | Self::Orchestrator { .. }
            | Self::Io { .. } => None,
        }
    }
}

impl From<buildr_engine::Error> for Error {
    fn from(error: buildr_engine::Error) -> Self {
        use buildr_engine::Error as Engine;
        match error {
            Engine::NoDaemon { socket, source } => Self::NoDocker(format!("{socket}: {source}")),
            Engine::NoPermission { socket, source } => Self::DockerPermission(format!("{socket}: {source}")),
            error => Self::Engine { what: chain(&error), hint: error.hint().map(str::to_owned) },
        }
    }
}

/// Diagnostics stand below each other, so they begin on a line of their own.
fn plan_message(outcome: &Outcome) -> String {
    match outcome {
        Outcome::ManifestError { message } if message.contains('\n') => {
            format!("the manifest cannot be carried out:\n\n{}", message.trim_end())
        }
        outcome => outcome.to_string(),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

fn no_manifest_hint(elsewhere: Option<&std::path::Path>) -> String {
    let found = match elsewhere {
        Some(folder) => {
            format!(
                "there is one in {0}: `buildr run {0}`. Or begin with this `.buildr.yml`:",
                folder.display()
            )
        }
        None => "begin with this `.buildr.yml`, or name another file with -f:".to_owned(),
    };
    format!(
        "{found}\n\n    image: alpine:3.20\n    stages: [test]\n    test:\n      script:\n        - echo hello\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_error() -> Vec<Error> {
        let address = || "127.0.0.1:50051".to_owned();
        let io_error = |kind: io::ErrorKind| Error::io("write to standard output", kind.into());
        vec![
            Error::usage_with("`x` is not a build's number", "give a number, or `latest`"),
            Error::NoManifest {
                folder: "/src/app".into(),
                names: &[".buildr.yml", ".buildr.yaml", ".buildr"],
                elsewhere: None,
            },
            Error::NoManifest {
                folder: "/src/app".into(),
                names: &[".buildr.yml", ".buildr.yaml", ".buildr"],
                elsewhere: Some("/src".into()),
            },
            Error::NotARepository { folder: "/tmp".into() },
            Error::Git(git2::Error::from_str("corrupted loose object")),
            Error::Unreachable { address: address(), why: "connection refused".to_owned() },
            Error::NotAnOrchestrator { address: address(), why: "it does not speak HTTP/2".to_owned() },
            Error::Token { address: address(), given: true },
            Error::Token { address: address(), given: false },
            Error::NoSuchBuild { address: address(), build: BuildId::new(42) },
            Error::NoSuchBuild { address: address(), build: None },
            Error::Refused("the repository's URL begins with `-`".to_owned()),
            Error::Orchestrator { address: address(), what: "submit the build", why: "disk full".to_owned() },
            Error::NoDocker("/var/run/docker.sock: connection refused".to_owned()),
            Error::DockerPermission("/var/run/docker.sock: permission denied".to_owned()),
            Error::Plan(Outcome::ManifestError {
                message: "error: unknown key\n --> .buildr.yml:1:1\n".into(),
            }),
            Error::Plan(Outcome::SourceError { message: "cannot use the folder".into() }),
            Error::Engine { what: "docker is too old".to_owned(), hint: Some("upgrade docker".to_owned()) },
            Error::Program { what: "buildr-agent ended with exit code 1".to_owned(), hint: None },
            io_error(io::ErrorKind::StorageFull),
            io_error(io::ErrorKind::BrokenPipe),
        ]
    }

    #[test]
    fn every_error_has_its_code_message_and_hint() {
        let table: Vec<_> = every_error()
            .iter()
            .map(|error| {
                let hint = error.hint().map_or(String::new(), |hint| format!("\n     hint: {hint}"));
                format!("{:>3}  {error}{hint}", error.exit_code())
            })
            .collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
