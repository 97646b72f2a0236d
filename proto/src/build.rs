//! Builds, jobs and what happens to them, as clients and the orchestrator see them.

use std::{collections::BTreeMap, time::Duration};

use buildr_manifest::{Event, Outcome, StageName, StageState, Trigger, Usage, VarName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, AttemptId, BuildId},
    times::JobTimes,
};

/// Where a build's project comes from. The texts are as the submitter gave them: whoever hands
/// them to git checks them first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The repository's URL, or the scp-like form `user@host:path`.
    pub repository: String,
    /// Which line of history.
    pub reference: Reference,
    /// The full commit id; none: what the reference is at when it is first resolved.
    pub commit: Option<String>,
}

/// A line of history in a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// The remote's default branch.
    #[default]
    Default,
    /// A branch's short name.
    Branch(String),
    /// A tag's short name.
    Tag(String),
}

/// All that was asked for when a build was submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Where the project comes from.
    pub source: Source,
    /// What started the build.
    pub trigger: Trigger,
    /// The manifest's path in the project; none: the usual names.
    pub manifest_path: Option<String>,
    /// Variables that win over the manifest's.
    pub variables: Vec<(VarName, String)>,
    /// Labels that the agent must have.
    pub labels: BTreeMap<String, String>,
    /// Higher goes first; 0 is normal.
    pub priority: i32,
    /// The name of the schedule that started the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
}

/// Where a build or a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BuildState {
    /// It waits for a slot.
    Queued,
    /// An agent has it.
    Running,
    /// It ended, and never changes again.
    Finished(Outcome),
}

/// A build as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its number.
    pub number: BuildId,
    /// What was asked for.
    pub spec: BuildSpec,
    /// Who submitted it, as they named themselves.
    pub submitted_by: String,
    /// Where it stands.
    #[serde(flatten)]
    pub state: BuildState,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// When an agent first took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The commit that is built, once it is known.
    pub commit: Option<String>,
    /// Who asked for its end.
    pub cancel_requested_by: Option<String>,
    /// Its jobs; empty in lists.
    pub jobs: Vec<Job>,
}

/// A job of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its index in the build, from 1.
    pub index: u32,
    /// Where it stands.
    #[serde(flatten)]
    pub state: BuildState,
    /// The current or last attempt; none before the first offer.
    pub attempt: Option<Attempt>,
    /// The stages of that attempt, as far as they are known.
    pub stages: Vec<Stage>,
    /// Where that attempt's time went.
    #[serde(default)]
    pub times: JobTimes,
    /// The values of its axes with `-` between them; `main` without a matrix; none before the plan.
    pub name: Option<String>,
    /// The variables that the matrix sets.
    pub axes: BTreeMap<String, String>,
    /// Its failure does not fail the build.
    pub allow_failure: bool,
}

/// One assignment of a job to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The agent.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: String,
}

/// A stage as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name.
    pub name: StageName,
    /// Where it stands.
    #[serde(flatten)]
    pub progress: StageProgress,
    /// How long it ran; zero until it ended.
    #[serde(with = "buildr_manifest::seconds")]
    pub duration: Duration,
    /// The length of its stored log in bytes.
    pub log_bytes: u64,
    /// Bytes of its log that were never delivered.
    pub log_missing: u64,
    /// The command of the step that failed.
    pub failed_command: Option<String>,
    /// What it used up; nothing until it ended.
    #[serde(default)]
    pub usage: Usage,
    /// It failed as the manifest allows.
    #[serde(default)]
    pub allowed: bool,
}

/// Where a stage stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StageProgress {
    /// It has not begun.
    Waiting,
    /// It runs.
    Running,
    /// It ended, or will never run.
    #[serde(untagged)]
    Finished(StageState),
}

/// Something that happened to a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildEvent {
    /// Ascending within a build, from 1; 0 for what is ephemeral.
    pub seq: u64,
    /// By the orchestrator's clock.
    pub at: Timestamp,
    /// The build.
    pub build: BuildId,
    /// The job that it concerns; 0 for the build as a whole.
    pub job: u32,
    /// The attempt that it concerns.
    pub attempt: Option<AttemptId>,
    /// What.
    pub kind: BuildEventKind,
}

/// One job of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobName {
    /// The values of its axes with `-` between them; `main` without a matrix.
    pub name: String,
    /// Its failure does not fail the build.
    pub allow_failure: bool,
}

/// What happened to a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildEventKind {
    /// It is in the queue.
    Queued,
    /// An agent took an attempt.
    AttemptAccepted {
        /// The agent's name.
        agent_name: String,
    },
    /// An attempt ended without a result.
    AttemptLost {
        /// Why, for people.
        reason: String,
        /// The job was queued again.
        requeued: bool,
    },
    /// Somebody asked for the build's end.
    CancelRequested {
        /// Who.
        by: String,
    },
    /// Its jobs are known.
    Planned {
        /// In order.
        jobs: Vec<JobName>,
    },
    /// An agent has given an attempt back before any code of the build ran.
    HandedBack {
        /// What it has to wait for, for people.
        reason: String,
    },
    /// A job that had an end is queued again, as its manifest asks for.
    JobRetried {
        /// How the try ended.
        outcome: Outcome,
        /// Which try comes next, from 2.
        next: u32,
        /// How many there may be in all.
        tries: u32,
    },
    /// A job is to end before its time, and not because somebody canceled the build.
    JobStopped {
        /// Why, for people.
        reason: String,
    },
    /// A job has its outcome.
    JobEnded {
        /// The outcome.
        outcome: Outcome,
        /// It failed as the manifest allows.
        allowed: bool,
    },
    /// All of a job that was to end is gone from its agent.
    CancelConfirmed {
        /// Since the end was asked for.
        #[serde(with = "buildr_manifest::seconds")]
        took: Duration,
        /// How many containers were removed, where the agent said so.
        containers_removed: Option<u32>,
    },
    /// The agent of an attempt is not heard of.
    AgentSilent {
        /// The agent's name.
        agent_name: String,
        /// How long it has been silent.
        #[serde(with = "buildr_manifest::seconds")]
        silent_for: Duration,
        /// After how much longer the attempt counts as lost.
        #[serde(with = "buildr_manifest::seconds")]
        lost_in: Duration,
    },
    /// The agent of an attempt is heard of again.
    AgentBack {
        /// The agent's name.
        agent_name: String,
        /// How long it was silent.
        #[serde(with = "buildr_manifest::seconds")]
        silent_for: Duration,
    },
    /// The engine's own report.
    Job(Event),
    /// The build has its outcome. Nothing follows.
    Finished(Outcome),
}
