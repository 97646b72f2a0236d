//! What the state machine writes: whole rows, so that writing one twice changes nothing.

use std::collections::BTreeMap;

use buildr_manifest::Outcome;
use buildr_proto::{
    AgentId, AttemptId, BuildId, InstanceId,
    build::{BuildEvent, BuildSpec, BuildState, Stage},
    plan::{Face, Terms},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{cron::Timetable, ending::Ending};

/// What never changes of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewBuild {
    /// Its number.
    pub number: BuildId,
    /// The idempotency key of its submit.
    pub key: String,
    /// What was asked for.
    pub spec: BuildSpec,
    /// Who asked for it.
    pub submitted_by: String,
    /// When.
    pub submitted_at: Timestamp,
}

/// What changes of a build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRow {
    /// Its number.
    pub number: BuildId,
    /// Where it stands.
    pub state: BuildState,
    /// When its first attempt was accepted.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The commit that all its jobs are pinned to.
    pub commit: Option<String>,
    /// Who asked for its end.
    pub cancel: Option<String>,
    /// When they did.
    pub cancel_at: Option<Timestamp>,
    /// What the manifest asks for its jobs as a whole; none before the plan.
    pub terms: Option<Terms>,
    /// How many events it has; the last one's number.
    pub events: u64,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its build.
    pub build: BuildId,
    /// Its index, from 1.
    pub index: u32,
    /// Where it stands.
    pub state: BuildState,
    /// What the plan says of it; nothing before there is one.
    pub face: Face,
    /// The labels that its agent must have.
    pub labels: BTreeMap<String, String>,
    /// How many attempts of it were lost.
    pub losses: u32,
    /// How many extra tries it had, because the manifest asks for them.
    pub retries: u32,
    /// Why it is to end before its time.
    pub ending: Option<Ending>,
    /// When it was queued, for the last time.
    pub queued_at: Timestamp,
    /// The current or last accepted attempt.
    pub attempt: Option<AttemptId>,
}

/// Where an attempt stands. An offer is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// The agent has it, and no stage has begun.
    Accepted,
    /// A stage has begun.
    Running,
    /// It ended with its final report.
    Finished,
    /// It was given up.
    Lost,
    /// It was handed back before anything had begun.
    Void,
}

/// An attempt that was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// Its id.
    pub id: AttemptId,
    /// Its build.
    pub build: BuildId,
    /// Its job's index.
    pub job: u32,
    /// The agent.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: String,
    /// The agent's process.
    pub instance: InstanceId,
    /// Where it stands.
    pub state: AttemptState,
    /// How many events its agent has reported.
    pub events: u64,
    /// How the job ended on the agent, once it said so.
    pub outcome: Option<Outcome>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended here.
    pub ended_at: Option<Timestamp>,
}

/// A stage of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRow {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its place in the order of the stages, from 0.
    pub position: u32,
    /// As it stands.
    pub stage: Stage,
    /// The command of the step that began last.
    pub command: Option<String>,
}

/// An agent that has connected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRow {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Its process.
    pub instance: InstanceId,
    /// Its program's version.
    pub version: String,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What builds can ask for.
    pub labels: BTreeMap<String, String>,
    /// When it connected.
    pub connected_at: Timestamp,
}

/// An agent that has connected, as the operator wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentOrder {
    /// It gets work.
    Resume,
    /// It gets no new work.
    Drain {
        /// Who wants that.
        by: String,
    },
    /// It is forgotten.
    Remove,
}

/// Rows that are committed together. Of one row the last version stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Builds that are new.
    pub new_builds: Vec<NewBuild>,
    /// Builds.
    pub builds: BTreeMap<BuildId, BuildRow>,
    /// Jobs.
    pub jobs: BTreeMap<(BuildId, u32), JobRow>,
    /// Attempts.
    pub attempts: BTreeMap<AttemptId, AttemptRow>,
    /// Stages.
    pub stages: BTreeMap<(AttemptId, u32), StageRow>,
    /// New events, in order.
    pub events: Vec<BuildEvent>,
    /// Agents.
    pub agents: BTreeMap<AgentId, AgentRow>,
    /// What operators want of agents. Carried out after `agents` were written.
    pub orders: BTreeMap<AgentId, AgentOrder>,
    /// The schedules of repositories.
    pub timetables: BTreeMap<String, Timetable>,
}

impl Batch {
    /// True where there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        let Self { new_builds, builds, jobs, attempts, stages, events, agents, orders, timetables } = self;
        new_builds.is_empty()
            && builds.is_empty()
            && jobs.is_empty()
            && attempts.is_empty()
            && stages.is_empty()
            && events.is_empty()
            && agents.is_empty()
            && orders.is_empty()
            && timetables.is_empty()
    }

    /// Adds what was written after it.
    pub fn absorb(&mut self, later: Self) {
        let Self { new_builds, builds, jobs, attempts, stages, events, agents, orders, timetables } = later;
        self.new_builds.extend(new_builds);
        self.builds.extend(builds);
        self.jobs.extend(jobs);
        self.attempts.extend(attempts);
        self.stages.extend(stages);
        self.events.extend(events);
        // Whoever was forgotten and has come back since is there again, and nobody drains it.
        for (_, order) in self.orders.iter_mut().filter(|(id, _)| agents.contains_key(*id)) {
            if *order == AgentOrder::Remove {
                *order = AgentOrder::Resume;
            }
        }
        self.agents.extend(agents);
        for (id, order) in orders {
            if order == AgentOrder::Remove {
                self.agents.remove(&id);
            }
            self.orders.insert(id, order);
        }
        self.timetables.extend(timetables);
    }
}
