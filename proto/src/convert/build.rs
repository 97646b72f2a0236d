//! Builds, jobs, attempts and stages as they stand.

use buildr_manifest::Usage;

use super::{
    Field, Invalid, Message, duration_to_pb, outgoing, time::elapsed_from_pb, timestamp_from_pb,
    timestamp_to_pb,
};
use crate::{
    BuildId,
    build::{Attempt, Build, BuildState, Job, Stage, StageProgress},
    limits::{MAX_JOBS, MAX_STAGES, MAX_TEXT},
    pb,
    times::JobTimes,
};

/// A state on its way out: the protocol has state and outcome as two fields.
pub fn build_state_to_pb(state: BuildState) -> (pb::BuildState, Option<pb::Outcome>) {
    match state {
        BuildState::Queued => (pb::BuildState::Queued, None),
        BuildState::Running => (pb::BuildState::Running, None),
        BuildState::Finished(outcome) => (pb::BuildState::Finished, Some(outcome.into())),
    }
}

/// A state out of the fields `state` and `outcome` of `message`, which must fit each other.
pub fn build_state_from_pb(
    message: Message,
    state: i32,
    outcome: Option<pb::Outcome>,
) -> Result<BuildState, Invalid> {
    let field = message.field("outcome");
    match (message.field("state").enumeration(state)?, outcome) {
        (pb::BuildState::Queued, None) => Ok(BuildState::Queued),
        (pb::BuildState::Running, None) => Ok(BuildState::Running),
        (pb::BuildState::Finished, Some(outcome)) => Ok(BuildState::Finished(outcome.try_into()?)),
        (pb::BuildState::Finished, None) => Err(field.missing()),
        (state, _) => Err(field.wrong(format!("it is set, and the state is {}", state.as_str_name()))),
    }
}

impl From<Attempt> for pb::Attempt {
    fn from(attempt: Attempt) -> Self {
        let Attempt { id, agent, agent_name } = attempt;
        Self { id: id.to_string(), agent: agent.into(), agent_name: outgoing(agent_name) }
    }
}

impl TryFrom<pb::Attempt> for Attempt {
    type Error = Invalid;
    fn try_from(attempt: pb::Attempt) -> Result<Self, Invalid> {
        const ATTEMPT: Message = Message("Attempt");
        let pb::Attempt { id, agent, agent_name } = attempt;
        Ok(Self {
            id: ATTEMPT.field("id").parse(&id)?,
            agent: agent.try_into().map_err(|error| ATTEMPT.field("agent").wrong(error))?,
            agent_name: ATTEMPT.field("agent_name").text(agent_name, MAX_TEXT)?,
        })
    }
}

impl From<Stage> for pb::Stage {
    fn from(stage: Stage) -> Self {
        let Stage { name, progress, duration, log_bytes, log_missing, failed_command, usage, allowed } =
            stage;
        let (running, state) = match progress {
            StageProgress::Waiting => (false, None),
            StageProgress::Running => (true, None),
            StageProgress::Finished(state) => (false, Some(state.into())),
        };
        Self {
            name: name.into(),
            running,
            state,
            duration: Some(duration_to_pb(duration)),
            log_bytes,
            log_missing,
            failed_command: failed_command.map(outgoing).unwrap_or_default(),
            usage: Some(usage.into()),
            allowed,
        }
    }
}

impl TryFrom<pb::Stage> for Stage {
    type Error = Invalid;
    fn try_from(stage: pb::Stage) -> Result<Self, Invalid> {
        const STAGE: Message = Message("Stage");
        let pb::Stage {
            name,
            running,
            state,
            duration,
            log_bytes,
            log_missing,
            failed_command,
            usage,
            allowed,
        } = stage;
        let progress = match (running, state) {
            (false, None) => StageProgress::Waiting,
            (true, None) => StageProgress::Running,
            (false, Some(state)) => StageProgress::Finished(state.try_into()?),
            (true, Some(_)) => return Err(STAGE.field("running").wrong("the stage has ended")),
        };
        let failed_command = STAGE.field("failed_command").text(failed_command, MAX_TEXT)?;
        Ok(Self {
            name: STAGE.field("name").stage(name)?,
            progress,
            duration: elapsed_from_pb(STAGE.field("duration"), duration)?,
            log_bytes,
            log_missing,
            failed_command: (!failed_command.is_empty()).then_some(failed_command),
            usage: usage.map_or(Ok(Usage::default()), Usage::try_from)?,
            allowed,
        })
    }
}

impl From<JobTimes> for pb::JobTimes {
    fn from(times: JobTimes) -> Self {
        let JobTimes { source, pull, start, run } = times;
        let [source, pull, start, run] = [source, pull, start, run].map(|time| time.map(duration_to_pb));
        Self { source, pull, start, run }
    }
}

