//! What comes into the state machine and what goes out.

use std::{collections::BTreeMap, time::Duration};

use buildr_manifest::{Event, LogName};
use buildr_proto::{
    AgentId, AttemptId, BuildId, InstanceId, JobId,
    build::{BuildEvent, BuildSpec, BuildState},
    plan::BuildPlan,
};
use jiff::Timestamp;

use super::{
    explain::Explanation,
    record::{AgentOrder, Batch},
};

/// One connection of an agent. Later ones have higher numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client wants a build.
    Submit(Submit),
    /// A client wants a build's end.
    Cancel {
        /// The build.
        build: BuildId,
        /// Who.
        by: String,
    },
    /// An agent has connected.
    Hello(Hello),
    /// An agent lives.
    Heartbeat(Heartbeat),
    /// An agent's connection has ended.
    Gone {
        /// The agent.
        agent: AgentId,
        /// Its connection.
        session: SessionId,
    },
    /// An agent cannot take an offer.
    Decline {
        /// Whose it is.
        claim: Claim,
        /// Why, for people.
        reason: String,
    },
    /// An agent takes an offer.
    Accept(Claim),
    /// An agent has read the manifest.
    Plan {
        /// Whose it is.
        claim: Claim,
        /// What the manifest wants.
        plan: BuildPlan,
    },
    /// An agent reports events.
    Report(Report),
    /// A client asks why a build stands where it stands. Changes nothing.
    Explain(BuildId),
    /// A client asks who is there. Changes nothing.
    Agents,
    /// A client asks what the schedules start next. Changes nothing.
    Upcoming,
    /// An operator wants something of an agent that has connected before.
    Order {
        /// The agent.
        agent: AgentId,
        /// What.
        order: AgentOrder,
    },
    /// Make offers, at most as many as there are ids.
    Dispatch {
        /// Fresh ids.
        ids: Vec<AttemptId>,
    },
    /// Time has passed.
    Tick,
}

/// A build that a client wants. The caller has looked in the store for the key.
#[derive(Clone, Debug)]
pub struct Submit {
    /// The idempotency key.
    pub key: String,
    /// What to build.
    pub spec: BuildSpec,
    /// Who submits it.
    pub submitted_by: String,
}

/// An agent that introduces itself.
#[derive(Clone, Debug)]
pub struct Hello {
    /// Who it is, from its credential.
    pub agent: AgentId,
    /// This connection.
    pub session: SessionId,
    /// Its name, for people.
    pub name: String,
    /// Its process.
    pub instance: InstanceId,
    /// Its program's version.
    pub version: String,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What builds can ask for.
    pub labels: BTreeMap<String, String>,
    /// Every attempt that it has.
    pub held: Vec<AttemptId>,
    /// Those of them that take a slot; the others are over there and only to be delivered.
    pub working: Vec<AttemptId>,
    /// It takes nothing new.
    pub draining: bool,
}

/// A sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// Who.
    pub agent: AgentId,
    /// On which connection.
    pub session: SessionId,
    /// Every attempt that it has.
    pub held: Vec<AttemptId>,
    /// Those of them that take a slot; the others are over there and only to be delivered.
    pub working: Vec<AttemptId>,
    /// It takes nothing new.
    pub draining: bool,
}

/// Who writes for an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The attempt.
    pub attempt: AttemptId,
    /// The agent, from its credential.
    pub agent: AgentId,
    /// The agent's process.
    pub instance: InstanceId,
}

/// Events of an attempt.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose they are.
    pub claim: Claim,
    /// The number of the first one.
    pub first_seq: u64,
    /// The events.
    pub events: Vec<Event>,
    /// With the last ones: what was found of the logs.
    pub last: Option<Vec<LogVerdict>>,
}

/// What was found of a log when its final report came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogVerdict {
    /// Whose.
    pub log: LogName,
    /// How many bytes are stored.
    pub stored: u64,
    /// How many at its end never came.
    pub missing: u64,
    /// Why the stored bytes are not the ones that the agent sent; none where they are.
    pub damage: Option<String>,
}

impl LogVerdict {
    /// What is to be said of the log, where it is not as it should be and nothing else says so: of
    /// stages it is kept how much is missing.
    pub fn trouble(&self) -> Option<String> {
        match &self.damage {
            Some(damage) => Some(format!("is damaged: {damage}")),
            None if self.missing > 0 && self.log.service().is_some() => {
                Some(format!("is incomplete: its last {} bytes were never delivered", self.missing))
            }
            None => None,
        }
    }
}

/// What one step leads to.
#[derive(Debug)]
pub struct Effects {
    /// To be committed before anything else is done.
    pub writes: Batch,
    /// To be done after the commit, in order.
    pub signals: Vec<Signal>,
    /// For who gave the input, after the commit.
    pub reply: Result<Reply, Refusal>,
}

