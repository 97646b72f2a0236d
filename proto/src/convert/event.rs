//! What a running job reports.

use buildr_manifest::{Event, EventKind, Usage};
use jiff::Timestamp;

use super::{
    Invalid, Message, clip, duration_from_pb, duration_to_pb, outgoing, time::elapsed_from_pb,
    timestamp_from_pb, timestamp_to_pb,
};
use crate::{
    limits::{MAX_NAME, MAX_REF, MAX_SERVICES, MAX_STAGES, MAX_TEXT},
    pb::{self, job_event},
};

impl From<Usage> for pb::Usage {
    fn from(usage: Usage) -> Self {
        let Usage { user_cpu, system_cpu, max_rss, peak_memory, network_received, network_sent } = usage;
        Self {
            user_cpu: Some(duration_to_pb(user_cpu)),
            system_cpu: Some(duration_to_pb(system_cpu)),
            max_rss,
            peak_memory,
            network_received,
            network_sent,
        }
    }
}

impl TryFrom<pb::Usage> for Usage {
    type Error = Invalid;
    fn try_from(usage: pb::Usage) -> Result<Self, Invalid> {
        const USAGE: Message = Message("Usage");
        let pb::Usage { user_cpu, system_cpu, max_rss, peak_memory, network_received, network_sent } = usage;
        Ok(Self {
            user_cpu: elapsed_from_pb(USAGE.field("user_cpu"), user_cpu)?,
            system_cpu: elapsed_from_pb(USAGE.field("system_cpu"), system_cpu)?,
            max_rss,
            peak_memory,
            network_received,
            network_sent,
        })
    }
}

/// A time mark: where in a log, and when that byte was written.
impl From<(u64, Timestamp)> for pb::TimeMark {
    fn from((offset, at): (u64, Timestamp)) -> Self {
        Self { offset, at: Some(timestamp_to_pb(at)) }
    }
}

impl TryFrom<pb::TimeMark> for (u64, Timestamp) {
    type Error = Invalid;
    fn try_from(mark: pb::TimeMark) -> Result<Self, Invalid> {
        let pb::TimeMark { offset, at } = mark;
        Ok((offset, timestamp_from_pb(Message("TimeMark").field("at"), at)?))
    }
}

impl From<Event> for pb::JobEvent {
    fn from(event: Event) -> Self {
        let Event { at, kind } = event;
        Self { at: Some(timestamp_to_pb(at)), event: Some(kind.into()) }
    }
}

impl TryFrom<pb::JobEvent> for Event {
    type Error = Invalid;
    fn try_from(event: pb::JobEvent) -> Result<Self, Invalid> {
        const EVENT: Message = Message("JobEvent");
        let pb::JobEvent { at, event } = event;
        Ok(Self {
            at: timestamp_from_pb(EVENT.field("at"), at)?,
            kind: EVENT.field("event").require(event)?.try_into()?,
        })
    }
}

