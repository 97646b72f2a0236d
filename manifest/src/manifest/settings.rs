//! What a manifest says of its jobs as a whole: shell, clone, services, cache and the like.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, Cpus, Environment, Outcome, ServiceName, Template};

/// What reads the entries of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shell {
    /// `/bin/sh -e`.
    #[default]
    Sh,
    /// `bash -eo pipefail`.
    Bash,
    /// Another POSIX shell: the program and its arguments. Never empty.
    Other(Vec<String>),
}

/// How the project is brought here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloneOptions {
    /// How many commits of history; none: all of it, and the tags.
    pub depth: Option<u32>,
    /// Also the submodules.
    pub submodules: bool,
    /// Also the large files that git LFS keeps elsewhere.
    pub lfs: bool,
}

/// What a container may use. None: what the operator gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resources {
    /// Processor time.
    pub cpus: Option<Cpus>,
    /// Memory.
    pub memory: Option<ByteSize>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// A container that runs beside the build's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// The name under which the build reaches it.
    pub name: ServiceName,
    /// Its image.
    pub image: Template,
    /// Its variables.
    pub environment: Environment,
    /// What it runs in place of the image's own command.
    pub command: Option<Vec<String>>,
    /// A command in its container that succeeds once it can be used.
    pub ready: Option<String>,
    /// How long it may take to get ready.
    pub timeout: Duration,
}

impl Service {
    /// How long a service may take to get ready that names no time.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
}

/// When something is kept that a job or stage leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// After a success.
    #[default]
    Success,
    /// After a failure.
    Failure,
    /// After both.
    Always,
    /// Not at all.
    Never,
}

/// Files that one build leaves for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// The name under which they are found again.
    pub key: Template,
    /// Beginnings of names that do as well where there is no exact hit, the best first.
    pub restore_keys: Vec<Template>,
    /// Folders and files: below the workspace, absolute, or below the home folder (`~/`). Never empty.
    pub paths: Vec<String>,
    /// When they are saved; [`Keep::Failure`] never.
    pub save: Keep,
}

/// Which builds don't run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Concurrency {
    /// Jobs whose groups have the same name.
    pub group: Template,
    /// What a newer one does to an older one.
    pub cancel: CancelOlder,
}

/// What a newer job of a concurrency group does to older ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelOlder {
    /// It waits for them.
    #[default]
    None,
    /// It takes the place of those that wait.
    Queued,
    /// It also ends the one that runs.
    Running,
}

/// How often a whole job is tried again, and after what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobRetry {
    /// Extra tries.
    pub times: u32,
    /// After these outcomes. Never empty.
    pub when: Vec<Fault>,
}

/// An outcome that is the machinery's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// [`crate::Outcome::AgentLost`].
    AgentLost,
    /// [`crate::Outcome::SourceError`].
    SourceError,
    /// [`crate::Outcome::ImageError`].
    ImageError,
    /// [`crate::Outcome::ServiceError`].
    ServiceError,
    /// [`crate::Outcome::Internal`].
    Internal,
}

impl Fault {
    /// All of them: what `retry` means where it names none.
    pub const ALL: [Self; 5] =
        [Self::AgentLost, Self::SourceError, Self::ImageError, Self::ServiceError, Self::Internal];

    /// The one that an outcome is, where it is one.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::AgentLost { .. } => Some(Self::AgentLost),
            Outcome::SourceError { .. } => Some(Self::SourceError),
            Outcome::ImageError { .. } => Some(Self::ImageError),
            Outcome::ServiceError { .. } => Some(Self::ServiceError),
            Outcome::Internal { .. } => Some(Self::Internal),
            _ => None,
        }
    }

    /// The word for it, that of the outcome.
    pub fn word(self) -> &'static str {
        match self {
            Self::AgentLost => "agent_lost",
            Self::SourceError => "source_error",
            Self::ImageError => "image_error",
            Self::ServiceError => "service_error",
            Self::Internal => "internal",
        }
    }
}
