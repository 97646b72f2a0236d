//! The agent's calls to the orchestrator, in domain types. Beside the session and the log stream
//! this is the only place that sees the protocol. It retries nothing: callers decide.

mod log_stream;

use std::{error::Error as _, time::Duration};

use buildr_manifest::{Event, LogName};
use buildr_proto::{
    AGENT_CREDENTIAL, AUTHORIZATION, AttemptId, InstanceId,
    convert::{Message, duration_from_pb},
    pb::{
        self, accept_attempt_response::Decision as AcceptDecision, agent_service_client::AgentServiceClient,
        desired::State, report_plan_response::Decision as PlanDecision,
    },
    plan::BuildPlan,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

pub use self::log_stream::{Ack, Chunk, LogStream};
use crate::config::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is silent this long is asked whether it is still there, and given up when it
/// does not answer for as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Large enough that one log stream fills a fast network.
const WINDOW: u32 = 4 << 20;

pub(crate) type Client = AgentServiceClient<InterceptedService<Channel, Credentials>>;

/// Ways to the orchestrator: one connection for the session and the facts, one for the logs.
#[derive(Clone)]
pub struct Link {
    control: Client,
    logs: Client,
    instance: InstanceId,
    call: Duration,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody answers; it may work later.
    #[error("the orchestrator cannot be reached: {0}")]
    Unreachable(String),
    /// The attempt is not this process's any more.
    #[error("the attempt is not this agent's any more: {0}")]
    Fenced(String),
    /// The first event's number leaves a gap.
    #[error("the orchestrator lacks earlier events: {0}")]
    Gap(String),
    /// The orchestrator does not let this agent in.
    #[error("{0}")]
    Denied(String),
    /// The orchestrator does not understand it, and never will.
    #[error("the orchestrator does not take it: {0}")]
    Rejected(String),
    /// The orchestrator could not do it now.
    #[error("the orchestrator failed: {0}")]
    Failed(String),
}

/// What came of an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Go on.
    Go,
    /// A cancel came first.
    Canceled,
}

/// What came of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Run it.
    Go {
        /// After a silence of the orchestrator this long the job has to be ended and dropped, because
        /// another agent may be given it.
        fence_after: Option<Duration>,
    },
    /// It is given back.
    HandBack,
    /// A cancel came first.
    Canceled,
}

/// What is wanted of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Go on.
    Run,
    /// End it and report how it ended.
    Cancel {
        /// Who asked for it.
        by: String,
    },
    /// End and remove it, report nothing.
    Abandon,
}

/// What a log must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSummary {
    /// Whose.
    pub log: LogName,
    /// Its length in bytes.
    pub length: u64,
    /// CRC-32C of all of it.
    pub crc: u32,
    /// How many bytes at its end were never delivered.
    pub missing: u64,
}

/// Events to report.
#[derive(Clone, Debug)]
pub struct Report {
    /// The number of the first event.
    pub first_seq: u64,
    /// The events.
    pub events: Vec<pb::JobEvent>,
    /// With the last ones: what the logs must be.
    pub logs: Option<Vec<LogSummary>>,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// All events up to this number are stored.
    pub acked: u64,
    /// What is wanted of the attempt.
    pub want: Want,
}

impl Link {
    /// Ways to the orchestrator at this URL. Nothing is connected until it is used. None where the
    /// URL or the token cannot be used at all.
    pub fn new(
        url: &str,
        token: Option<&Secret>,
        credential: &Secret,
        instance: InstanceId,
        call: Duration,
    ) -> Option<Self> {
        let credentials = Credentials::new(token, credential)?;
        let endpoint = Endpoint::from_shared(url.to_owned()).ok()?.connect_timeout(CONNECT_TIMEOUT);
        let endpoint = endpoint
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let client = || AgentServiceClient::with_interceptor(endpoint.connect_lazy(), credentials.clone());
        Some(Self { control: client(), logs: client(), instance, call })
    }

    /// The client for the session.
    pub(crate) fn control(&self) -> Client {
        self.control.clone()
    }

    /// Takes an offer.
    pub async fn accept(&self, attempt: AttemptId) -> Result<Accepted, CallError> {
        let request =
            pb::AcceptAttemptRequest { attempt: attempt.to_string(), instance: self.instance.to_string() };
        let answer = self.control.clone().accept_attempt(self.timed(request)).await?.into_inner();
        match answer.decision() {
            AcceptDecision::Go => Ok(Accepted::Go),
            AcceptDecision::Canceled => Ok(Accepted::Canceled),
            AcceptDecision::Unspecified => Err(CallError::Failed("its decision is not known here".into())),
        }
    }

