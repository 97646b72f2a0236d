//! What happens to a build.

use super::{
    Invalid, Message, duration_to_pb, outgoing, time::elapsed_from_pb, timestamp_from_pb, timestamp_to_pb,
};
use crate::{
    AttemptId, BuildId,
    build::{BuildEvent, BuildEventKind, JobName},
    limits::{MAX_JOBS, MAX_TEXT},
    pb::{self, build_event},
};

impl From<BuildEvent> for pb::BuildEvent {
    fn from(event: BuildEvent) -> Self {
        let BuildEvent { seq, at, build, job, attempt, kind } = event;
        Self {
            seq,
            at: Some(timestamp_to_pb(at)),
            build: build.get(),
            job,
            attempt: attempt.as_ref().map(AttemptId::to_string).unwrap_or_default(),
            event: Some(kind.into()),
        }
    }
}

impl From<BuildEventKind> for build_event::Event {
    fn from(kind: BuildEventKind) -> Self {
        match kind {
            BuildEventKind::Queued => Self::Queued(build_event::Queued {}),
            BuildEventKind::AttemptAccepted { agent_name } => {
                Self::AttemptAccepted(build_event::AttemptAccepted { agent_name: outgoing(agent_name) })
            }
            BuildEventKind::AttemptLost { reason, requeued } => {
                Self::AttemptLost(build_event::AttemptLost { reason: outgoing(reason), requeued })
            }
            BuildEventKind::CancelRequested { by } => {
                Self::CancelRequested(build_event::CancelRequested { by: outgoing(by) })
            }
            BuildEventKind::Planned { jobs } => {
                Self::Planned(build_event::Planned { jobs: jobs.into_iter().map(Into::into).collect() })
            }
            BuildEventKind::HandedBack { reason } => {
                Self::HandedBack(build_event::HandedBack { reason: outgoing(reason) })
            }
            BuildEventKind::JobRetried { outcome, next, tries } => {
                Self::JobRetried(build_event::JobRetried { outcome: Some(outcome.into()), next, tries })
            }
            BuildEventKind::JobStopped { reason } => {
                Self::JobStopped(build_event::JobStopped { reason: outgoing(reason) })
            }
            BuildEventKind::JobEnded { outcome, allowed } => {
                Self::JobEnded(build_event::JobEnded { outcome: Some(outcome.into()), allowed })
            }
            BuildEventKind::CancelConfirmed { took, containers_removed } => {
                let took = Some(duration_to_pb(took));
                Self::CancelConfirmed(build_event::CancelConfirmed { took, containers_removed })
            }
            BuildEventKind::AgentSilent { agent_name, silent_for, lost_in } => {
                Self::AgentSilent(build_event::AgentSilent {
                    agent_name: outgoing(agent_name),
                    silent_for: Some(duration_to_pb(silent_for)),
                    lost_in: Some(duration_to_pb(lost_in)),
                })
            }
            BuildEventKind::AgentBack { agent_name, silent_for } => {
                let silent_for = Some(duration_to_pb(silent_for));
                Self::AgentBack(build_event::AgentBack { agent_name: outgoing(agent_name), silent_for })
            }
            BuildEventKind::Job(event) => Self::JobEvent(event.into()),
            BuildEventKind::Finished(outcome) => {
                Self::Finished(build_event::Finished { outcome: Some(outcome.into()) })
            }
        }
    }
}

impl TryFrom<pb::BuildEvent> for BuildEvent {
    type Error = Invalid;
    fn try_from(event: pb::BuildEvent) -> Result<Self, Invalid> {
        const EVENT: Message = Message("BuildEvent");
        let pb::BuildEvent { seq, at, build, job, attempt, event } = event;
        let attempt = (!attempt.is_empty()).then(|| EVENT.field("attempt").parse(&attempt)).transpose()?;
        Ok(Self {
            seq,
            at: timestamp_from_pb(EVENT.field("at"), at)?,
            build: EVENT.field("build").require(BuildId::new(build))?,
            job,
            attempt,
            kind: EVENT.field("event").require(event)?.try_into()?,
        })
    }
}

