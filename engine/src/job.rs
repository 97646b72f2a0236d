//! What the engine is asked to do, and what it tells while it does it.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use buildr_manifest::{Event, JobPlan, LogName, Outcome, Part, Pick, Plan, StageName, Trigger, VarName};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::claim::Claim;

/// A name for one run of one job, unique for ever; it is on the labels of all that the run makes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    /// Takes 1 to 64 letters, digits, `-` and `_`; anything else is no name.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        fits.then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::new(text).ok_or("not the name of a run")
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> Self {
        run.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A job before its manifest was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRequest {
    /// The name of this run.
    pub run: RunId,
    /// Where the project comes from.
    pub source: SourceSpec,
    /// The manifest's path in the project; none: the first of the usual names.
    pub manifest_path: Option<PathBuf>,
    /// What started the build.
    pub trigger: Trigger,
    /// What the event brought, where that is not what git says.
    pub facts: EventFacts,
    /// Which job of the manifest.
    pub pick: Pick,
    /// Which stages of it.
    pub part: Part,
    /// What becomes of the build container at the end.
    pub afterwards: Afterwards,
    /// Variables that win over the manifest's.
    pub vars: Vec<(VarName, String)>,
    /// The environment that a manifest may inherit from, already narrowed by the operator.
    pub process_environment: BTreeMap<String, String>,
    /// Facts for the build's own `BUILDR_*` variables.
    pub identity: Identity,
    /// Caps the manifest's timeout.
    pub timeout: Option<Duration>,
}

/// What becomes of the build container at the end of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Afterwards {
    /// It is removed.
    #[default]
    Remove,
    /// It stays with all that still runs in it, unless it was killed, until its user removes it; see
    /// [`Engine::kept`](crate::Engine::kept).
    Keep,
}

/// What a run with [`Afterwards::Keep`] has left for its user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The names of its containers, that of the build first.
    pub containers: Vec<String>,
    /// Where the stage ran that failed first, where one did.
    pub failed: Option<FailedIn>,
}

/// Where a stage ran that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedIn {
    /// The stage.
    pub stage: StageName,
    /// The name of its container.
    pub container: String,
    /// Its working directory in the container.
    pub workdir: String,
    /// The user, as the image or the stage names it; empty: root.
    pub user: String,
    /// All of its variables.
    pub environment: BTreeMap<String, String>,
}

/// What is known of an event from elsewhere than the repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFacts {
    /// The branch; none: the one that is checked out.
    pub branch: Option<String>,
    /// The tag; none: the one that is checked out.
    pub tag: Option<String>,
    /// The branch that a pull request is to be merged into.
    pub target: Option<String>,
    /// The name of the schedule.
    pub cron: Option<String>,
}

/// What a build is told of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The build's number; none in a local run (`BUILDR_BUILD=local`).
    pub build: Option<u64>,
    /// The job, as `42.1`; none in a local run.
    pub job: Option<String>,
    /// The agent's name; none in a local run.
    pub agent: Option<String>,
}

/// Where a project comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum SourceSpec {
    /// A folder of the user's, mounted as it is.
    Folder(PathBuf),
    /// A git repository; the project is checked out into a workspace of the run's own.
    Git(GitSource),
}

/// A commit in a git repository. The texts are not trusted: the engine checks them before use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GitSource {
    /// The repository's URL, or the scp-like form `user@host:path`.
    pub url: String,
    /// Which line of history.
    pub reference: GitReference,
    /// The full commit id; none: what the reference is at.
    pub commit: Option<String>,
}

/// A line of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GitReference {
    /// The remote's default branch.
    Default,
    /// A branch's short name.
    Branch(String),
    /// A tag's short name.
    Tag(String),
}

/// A job whose project is here and whose manifest was read.
#[derive(Debug)]
pub struct Prepared {
    /// The request that it was made from.
    pub request: JobRequest,
    /// What to run.
    pub plan: JobPlan,
    /// All jobs of the manifest; who runs a single one needs none of it.
    pub build: Option<Plan>,
    /// The folder that becomes `/workspace`, absolute.
    pub workspace: PathBuf,
    /// The commit, where there is one.
    pub commit: Option<String>,
    /// The branch, where there is one.
    pub branch: Option<String>,
    /// The tag, where there is one.
    pub tag: Option<String>,
    /// The run's claim on its folder.
    pub claim: Claim,
}

impl Prepared {
    /// Lets the job's containers live without a sign of life from an engine for no longer than this, in
    /// this process and in one that takes the job over. Has to be said before it is run.
    pub fn end_unattended_after(&mut self, limit: Duration) {
        self.claim.begun.unattended = Some(limit);
    }
}

/// How much of what a job tells its listener has, kept where it outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// How many events, those left out that may be missed ([`EventKind::is_ephemeral`]).
    ///
    /// [`EventKind::is_ephemeral`]: buildr_manifest::EventKind::is_ephemeral
    pub events: u64,
    /// The length of each log, in bytes.
    pub logs: BTreeMap<LogName, u64>,
}

/// Why a job cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdopted {
    /// There is no such run here, or another process has it.
    NotHere,
    /// No code of the build can have run: it may begin anew, under another name. What there is of it is
    /// the reaper's.
    NotBegun,
}

/// What the engine tells while it works, in one order: whatever stands before an item in this
/// stream happened before it.
#[derive(Clone, Debug)]
pub enum Item {
    /// Something happened.
    Event(Event),
    /// A stage or a service wrote something.
    Output(Output),
}

/// A piece of the output of a stage or a service. The pieces of a log follow each other without a gap.
#[derive(Clone, Debug)]
pub struct Output {
    /// Whose.
    pub log: LogName,
    /// Where in the log it begins, in bytes.
    pub offset: u64,
    /// At most 256 KiB, cut anywhere.
    pub data: Bytes,
    /// When which byte was written: sparse, ascending.
    pub times: Vec<(u64, Timestamp)>,
}

/// How a run of the engine ended; the same is in the stream's last event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How the job ended.
    pub outcome: Outcome,
}

/// Who wants a job to end, and how soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Go on.
    No,
    /// End the stages with a grace, then clean up: the outcome is `canceled`.
    Cancel {
        /// Who asked for it.
        by: String,
    },
    /// End everything at once, clean up. `canceled` as well.
    Kill {
        /// Who asked for it.
        by: String,
    },
}