impl From<EventKind> for job_event::Event {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::JobStarted => Self::JobStarted(job_event::JobStarted {}),
            EventKind::SourceResolved { commit, branch, tag } => {
                Self::SourceResolved(job_event::SourceResolved {
                    commit: commit.unwrap_or_default(),
                    branch: branch.unwrap_or_default(),
                    tag: tag.unwrap_or_default(),
                })
            }
            EventKind::SourceReady { took } => {
                Self::SourceReady(job_event::SourceReady { took: Some(duration_to_pb(took)) })
            }
            EventKind::Planned { image, stages, services } => Self::Planned(job_event::Planned {
                image: clip(image, MAX_NAME),
                stages: stages.into_iter().map(String::from).collect(),
                services: services.into_iter().map(String::from).collect(),
            }),
            EventKind::Warning { message } => {
                Self::Warning(job_event::Warning { message: outgoing(message) })
            }
            EventKind::PullProgress { image, current, total } => {
                let image = clip(image, MAX_NAME);
                Self::PullProgress(job_event::PullProgress { image, current, total })
            }
            EventKind::ContainerReady { stage, image, image_id, pull, start } => {
                Self::ContainerReady(job_event::ContainerReady {
                    image: clip(image, MAX_NAME),
                    image_id,
                    stage: stage.map(String::from).unwrap_or_default(),
                    pull: Some(duration_to_pb(pull)),
                    start: Some(duration_to_pb(start)),
                })
            }
            EventKind::ServiceReady { service, image, image_id, took } => {
                Self::ServiceReady(job_event::ServiceReady {
                    service: service.into(),
                    image: clip(image, MAX_NAME),
                    image_id,
                    took: Some(duration_to_pb(took)),
                })
            }
            EventKind::StageStarted { stage } => {
                Self::StageStarted(job_event::StageStarted { stage: stage.into() })
            }
            EventKind::StepStarted { stage, step, command, offset } => {
                let command = outgoing(command);
                Self::StepStarted(job_event::StepStarted { stage: stage.into(), step, command, offset })
            }
            EventKind::StageRetried { stage, attempt, attempts, state, log_bytes, pause } => {
                Self::StageRetried(job_event::StageRetried {
                    stage: stage.into(),
                    attempt,
                    attempts,
                    state: Some(state.into()),
                    log_bytes,
                    pause: Some(duration_to_pb(pause)),
                })
            }
            EventKind::StageFinished { stage, state, allowed, log_bytes, duration, usage } => {
                Self::StageFinished(job_event::StageFinished {
                    stage: stage.into(),
                    state: Some(state.into()),
                    allowed,
                    log_bytes,
                    duration: Some(duration_to_pb(duration)),
                    usage: Some(usage.into()),
                })
            }
            EventKind::JobFinished { outcome, duration, containers_removed } => {
                Self::JobFinished(job_event::JobFinished {
                    outcome: Some(outcome.into()),
                    duration: Some(duration_to_pb(duration)),
                    containers_removed,
                })
            }
        }
    }
}

impl TryFrom<job_event::Event> for EventKind {
    type Error = Invalid;
    fn try_from(event: job_event::Event) -> Result<Self, Invalid> {
        match event {
            job_event::Event::JobStarted(job_event::JobStarted {}) => Ok(Self::JobStarted),
            job_event::Event::SourceResolved(event) => source_resolved(event),
            job_event::Event::Planned(event) => planned(event),
            job_event::Event::Warning(job_event::Warning { message }) => {
                let message = Message("JobEvent.Warning").field("message").text(message, MAX_TEXT)?;
                Ok(Self::Warning { message })
            }
            job_event::Event::PullProgress(job_event::PullProgress { image, current, total }) => {
                let image = Message("JobEvent.PullProgress").field("image").line(image, MAX_NAME)?;
                Ok(Self::PullProgress { image, current, total })
            }
            job_event::Event::SourceReady(job_event::SourceReady { took }) => {
                let took = elapsed_from_pb(Message("JobEvent.SourceReady").field("took"), took)?;
                Ok(Self::SourceReady { took })
            }
            job_event::Event::ContainerReady(event) => container_ready(event),
            job_event::Event::ServiceReady(event) => service_ready(event),
            job_event::Event::StageRetried(event) => stage_retried(event),
            job_event::Event::StageStarted(job_event::StageStarted { stage }) => {
                let stage = Message("JobEvent.StageStarted").field("stage").stage(stage)?;
                Ok(Self::StageStarted { stage })
            }
            job_event::Event::StepStarted(event) => step_started(event),
            job_event::Event::StageFinished(event) => stage_finished(event),
            job_event::Event::JobFinished(event) => job_finished(event),
        }
    }
}

fn source_resolved(event: job_event::SourceResolved) -> Result<EventKind, Invalid> {
    const RESOLVED: Message = Message("JobEvent.SourceResolved");
    let job_event::SourceResolved { commit, branch, tag } = event;
    Ok(EventKind::SourceResolved {
        commit: RESOLVED.field("commit").commit(commit)?,
        branch: RESOLVED.field("branch").optional_line(branch, MAX_REF)?,
        tag: RESOLVED.field("tag").optional_line(tag, MAX_REF)?,
    })
}

