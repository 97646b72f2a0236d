//! The services' way to the hub: one method per kind of input.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buildr_proto::{AgentId, AttemptId, BuildId, build::BuildState, plan::BuildPlan};
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    time::{Instant, timeout},
};

use super::{
    Message,
    shared::{Notice, Push, Shared},
};
use crate::{
    core::{
        explain::Explanation,
        input::{
            Accepted, Claim, Desired, Heartbeat, Hello, Input, LiveAgent, Planned, Reply, Report, SessionId,
            Submit,
        },
        record::AgentOrder,
    },
    error::Error,
    metrics::Metrics,
    store::Store,
};

/// How many pushes may wait for an agent. More than one slot's worth at a time is rare.
const PUSHES: usize = 1024;

/// How long a call waits for a place in the hub's queue. A hub that is behind by more than this would
/// only get further behind.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// How many calls may wait for a place. Each holds its message, which is small as a rule; the
/// largest are those of agents, of which there are only so many.
const MAX_WAITING: i64 = 4096;

/// A handle to the hub. The hub ends when the last one is dropped.
#[derive(Clone)]
pub struct Hub {
    inputs: mpsc::Sender<Message>,
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    sessions: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Hub {
    pub(super) fn new(
        inputs: mpsc::Sender<Message>,
        store: Arc<dyn Store>,
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { inputs, store, shared, sessions: Arc::default(), metrics }
    }

    /// What is committed.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    async fn call(&self, input: Input) -> Result<Reply, Error> {
        let began = Instant::now();
        let place = match self.inputs.try_reserve() {
            Err(mpsc::error::TrySendError::Full(())) => self.room().await?,
            tried => tried.map_err(|_| Error::Stopping)?,
        };
        let (reply, answer) = oneshot::channel();
        place.send(Message { input, reply });
        let answer = answer.await.map_err(|_| Error::Stopping)?;
        self.metrics.hub_input.observe(began.elapsed().as_secs_f64());
        answer
    }

    /// Waits for a place in the queue, and not for ever.
    async fn room(&self) -> Result<mpsc::Permit<'_, Message>, Error> {
        let busy = || {
            self.metrics.refuse("hub");
            Error::Busy
        };
        let waiting = Waiting::begin(&self.metrics.hub_waiting);
        if waiting.0.get() > MAX_WAITING {
            return Err(busy());
        }
        timeout(ROOM_WITHIN, self.inputs.reserve()).await.map_err(|_| busy())?.map_err(|_| Error::Stopping)
    }

    /// Queues a build.
    pub async fn submit(&self, submit: Submit) -> Result<BuildId, Error> {
        match self.call(Input::Submit(submit)).await? {
            Reply::Submitted(build) => Ok(build),
            _ => Err(Error::Internal("a submit was not answered with a build")),
        }
    }

    /// Asks for a build's end.
    pub async fn cancel(&self, build: BuildId, by: String) -> Result<BuildState, Error> {
        match self.call(Input::Cancel { build, by }).await? {
            Reply::Canceled(state) => Ok(state),
            _ => Err(Error::Internal("a cancel was not answered with a state")),
        }
    }

    /// Why the jobs of a build that have no outcome stand where they stand.
    pub async fn explain(&self, build: BuildId) -> Result<Vec<Explanation>, Error> {
        match self.call(Input::Explain(build)).await? {
            Reply::Explained(jobs) => Ok(jobs),
            _ => Err(Error::Internal("a question was not answered with an explanation")),
        }
    }

    /// The agents that are connected or hold an attempt.
    pub async fn agents(&self) -> Result<Vec<LiveAgent>, Error> {
        match self.call(Input::Agents).await? {
            Reply::Agents(agents) => Ok(agents),
            _ => Err(Error::Internal("a question was not answered with the agents")),
        }
    }

    /// What the schedules start next, the soonest first: when, repository, name.
    pub async fn upcoming(&self) -> Result<Vec<(Timestamp, String, String)>, Error> {
        match self.call(Input::Upcoming).await? {
            Reply::Upcoming(upcoming) => Ok(upcoming),
            _ => Err(Error::Internal("a question was not answered with the schedules")),
        }
    }

    /// Wants something of an agent that has connected before.
    pub async fn order(&self, agent: AgentId, order: AgentOrder) -> Result<(), Error> {
        self.call(Input::Order { agent, order }).await.map(drop)
    }

    /// A new connection; what the hub has for it comes out of the receiver, which ends when the
    /// connection is to end.
    pub fn connect(&self) -> (SessionId, mpsc::Receiver<Push>) {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = mpsc::channel(PUSHES);
        self.shared.connect(session, sender);
        (session, receiver)
    }

    /// The connection has ended.
    pub async fn disconnect(&self, agent: AgentId, session: SessionId) {
        self.shared.disconnect(session);
        // However long that takes: nobody else says it.
        let (reply, _nobody_asks) = oneshot::channel();
        if self.inputs.send(Message { input: Input::Gone { agent, session }, reply }).await.is_err() {
            tracing::debug!("the end of a session was not taken: the orchestrator stops");
        }
    }

    /// An agent introduces itself.
    pub async fn hello(&self, hello: Hello) -> Result<Vec<Desired>, Error> {
        self.desired(Input::Hello(hello)).await
    }

    /// An agent lives.
    pub async fn heartbeat(&self, beat: Heartbeat) -> Result<Vec<Desired>, Error> {
        self.desired(Input::Heartbeat(beat)).await
    }

    async fn desired(&self, input: Input) -> Result<Vec<Desired>, Error> {
        match self.call(input).await? {
            Reply::Desired(desired) => Ok(desired),
            _ => Err(Error::Internal("an agent was not answered with desired states")),
        }
    }

    /// An agent cannot take an offer.
    pub async fn decline(&self, claim: Claim, reason: String) -> Result<(), Error> {
        self.call(Input::Decline { claim, reason }).await.map(drop)
    }

    /// An agent takes an offer.
    pub async fn accept(&self, claim: Claim) -> Result<Accepted, Error> {
        match self.call(Input::Accept(claim)).await? {
            Reply::Accepted(decision) => Ok(decision),
            _ => Err(Error::Internal("an acceptance was not answered with a decision")),
        }
    }

    /// An agent has read the manifest.
    pub async fn plan(&self, claim: Claim, plan: BuildPlan) -> Result<Planned, Error> {
        match self.call(Input::Plan { claim, plan }).await? {
            Reply::Planned(decision) => Ok(decision),
            _ => Err(Error::Internal("a plan was not answered with a decision")),
        }
    }

    /// An agent reports; how many events are stored, and what is wanted of the attempt.
    pub async fn report(&self, report: Report) -> Result<(u64, Desired), Error> {
        match self.call(Input::Report(report)).await? {
            Reply::Reported { acked, desired } => Ok((acked, desired)),
            _ => Err(Error::Internal("a report was not answered with an acknowledgement")),
        }
    }

    /// Notices of a build's changes from now on. Look into the store after this, not before.
    pub fn watch(&self, build: BuildId) -> broadcast::Receiver<Notice> {
        self.shared.watch(build)
    }

    /// Whether log bytes of this claim may be taken.
    pub fn may_write(&self, claim: &Claim) -> bool {
        self.shared.may_write(claim)
    }

    /// Whether an attempt was accepted and is not over.
    pub fn is_current(&self, attempt: AttemptId) -> bool {
        self.shared.is_current(attempt)
    }
}

/// One that waits; not any more when this is dropped.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a Gauge) -> Self {
        waiting.inc();
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