    /// Says what an attempt will run.
    pub async fn plan(&self, attempt: AttemptId, plan: BuildPlan) -> Result<Planned, CallError> {
        let request = plan.into_request(attempt.to_string(), self.instance.to_string());
        let answer = self.control.clone().report_plan(self.timed(request)).await?.into_inner();
        match answer.decision() {
            PlanDecision::Go => {
                let field = Message("ReportPlanResponse").field("fence_after");
                let after = answer.fence_after;
                let after = after.map(|after| duration_from_pb(field, Some(after))).transpose();
                let fence_after = after.map_err(|invalid| CallError::Failed(invalid.to_string()))?;
                Ok(Planned::Go { fence_after })
            }
            PlanDecision::HandBack => Ok(Planned::HandBack),
            PlanDecision::Canceled => Ok(Planned::Canceled),
            PlanDecision::Unspecified => Err(CallError::Failed("its decision is not known here".into())),
        }
    }

    /// Reports events.
    pub async fn report(&self, attempt: AttemptId, report: Report) -> Result<Reported, CallError> {
        let Report { first_seq, events, logs } = report;
        let request = pb::ReportEventsRequest {
            attempt: attempt.to_string(),
            instance: self.instance.to_string(),
            first_seq,
            events,
            r#final: logs
                .map(|logs| pb::FinalReport { logs: logs.into_iter().map(pb::LogSummary::from).collect() }),
        };
        let answer = self.control.clone().report_events(self.timed(request)).await?.into_inner();
        let pb::ReportEventsResponse { acked_seq, desired } = answer;
        Ok(Reported { acked: acked_seq, want: desired.map_or(Want::Run, Want::from) })
    }

    /// Opens a stream for an attempt's logs, with the first chunk.
    pub async fn open_log(&self, attempt: AttemptId, first: Chunk) -> Result<LogStream, CallError> {
        let open = LogStream::open(self.logs.clone(), attempt, self.instance, first);
        tokio::time::timeout(self.call, open)
            .await
            .unwrap_or_else(|_| Err(CallError::Unreachable("it did not answer in time".into())))
    }

    fn timed<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.call);
        request
    }
}

/// One attempt's events as they travel; each with the bytes that it takes.
pub(crate) fn encode(event: Event) -> (pb::JobEvent, usize) {
    let event = pb::JobEvent::from(event);
    let size = prost::Message::encoded_len(&event);
    (event, size)
}

impl From<LogSummary> for pb::LogSummary {
    fn from(summary: LogSummary) -> Self {
        let LogSummary { log, length, crc, missing } = summary;
        Self { log: log.into(), length, crc32c: crc, missing }
    }
}

impl From<pb::Desired> for Want {
    fn from(desired: pb::Desired) -> Self {
        match desired.state() {
            State::Unspecified | State::Run => Self::Run,
            State::Cancel => Self::Cancel { by: desired.canceled_by },
            State::Abandon => Self::Abandon,
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let text = describe(&status);
        match status.code() {
            Code::FailedPrecondition | Code::PermissionDenied | Code::NotFound => Self::Fenced(text),
            Code::Unauthenticated => Self::Denied(text),
            Code::OutOfRange => Self::Gap(text),
            Code::InvalidArgument => Self::Rejected(text),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::Unreachable(text)
            }
            _ => Self::Failed(text),
        }
    }
}

/// A status and its causes in one line, each text once.
pub(crate) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = if text.is_empty() { next } else { format!("{text}: {next}") };
        }
        cause = error.source();
    }
    if text.is_empty() { status.code().description().to_owned() } else { text }
}

/// Puts the token and the agent's credential on each call.
#[derive(Clone)]
pub(crate) struct Credentials {
    token: Option<MetadataValue<Ascii>>,
    credential: MetadataValue<Ascii>,
}

impl Credentials {
    fn new(token: Option<&Secret>, credential: &Secret) -> Option<Self> {
        let value = |text: &str| {
            let mut value: MetadataValue<Ascii> = text.parse().ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let token = match token {
            Some(token) => Some(value(&format!("Bearer {}", token.expose()))?),
            None => None,
        };
        Some(Self { token, credential: value(credential.expose())? })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert(AUTHORIZATION, token.clone());
        }
        request.metadata_mut().insert(AGENT_CREDENTIAL, self.credential.clone());
        Ok(request)
    }
}