fn planned(event: job_event::Planned) -> Result<EventKind, Invalid> {
    const PLANNED: Message = Message("JobEvent.Planned");
    let job_event::Planned { image, stages, services } = event;
    PLANNED.field("stages").at_most(stages.len(), MAX_STAGES)?;
    PLANNED.field("services").at_most(services.len(), MAX_SERVICES)?;
    Ok(EventKind::Planned {
        image: PLANNED.field("image").line(image, MAX_NAME)?,
        stages: stages
            .into_iter()
            .map(|stage| PLANNED.field("stages").stage(stage))
            .collect::<Result<_, _>>()?,
        services: services
            .into_iter()
            .map(|service| PLANNED.field("services").service(service))
            .collect::<Result<_, _>>()?,
    })
}

fn container_ready(event: job_event::ContainerReady) -> Result<EventKind, Invalid> {
    const READY: Message = Message("JobEvent.ContainerReady");
    let job_event::ContainerReady { image, image_id, stage, pull, start } = event;
    let stage = (!stage.is_empty()).then(|| READY.field("stage").stage(stage)).transpose()?;
    Ok(EventKind::ContainerReady {
        stage,
        image: READY.field("image").line(image, MAX_NAME)?,
        image_id: READY.field("image_id").text(image_id, MAX_NAME)?,
        pull: elapsed_from_pb(READY.field("pull"), pull)?,
        start: elapsed_from_pb(READY.field("start"), start)?,
    })
}

fn service_ready(event: job_event::ServiceReady) -> Result<EventKind, Invalid> {
    const READY: Message = Message("JobEvent.ServiceReady");
    let job_event::ServiceReady { service, image, image_id, took } = event;
    Ok(EventKind::ServiceReady {
        service: READY.field("service").service(service)?,
        image: READY.field("image").line(image, MAX_NAME)?,
        image_id: READY.field("image_id").text(image_id, MAX_NAME)?,
        took: elapsed_from_pb(READY.field("took"), took)?,
    })
}

fn stage_retried(event: job_event::StageRetried) -> Result<EventKind, Invalid> {
    const RETRIED: Message = Message("JobEvent.StageRetried");
    let job_event::StageRetried { stage, attempt, attempts, state, log_bytes, pause } = event;
    Ok(EventKind::StageRetried {
        stage: RETRIED.field("stage").stage(stage)?,
        attempt,
        attempts,
        state: RETRIED.field("state").require(state)?.try_into()?,
        log_bytes,
        pause: elapsed_from_pb(RETRIED.field("pause"), pause)?,
    })
}

fn step_started(event: job_event::StepStarted) -> Result<EventKind, Invalid> {
    const STARTED: Message = Message("JobEvent.StepStarted");
    let job_event::StepStarted { stage, step, command, offset } = event;
    Ok(EventKind::StepStarted {
        stage: STARTED.field("stage").stage(stage)?,
        step,
        command: STARTED.field("command").text(command, MAX_TEXT)?,
        offset,
    })
}

fn stage_finished(event: job_event::StageFinished) -> Result<EventKind, Invalid> {
    const FINISHED: Message = Message("JobEvent.StageFinished");
    let job_event::StageFinished { stage, state, log_bytes, duration, usage, allowed } = event;
    Ok(EventKind::StageFinished {
        stage: FINISHED.field("stage").stage(stage)?,
        state: FINISHED.field("state").require(state)?.try_into()?,
        allowed,
        log_bytes,
        duration: elapsed_from_pb(FINISHED.field("duration"), duration)?,
        usage: usage.map_or(Ok(Usage::default()), Usage::try_from)?,
    })
}

fn job_finished(event: job_event::JobFinished) -> Result<EventKind, Invalid> {
    const FINISHED: Message = Message("JobEvent.JobFinished");
    let job_event::JobFinished { outcome, duration, containers_removed } = event;
    Ok(EventKind::JobFinished {
        outcome: FINISHED.field("outcome").require(outcome)?.try_into()?,
        duration: duration_from_pb(FINISHED.field("duration"), duration)?,
        containers_removed,
    })
}