impl Default for Effects {
    fn default() -> Self {
        Self { writes: Batch::default(), signals: Vec::new(), reply: Ok(Reply::Done) }
    }
}

/// Something to do after the commit.
#[derive(Clone, Debug)]
pub enum Signal {
    /// Offer a job to an agent.
    Offer(SessionId, Box<Offer>),
    /// Say what is wanted of an attempt.
    Desired(SessionId, Desired),
    /// A newer connection of the same agent has come.
    Close(SessionId),
    /// A build has new events.
    Changed(BuildId),
    /// An event that is shown and not stored.
    Live(BuildEvent),
    /// An attempt was accepted, or has another process: from now on these writes are good.
    Current(Claim, JobId),
    /// An attempt is over: no write for it is good.
    Over(AttemptId),
}

/// A job for an agent.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The attempt.
    pub attempt: AttemptId,
    /// The job.
    pub job: JobId,
    /// What to build, pinned to the commit once that is known.
    pub spec: BuildSpec,
    /// The variables that the matrix sets in this job.
    pub axes: BTreeMap<String, String>,
    /// A plan is known, so the job is the one with just these axes.
    pub planned: bool,
    /// When it is void.
    pub valid_for: Duration,
    /// How long an agent may be silent.
    pub lease: Duration,
}

/// What is wanted of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The attempt.
    pub attempt: AttemptId,
    /// What.
    pub want: Want,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Go on.
    Run,
    /// End it and report.
    Cancel {
        /// Who asked for it.
        by: String,
    },
    /// End it and report nothing.
    Abandon,
}

/// The answer to an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// The build's number.
    Submitted(BuildId),
    /// The build's end is wanted.
    Canceled(BuildState),
    /// To a hello and a heartbeat: what is wanted of each attempt that the agent named.
    Desired(Vec<Desired>),
    /// To an acceptance.
    Accepted(Accepted),
    /// To a plan.
    Planned(Planned),
    /// To a report.
    Reported {
        /// How many events are stored.
        acked: u64,
        /// What is wanted of the attempt.
        desired: Desired,
    },
    /// Why the jobs of a build stand where they stand.
    Explained(Vec<Explanation>),
    /// The agents that are connected or hold an attempt.
    Agents(Vec<LiveAgent>),
    /// What the schedules start next, the soonest first: when, repository, name.
    Upcoming(Vec<(Timestamp, String, String)>),
    /// How many offers were made.
    Dispatched(usize),
}

/// An agent that is connected or holds an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveAgent {
    /// Its id.
    pub id: AgentId,
    /// It has a session.
    pub connected: bool,
    /// It leaves by itself.
    pub leaving: bool,
    /// When it was heard of last.
    pub heard: Timestamp,
    /// It is not heard of.
    pub silent: bool,
    /// Its attempts, offers left out.
    pub attempts: Vec<(JobId, AttemptId)>,
}

/// The answer to an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Go on.
    Go,
    /// A cancel came first.
    Canceled,
}

/// The answer to a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Run the job.
    Go {
        /// After a silence this long the agent has to end it by itself.
        fence_after: Option<Duration>,
    },
    /// The job waits again; the attempt is over.
    HandBack,
    /// A cancel came first.
    Canceled,
}

/// Why an input changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The attempt is over, void, or was never given.
    #[error("attempt {0} is not current: end and remove it")]
    NotCurrent(AttemptId),
    /// The attempt is another agent's.
    #[error("attempt {0} belongs to another agent")]
    NotYours(AttemptId),
    /// The attempt belongs to another process of the agent.
    #[error("attempt {attempt} belongs to another process of this agent ({current}): end and remove it")]
    OtherInstance {
        /// The attempt.
        attempt: AttemptId,
        /// The process that it belongs to.
        current: InstanceId,
    },
    /// Events are missing in between.
    #[error("the next event of attempt {attempt} is number {expected}: send from there on")]
    Gap {
        /// The attempt.
        attempt: AttemptId,
        /// The number that comes next.
        expected: u64,
    },
    /// Another process of the agent is connected.
    #[error(
        "another process of this agent is connected as `{name}`: stop it first, or give each machine a credential of its own"
    )]
    AlreadyConnected {
        /// The name of the one that is connected.
        name: String,
    },
    /// The connection was replaced by a newer one.
    #[error("a newer connection of this agent has taken over")]
    Replaced,
    /// Too much waits.
    #[error("{0} jobs wait in the queue, and no more can: try again later")]
    QueueFull(usize),
    /// An agent that is connected cannot be forgotten: it would be there again at once.
    #[error("agent {0} is connected: stop its process first, or `buildr agents drain` it")]
    Connected(String),
    /// There is no such build that is not finished.
    #[error("there is no build {0} that has not ended")]
    NoSuchBuild(BuildId),
}