impl TryFrom<pb::JobTimes> for JobTimes {
    type Error = Invalid;
    fn try_from(times: pb::JobTimes) -> Result<Self, Invalid> {
        const TIMES: Message = Message("JobTimes");
        let pb::JobTimes { source, pull, start, run } = times;
        let known = |field: &'static str, time: Option<prost_types::Duration>| {
            time.map(|time| elapsed_from_pb(TIMES.field(field), Some(time))).transpose()
        };
        Ok(Self {
            source: known("source", source)?,
            pull: known("pull", pull)?,
            start: known("start", start)?,
            run: known("run", run)?,
        })
    }
}

impl From<Job> for pb::Job {
    fn from(job: Job) -> Self {
        let Job { index, state, attempt, stages, name, axes, allow_failure, times } = job;
        let (state, outcome) = build_state_to_pb(state);
        Self {
            index,
            state: state.into(),
            outcome,
            attempt: attempt.map(pb::Attempt::from),
            stages: stages.into_iter().map(pb::Stage::from).collect(),
            times: Some(times.into()),
            name: name.unwrap_or_default(),
            axes: axes.into_iter().collect(),
            allow_failure,
        }
    }
}

impl TryFrom<pb::Job> for Job {
    type Error = Invalid;
    fn try_from(job: pb::Job) -> Result<Self, Invalid> {
        const JOB: Message = Message("Job");
        let pb::Job { index, state, outcome, attempt, stages, name, axes, allow_failure, times } = job;
        if index == 0 {
            return Err(JOB.field("index").missing());
        }
        JOB.field("stages").at_most(stages.len(), MAX_STAGES)?;
        Ok(Self {
            index,
            state: build_state_from_pb(JOB, state, outcome)?,
            attempt: attempt.map(Attempt::try_from).transpose()?,
            stages: stages.into_iter().map(Stage::try_from).collect::<Result<_, _>>()?,
            times: times.map_or(Ok(JobTimes::default()), JobTimes::try_from)?,
            name: Some(JOB.field("name").text(name, MAX_TEXT)?).filter(|name| !name.is_empty()),
            axes: JOB.field("axes").variables(axes)?,
            allow_failure,
        })
    }
}

impl From<Build> for pb::Build {
    fn from(build: Build) -> Self {
        let Build {
            number,
            spec,
            submitted_by,
            state,
            submitted_at,
            started_at,
            finished_at,
            commit,
            cancel_requested_by,
            jobs,
        } = build;
        let (state, outcome) = build_state_to_pb(state);
        Self {
            number: number.get(),
            spec: Some(spec.into()),
            submitted_by: outgoing(submitted_by),
            state: state.into(),
            outcome,
            submitted_at: Some(timestamp_to_pb(submitted_at)),
            started_at: started_at.map(timestamp_to_pb),
            finished_at: finished_at.map(timestamp_to_pb),
            commit: commit.unwrap_or_default(),
            cancel_requested_by: cancel_requested_by.map(outgoing).unwrap_or_default(),
            jobs: jobs.into_iter().map(pb::Job::from).collect(),
        }
    }
}

impl TryFrom<pb::Build> for Build {
    type Error = Invalid;
    fn try_from(build: pb::Build) -> Result<Self, Invalid> {
        const BUILD: Message = Message("Build");
        let pb::Build {
            number,
            spec,
            submitted_by,
            state,
            outcome,
            submitted_at,
            started_at,
            finished_at,
            commit,
            cancel_requested_by,
            jobs,
        } = build;
        BUILD.field("jobs").at_most(jobs.len(), MAX_JOBS)?;
        let optional_time = |field: Field, at: Option<prost_types::Timestamp>| {
            at.map(|at| timestamp_from_pb(field, Some(at))).transpose()
        };
        let canceled_by = BUILD.field("cancel_requested_by").text(cancel_requested_by, MAX_TEXT)?;
        Ok(Self {
            number: BUILD.field("number").require(BuildId::new(number))?,
            spec: BUILD.field("spec").require(spec)?.try_into()?,
            submitted_by: BUILD.field("submitted_by").text(submitted_by, MAX_TEXT)?,
            state: build_state_from_pb(BUILD, state, outcome)?,
            submitted_at: timestamp_from_pb(BUILD.field("submitted_at"), submitted_at)?,
            started_at: optional_time(BUILD.field("started_at"), started_at)?,
            finished_at: optional_time(BUILD.field("finished_at"), finished_at)?,
            commit: BUILD.field("commit").commit(commit)?,
            cancel_requested_by: (!canceled_by.is_empty()).then_some(canceled_by),
            jobs: jobs.into_iter().map(Job::try_from).collect::<Result<_, _>>()?,
        })
    }
}
