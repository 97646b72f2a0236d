//! Questions about the farm: why a build waits, which agents there are; and repeating a build.

use std::{collections::BTreeMap, time::Duration};

use buildr_proto::{
    BuildId,
    convert::{Message, duration_from_pb, timestamp_from_pb},
    pb::{self, job_explanation::Standing as PbStanding, obstacle::Obstacle},
};
use jiff::Timestamp;
use serde::Serialize;
use tonic::{Code, Status};
use ulid::Ulid;

use super::{Client, Which, timed};
use crate::Error;

/// Why a build stands where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The build.
    pub build: BuildId,
    /// Its jobs that have no outcome yet.
    pub jobs: Vec<JobExplanation>,
    /// What builds of the repository took.
    pub estimate: Option<Estimate>,
}

/// Why a job stands where it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobExplanation {
    /// Its index.
    pub job: u32,
    /// Its name; empty before the plan.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
pub enum Standing {
    /// In the queue.
    Waiting {
        /// What keeps it there, as sentences.
        reasons: Vec<String>,
        /// How many jobs go before it.
        ahead: u32,
        /// Since when.
        since: Timestamp,
    },
    /// An agent was asked.
    Offered {
        /// The agent.
        agent: String,
    },
    /// An agent has it.
    Running {
        /// The agent.
        agent: String,
        /// Since when that is not heard of.
        silent_since: Option<Timestamp>,
        /// On whose behalf it is to end.
        ending: Option<String>,
    },
}

/// Medians of earlier builds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// In the queue.
    #[serde(with = "buildr_manifest::seconds")]
    pub wait: Duration,
    /// On agents.
    #[serde(with = "buildr_manifest::seconds")]
    pub run: Duration,
    /// Of so many.
    pub builds: u32,
    /// Of the same branch.
    pub same_branch: bool,
}

/// An agent as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What builds can ask for.
    pub labels: BTreeMap<String, String>,
    /// It has a session.
    pub connected: bool,
    /// When it connected last.
    pub connected_at: Timestamp,
    /// Since when it is not heard of.
    pub silent_since: Option<Timestamp>,
    /// It leaves by itself.
    pub leaving: bool,
    /// Who wants it to get no new work.
    pub drained_by: Option<String>,
    /// The jobs that it has, as `42.1`.
    pub jobs: Vec<String>,
}

impl Client {
    /// Why a build stands where it stands.
    pub async fn explain(&self, which: Which) -> Result<Explanation, Error> {
        let what = "explain the build";
        let request = pb::ExplainRequest { build: which.number() };
        let answer = self.service.clone().explain(timed(request)).await;
        let answer = answer.map_err(|status| self.error(&status, what, Some(which)))?.into_inner();
        explanation(answer).ok_or_else(|| self.nonsense(what, "the explanation cannot be read"))
    }

    /// Queues a build of the same spec and commit again, and gives its number.
    pub async fn retry(&self, which: Which, by: &str) -> Result<(BuildId, BuildId), Error> {
        let what = "repeat the build";
        let request = pb::RetryBuildRequest {
            build: which.number(),
            idempotency_key: Ulid::new().to_string(),
            submitted_by: by.to_owned(),
        };
        let answer = self.service.clone().retry_build(timed(request)).await;
        let answer = answer.map_err(|status| self.error(&status, what, Some(which)))?.into_inner();
        let numbers = BuildId::new(answer.build).zip(BuildId::new(answer.repeats));
        numbers.ok_or_else(|| self.nonsense(what, "it gave no number"))
    }

    /// All agents, by name.
    pub async fn agents(&self) -> Result<Vec<Agent>, Error> {
        let what = "list the agents";
        let answer = self.service.clone().list_agents(timed(pb::ListAgentsRequest {})).await;
        let agents = answer.map_err(|status| self.error(&status, what, None))?.into_inner().agents;
        let agents: Option<Vec<Agent>> = agents.into_iter().map(agent).collect();
        agents.ok_or_else(|| self.nonsense(what, "an agent cannot be read"))
    }

    /// Gives an agent no new work, or work again.
    pub async fn drain(&self, name: &str, by: &str, resume: Resume) -> Result<Agent, Error> {
        let what = "drain the agent";
        let resume = resume == Resume::Yes;
        let request = pb::DrainAgentRequest { agent: name.to_owned(), by: by.to_owned(), resume };
        let answer = self.service.clone().drain_agent(timed(request)).await;
        let answer = answer.map_err(|status| self.agent_error(&status, what))?.into_inner().agent;
        answer.and_then(agent).ok_or_else(|| self.nonsense(what, "the agent cannot be read"))
    }

