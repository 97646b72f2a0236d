//! The orchestrator's side for agents.

use buildr_proto::{
    AttemptId, Invalid,
    convert::{Message, duration_to_pb},
    limits::MAX_NAME,
    pb::{
        self, AcceptAttemptRequest, AcceptAttemptResponse, AgentMessage, LogAck, LogChunk,
        OrchestratorMessage, ReportEventsRequest, ReportEventsResponse, ReportPlanRequest,
        ReportPlanResponse, agent_service_server::AgentService,
    },
    plan::BuildPlan,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, incoming, log_writer, session};
use crate::{
    auth::agent_of,
    core::{
        input::{Accepted, Claim, Desired, Planned, Refusal, Report, Want},
        record::AttemptState,
    },
    error::Error,
};

/// What agents call.
pub struct Agents(pub Context);

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = ReceiverStream<Result<OrchestratorMessage, Status>>;
    type AppendLogStream = ReceiverStream<Result<LogAck, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let agent = agent_of(&request)?;
        Ok(Response::new(session::start(self.0.clone(), agent, request.into_inner())))
    }

    async fn accept_attempt(
        &self,
        request: Request<AcceptAttemptRequest>,
    ) -> Result<Response<AcceptAttemptResponse>, Status> {
        use pb::accept_attempt_response::Decision;
        let agent = agent_of(&request)?;
        let AcceptAttemptRequest { attempt, instance } = request.into_inner();
        let claim = incoming::claim(Message("AcceptAttemptRequest"), &attempt, &instance, agent)
            .map_err(Error::from)?;
        let decision = match self.0.hub.accept(claim).await? {
            Accepted::Go => Decision::Go,
            Accepted::Canceled => Decision::Canceled,
        };
        Ok(Response::new(AcceptAttemptResponse { decision: decision.into() }))
    }

    async fn report_plan(
        &self,
        request: Request<ReportPlanRequest>,
    ) -> Result<Response<ReportPlanResponse>, Status> {
        use pb::report_plan_response::Decision;
        let agent = agent_of(&request)?;
        let (attempt, instance, plan) = BuildPlan::from_request(request.into_inner()).map_err(Error::from)?;
        let message = Message("ReportPlanRequest");
        let claim = incoming::claim(message, &attempt, &instance, agent).map_err(Error::from)?;
        let (decision, fence_after) = match self.0.hub.plan(claim, plan).await? {
            Planned::Go { fence_after } => (Decision::Go, fence_after.map(duration_to_pb)),
            Planned::HandBack => (Decision::HandBack, None),
            Planned::Canceled => (Decision::Canceled, None),
        };
        Ok(Response::new(ReportPlanResponse { decision: decision.into(), fence_after }))
    }

    async fn report_events(
        &self,
        request: Request<ReportEventsRequest>,
    ) -> Result<Response<ReportEventsResponse>, Status> {
        let agent = agent_of(&request)?;
        let ReportEventsRequest { attempt, instance, first_seq, events, r#final } = request.into_inner();
        let claim = incoming::claim(Message("ReportEventsRequest"), &attempt, &instance, agent)
            .map_err(Error::from)?;
        let events = incoming::events(events).map_err(Error::from)?;
        let last_seq = first_seq.saturating_add(events.len() as u64).saturating_sub(1);
        let last = match r#final {
            Some(report) => Some(self.verdicts(&claim, report).await?),
            None => None,
        };
        let report = Report { claim: claim.clone(), first_seq, events, last };
        let (acked_seq, desired) = match self.0.hub.report(report).await {
            Err(Error::Refused(Refusal::NotCurrent(_))) => self.reported_before(&claim, last_seq).await?,
            other => other?,
        };
        Ok(Response::new(ReportEventsResponse { acked_seq, desired: Some(desired_to_pb(desired)) }))
    }

    async fn append_log(
        &self,
        request: Request<Streaming<LogChunk>>,
    ) -> Result<Response<Self::AppendLogStream>, Status> {
        let agent = agent_of(&request)?;
        Ok(Response::new(log_writer::start(self.0.clone(), agent, request.into_inner())))
    }
}

impl Agents {
    /// Looks at the logs that a final report speaks of. They take nothing more after that, so a
    /// report that has no right to it must not get here.
    async fn verdicts(
        &self,
        claim: &Claim,
        report: pb::FinalReport,
    ) -> Result<Vec<crate::core::input::LogVerdict>, Error> {
        let claims = incoming::final_report(report)?;
        let mut verdicts = Vec::with_capacity(claims.len());
        for log in claims {
            if self.0.hub.may_write(claim) {
                verdicts.push(self.0.logs.verify(claim.attempt, log).await?);
            }
        }
        Ok(verdicts)
    }

    /// A report whose answer was lost: all of it is stored, and the attempt has ended with it.
    async fn reported_before(&self, claim: &Claim, last_seq: u64) -> Result<(u64, Desired), Error> {
        let attempt = claim.attempt;
        let Some(stored) = self.0.hub.store().attempt(attempt).await? else {
            return Err(Refusal::NotCurrent(attempt).into());
        };
        if stored.agent != claim.agent {
            return Err(Refusal::NotYours(attempt).into());
        }
        let ended = stored.state == AttemptState::Finished && stored.instance == claim.instance;
        if ended && last_seq <= stored.events {
            return Ok((stored.events, Desired { attempt, want: Want::Run }));
        }
        Err(Refusal::NotCurrent(attempt).into())
    }
}

pub(super) fn desired_to_pb(desired: Desired) -> pb::Desired {
    use pb::desired::State;
    let Desired { attempt, want } = desired;
    let (state, canceled_by) = match want {
        Want::Run => (State::Run, String::new()),
        Want::Cancel { by } => (State::Cancel, by),
        Want::Abandon => (State::Abandon, String::new()),
    };
    pb::Desired { attempt: attempt.to_string(), state: state.into(), canceled_by }
}

pub(super) fn decline(decline: pb::Decline) -> Result<(AttemptId, String), Invalid> {
    let pb::Decline { attempt, reason } = decline;
    let attempt = Message("Decline").field("attempt").parse(&attempt)?;
    Ok((attempt, Message("Decline").field("reason").text(reason, MAX_NAME)?))
}