impl TryFrom<build_event::Event> for BuildEventKind {
    type Error = Invalid;
    fn try_from(event: build_event::Event) -> Result<Self, Invalid> {
        let text = |message, field, text| Message(message).field(field).text(text, MAX_TEXT);
        Ok(match event {
            build_event::Event::Queued(build_event::Queued {}) => Self::Queued,
            build_event::Event::AttemptAccepted(build_event::AttemptAccepted { agent_name }) => {
                let agent_name = text("BuildEvent.AttemptAccepted", "agent_name", agent_name)?;
                Self::AttemptAccepted { agent_name }
            }
            build_event::Event::AttemptLost(build_event::AttemptLost { reason, requeued }) => {
                Self::AttemptLost { reason: text("BuildEvent.AttemptLost", "reason", reason)?, requeued }
            }
            build_event::Event::CancelRequested(build_event::CancelRequested { by }) => {
                Self::CancelRequested { by: text("BuildEvent.CancelRequested", "by", by)? }
            }
            build_event::Event::Planned(build_event::Planned { jobs }) => {
                Message("BuildEvent.Planned").field("jobs").at_most(jobs.len(), MAX_JOBS)?;
                Self::Planned { jobs: jobs.into_iter().map(JobName::try_from).collect::<Result<_, _>>()? }
            }
            build_event::Event::HandedBack(build_event::HandedBack { reason }) => {
                Self::HandedBack { reason: text("BuildEvent.HandedBack", "reason", reason)? }
            }
            build_event::Event::JobRetried(build_event::JobRetried { outcome, next, tries }) => {
                let outcome = Message("BuildEvent.JobRetried").field("outcome").require(outcome)?;
                Self::JobRetried { outcome: outcome.try_into()?, next, tries }
            }
            build_event::Event::JobStopped(build_event::JobStopped { reason }) => {
                Self::JobStopped { reason: text("BuildEvent.JobStopped", "reason", reason)? }
            }
            build_event::Event::JobEnded(build_event::JobEnded { outcome, allowed }) => {
                let outcome = Message("BuildEvent.JobEnded").field("outcome").require(outcome)?;
                Self::JobEnded { outcome: outcome.try_into()?, allowed }
            }
            build_event::Event::CancelConfirmed(confirmed) => {
                let build_event::CancelConfirmed { took, containers_removed } = confirmed;
                let took = elapsed_from_pb(Message("BuildEvent.CancelConfirmed").field("took"), took)?;
                Self::CancelConfirmed { took, containers_removed }
            }
            build_event::Event::AgentSilent(silent) => {
                const SILENT: Message = Message("BuildEvent.AgentSilent");
                let build_event::AgentSilent { agent_name, silent_for, lost_in } = silent;
                Self::AgentSilent {
                    agent_name: text("BuildEvent.AgentSilent", "agent_name", agent_name)?,
                    silent_for: elapsed_from_pb(SILENT.field("silent_for"), silent_for)?,
                    lost_in: elapsed_from_pb(SILENT.field("lost_in"), lost_in)?,
                }
            }
            build_event::Event::AgentBack(build_event::AgentBack { agent_name, silent_for }) => {
                const BACK: Message = Message("BuildEvent.AgentBack");
                let silent_for = elapsed_from_pb(BACK.field("silent_for"), silent_for)?;
                Self::AgentBack {
                    agent_name: text("BuildEvent.AgentBack", "agent_name", agent_name)?,
                    silent_for,
                }
            }
            build_event::Event::JobEvent(event) => Self::Job(event.try_into()?),
            build_event::Event::Finished(build_event::Finished { outcome }) => {
                let outcome = Message("BuildEvent.Finished").field("outcome").require(outcome)?;
                Self::Finished(outcome.try_into()?)
            }
        })
    }
}

impl From<JobName> for build_event::JobName {
    fn from(job: JobName) -> Self {
        let JobName { name, allow_failure } = job;
        Self { name: outgoing(name), allow_failure }
    }
}

impl TryFrom<build_event::JobName> for JobName {
    type Error = Invalid;
    fn try_from(job: build_event::JobName) -> Result<Self, Invalid> {
        let build_event::JobName { name, allow_failure } = job;
        Ok(Self { name: Message("BuildEvent.JobName").field("name").text(name, MAX_TEXT)?, allow_failure })
    }
}
