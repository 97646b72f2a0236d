//! One stage of a checked manifest.

use std::time::Duration;

use crate::{Environment, Keep, Keys, Patterns, Place, Resources, Shell, StageName, Template, when::When};

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// The entries of its script. Never empty.
    pub script: Vec<String>,
    /// The stages that it waits for; none: all that are listed before it.
    pub needs: Option<Vec<(StageName, Place)>>,
    /// When it runs.
    pub when: When,
    /// How long it may run.
    pub timeout: Option<Duration>,
    /// How often it is tried again.
    pub retry: Option<StageRetry>,
    /// Which of its failures count as passed.
    pub allow_failure: AllowFailure,
    /// Files that it leaves for people.
    pub artifacts: Option<Artifacts>,
    /// Files that it leaves for buildr to read.
    pub reports: Reports,
    /// The image of a container of its own; none: it runs in the build container.
    pub image: Option<Template>,
    /// Its working directory, below the workspace.
    pub workdir: Option<Template>,
    /// The user that it runs as: a name or number, maybe `:` and a group.
    pub user: Option<String>,
    /// Its shell; none: the manifest's.
    pub shell: Option<Shell>,
    /// False: no Docker socket in its own container. None: as the manifest says.
    pub docker: Option<bool>,
    /// What its own container may use. None: as the manifest says.
    pub resources: Option<Resources>,
    /// Its own variables.
    pub environment: Environment,
    /// Where the entries of its script stand, as many as there are entries.
    pub script_places: Vec<Place>,
    /// Where its name stands.
    pub place: Place,
    /// Which keys it has, and where.
    pub keys: Keys,
}

/// How often a stage is tried again, and after what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageRetry {
    /// Extra tries.
    pub times: u32,
    /// After these ends. Never empty.
    pub when: Vec<Failure>,
    /// After these exit codes alone; empty: after any.
    pub exit_codes: Vec<u8>,
    /// How long to wait between tries.
    pub backoff: Option<Duration>,
}

/// How a stage can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// [`crate::StageState::Failed`].
    Failed,
    /// [`crate::StageState::TimedOut`].
    TimedOut,
    /// [`crate::StageState::Oom`].
    Oom,
}

impl Failure {
    /// All of them: what `retry` means where it names none.
    pub const ALL: [Self; 3] = [Self::Failed, Self::TimedOut, Self::Oom];

    /// The word for it, that of the stage's state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Oom => "oom",
        }
    }
}

/// Which failures of a stage count as passed for those that wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowFailure {
    /// None.
    #[default]
    No,
    /// All.
    Yes,
    /// Exits with one of these codes. Never empty.
    ExitCodes(Vec<u8>),
}

/// Files that a stage leaves for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Artifacts {
    /// Which; a folder means its contents.
    pub paths: Patterns,
    /// The name of the bundle; none: the stage's.
    pub name: Option<Template>,
    /// After what end; never [`Keep::Never`].
    pub when: Keep,
    /// How long they are kept; none: as long as the operator keeps them.
    pub expire_in: Option<Duration>,
    /// That there are none is a failure, not a warning.
    pub required: bool,
}

/// Files that a stage leaves for buildr to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reports {
    /// Test results in JUnit's format.
    pub junit: Option<Patterns>,
}