    /// Forgets an agent that is not connected.
    pub async fn remove_agent(&self, name: &str) -> Result<Agent, Error> {
        let what = "remove the agent";
        let request = pb::RemoveAgentRequest { agent: name.to_owned() };
        let answer = self.service.clone().remove_agent(timed(request)).await;
        let answer = answer.map_err(|status| self.agent_error(&status, what))?.into_inner().agent;
        answer.and_then(agent).ok_or_else(|| self.nonsense(what, "the agent cannot be read"))
    }

    fn agent_error(&self, status: &Status, what: &'static str) -> Error {
        match status.code() {
            Code::NotFound | Code::FailedPrecondition => Error::Refused(status.message().to_owned()),
            _ => self.error(status, what, None),
        }
    }
}

/// Whether an agent is to get work again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It is.
    Yes,
    /// It is to get none.
    No,
}

fn explanation(answer: pb::ExplainResponse) -> Option<Explanation> {
    let pb::ExplainResponse { build, jobs, estimate } = answer;
    let jobs: Option<Vec<JobExplanation>> = jobs.into_iter().map(job).collect();
    Some(Explanation { build: BuildId::new(build)?, jobs: jobs?, estimate: estimate.and_then(expected) })
}

fn expected(estimate: pb::Estimate) -> Option<Estimate> {
    let pb::Estimate { wait, run, builds, same_branch } = estimate;
    let field = Message("Estimate").field("wait");
    let wait = duration_from_pb(field, wait).ok()?;
    Some(Estimate { wait, run: duration_from_pb(field, run).ok()?, builds, same_branch })
}

fn job(job: pb::JobExplanation) -> Option<JobExplanation> {
    let pb::JobExplanation { job, name, standing } = job;
    let time = |at| timestamp_from_pb(Message("JobExplanation").field("since"), at).ok();
    let standing = match standing? {
        PbStanding::Waiting(pb::job_explanation::Waiting { obstacles, ahead, since }) => {
            let reasons = obstacles.into_iter().filter_map(|obstacle| Some(reason(obstacle.obstacle?)));
            Standing::Waiting { reasons: reasons.collect(), ahead, since: time(since)? }
        }
        PbStanding::Offered(pb::job_explanation::Offered { agent_name }) => {
            Standing::Offered { agent: agent_name }
        }
        PbStanding::Running(pb::job_explanation::Running { agent_name, silent_since, ending }) => {
            let ending = Some(ending).filter(|by| !by.is_empty());
            Standing::Running { agent: agent_name, silent_since: time(silent_since), ending }
        }
    };
    Some(JobExplanation { job, name, standing })
}

/// One thing that a job waits for, as a sentence without a full stop.
fn reason(obstacle: Obstacle) -> String {
    match obstacle {
        Obstacle::NoAgents(_) => "no agent is connected".to_owned(),
        Obstacle::NoSuchAgent(pb::obstacle::NoSuchAgent { missing, wanted }) => {
            let wanted = wanted.join(", ");
            match missing.as_slice() {
                [] => format!("no connected agent has all of {wanted}"),
                missing => format!("no connected agent has {} (it asks for {wanted})", missing.join(", ")),
            }
        }
        Obstacle::AgentUnfit(pb::obstacle::AgentUnfit { agent_name, why }) => {
            format!("agent {agent_name}: {why}")
        }
        Obstacle::GroupBusy(pb::obstacle::GroupBusy { group, build, job }) => {
            format!("job {build}.{job} of the concurrency group `{group}` has not ended")
        }
        Obstacle::MaxParallel(pb::obstacle::MaxParallel { most }) => {
            format!("its matrix runs at most {most} at the same time")
        }
    }
}

fn agent(agent: pb::Agent) -> Option<Agent> {
    let pb::Agent {
        id,
        name,
        version,
        slots,
        labels,
        connected,
        connected_at,
        silent_since,
        leaving,
        drained_by,
        attempts,
    } = agent;
    let time = |at| timestamp_from_pb(Message("Agent").field("connected_at"), at).ok();
    Some(Agent {
        id,
        name,
        version,
        slots,
        labels: labels.into_iter().collect(),
        connected,
        connected_at: time(connected_at)?,
        silent_since: time(silent_since),
        leaving,
        drained_by: Some(drained_by).filter(|by| !by.is_empty()),
        jobs: attempts.into_iter().map(|attempt| format!("{}.{}", attempt.build, attempt.job)).collect(),
    })
}
