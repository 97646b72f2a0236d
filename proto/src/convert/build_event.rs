//! What happens to a build.

use super::{Invalid, Message, outgoing, timestamp_from_pb, timestamp_to_pb};
use crate::{
    AttemptId, BuildId,
    build::{BuildEvent, BuildEventKind},
    limits::MAX_TEXT,
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
            build_event::Event::JobEvent(event) => Self::Job(event.try_into()?),
            build_event::Event::Finished(build_event::Finished { outcome }) => {
                let outcome = Message("BuildEvent.Finished").field("outcome").require(outcome)?;
                Self::Finished(outcome.try_into()?)
            }
        })
    }
}
