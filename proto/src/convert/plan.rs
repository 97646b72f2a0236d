//! What a manifest wants of the farm.

use std::num::NonZeroU32;

use buildr_manifest::{CancelOlder, Fault};

use super::{Invalid, Message};
use crate::{
    limits::{MAX_JOBS, MAX_NAME, MAX_REF, MAX_SCHEDULES, MAX_STAGES},
    pb::{self, concurrency_group::Cancel},
    plan::{BuildPlan, Face, Group, PlannedJob, Retry, Schedule, Schedules, Terms},
};

const PLAN: Message = Message("ReportPlanRequest");

impl BuildPlan {
    /// The message that reports it for an attempt of an agent's process.
    pub fn into_request(self, attempt: String, instance: String) -> pb::ReportPlanRequest {
        let Self { commit, jobs, terms: Terms { retry, max_parallel, fail_fast }, schedules } = self;
        pb::ReportPlanRequest {
            attempt,
            instance,
            commit: commit.unwrap_or_default(),
            jobs: jobs.into_iter().map(Into::into).collect(),
            retry: retry.map(Into::into),
            max_parallel: max_parallel.map_or(0, NonZeroU32::get),
            fail_fast,
            schedules: schedules.map(Into::into),
        }
    }

    /// The attempt and the instance, not checked, and the plan.
    pub fn from_request(request: pb::ReportPlanRequest) -> Result<(String, String, Self), Invalid> {
        let pb::ReportPlanRequest {
            attempt,
            instance,
            commit,
            jobs,
            retry,
            max_parallel,
            fail_fast,
            schedules,
        } = request;
        PLAN.field("jobs").at_most(jobs.len(), MAX_JOBS)?;
        if jobs.is_empty() {
            return Err(PLAN.field("jobs").missing());
        }
        let terms = Terms {
            retry: retry.map(Retry::try_from).transpose()?,
            max_parallel: NonZeroU32::new(max_parallel),
            fail_fast,
        };
        let plan = Self {
            commit: PLAN.field("commit").commit(commit)?,
            jobs: jobs.into_iter().map(PlannedJob::try_from).collect::<Result<_, _>>()?,
            terms,
            schedules: schedules.map(Schedules::try_from).transpose()?,
        };
        Ok((attempt, instance, plan))
    }
}

impl From<PlannedJob> for pb::PlannedJob {
    fn from(job: PlannedJob) -> Self {
        let PlannedJob { face: Face { name, axes, allow_failure, group }, labels, image, stages } = job;
        Self {
            axes: axes.into_iter().collect(),
            labels: labels.into_iter().collect(),
            image,
            stages: stages.into_iter().map(String::from).collect(),
            name,
            allow_failure,
            group: group.map(Into::into),
        }
    }
}

impl TryFrom<pb::PlannedJob> for PlannedJob {
    type Error = Invalid;
    fn try_from(job: pb::PlannedJob) -> Result<Self, Invalid> {
        const JOB: Message = Message("PlannedJob");
        let pb::PlannedJob { axes, labels, image, stages, name, allow_failure, group } = job;
        JOB.field("stages").at_most(stages.len(), MAX_STAGES)?;
        let name = JOB.field("name").text(name, MAX_NAME)?;
        let group = group.map(Group::try_from).transpose()?;
        Ok(Self {
            face: Face { name, axes: JOB.field("axes").variables(axes)?, allow_failure, group },
            labels: JOB.field("labels").labels(labels)?,
            image: JOB.field("image").text(image, MAX_NAME)?,
            stages: stages
                .into_iter()
                .map(|stage| JOB.field("stages").stage(stage))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<Group> for pb::ConcurrencyGroup {
    fn from(group: Group) -> Self {
        let Group { name, cancel } = group;
        let cancel = match cancel {
            CancelOlder::None => Cancel::None,
            CancelOlder::Queued => Cancel::Queued,
            CancelOlder::Running => Cancel::Running,
        };
        Self { name, cancel: cancel.into() }
    }
}

impl TryFrom<pb::ConcurrencyGroup> for Group {
    type Error = Invalid;
    fn try_from(group: pb::ConcurrencyGroup) -> Result<Self, Invalid> {
        const GROUP: Message = Message("ConcurrencyGroup");
        let pb::ConcurrencyGroup { name, cancel } = group;
        let cancel = match GROUP.field("cancel").enumeration(cancel)? {
            Cancel::Queued => CancelOlder::Queued,
            Cancel::Running => CancelOlder::Running,
            Cancel::None | Cancel::Unspecified => CancelOlder::None,
        };
        Ok(Self { name: GROUP.field("name").line(name, MAX_NAME)?, cancel })
    }
}

impl From<Retry> for pb::JobRetry {
    fn from(retry: Retry) -> Self {
        let fault = |fault| {
            i32::from(match fault {
                Fault::AgentLost => pb::Fault::AgentLost,
                Fault::SourceError => pb::Fault::SourceError,
                Fault::ImageError => pb::Fault::ImageError,
                Fault::ServiceError => pb::Fault::ServiceError,
                Fault::Internal => pb::Fault::Internal,
            })
        };
        Self { times: retry.times, when: retry.when.into_iter().map(fault).collect() }
    }
}

impl TryFrom<pb::JobRetry> for Retry {
    type Error = Invalid;
    fn try_from(retry: pb::JobRetry) -> Result<Self, Invalid> {
        let field = Message("JobRetry").field("when");
        let pb::JobRetry { times, when } = retry;
        field.at_most(when.len(), Fault::ALL.len())?;
        let fault = |fault| {
            Ok(match field.enumeration(fault)? {
                pb::Fault::AgentLost => Fault::AgentLost,
                pb::Fault::SourceError => Fault::SourceError,
                pb::Fault::ImageError => Fault::ImageError,
                pb::Fault::ServiceError => Fault::ServiceError,
                pb::Fault::Internal | pb::Fault::Unspecified => Fault::Internal,
            })
        };
        Ok(Self { times, when: when.into_iter().map(fault).collect::<Result<_, _>>()? })
    }
}

impl From<Schedules> for pb::Schedules {
    fn from(schedules: Schedules) -> Self {
        let entry = |entry: Schedule| {
            let Schedule { name, schedule, branch } = entry;
            pb::Schedule { name, schedule, branch: branch.unwrap_or_default() }
        };
        let Schedules { branch, of_default_branch, entries } = schedules;
        Self { branch, schedules: entries.into_iter().map(entry).collect(), of_default_branch }
    }
}

impl TryFrom<pb::Schedules> for Schedules {
    type Error = Invalid;
    fn try_from(schedules: pb::Schedules) -> Result<Self, Invalid> {
        const SCHEDULE: Message = Message("Schedule");
        let pb::Schedules { branch, schedules, of_default_branch } = schedules;
        Message("Schedules").field("schedules").at_most(schedules.len(), MAX_SCHEDULES)?;
        let entry = |entry| {
            let pb::Schedule { name, schedule, branch } = entry;
            Ok(Schedule {
                name: SCHEDULE.field("name").line(name, MAX_NAME)?,
                schedule: SCHEDULE.field("schedule").line(schedule, MAX_NAME)?,
                branch: SCHEDULE.field("branch").optional_line(branch, MAX_REF)?,
            })
        };
        Ok(Self {
            branch: Message("Schedules").field("branch").line(branch, MAX_REF)?,
            of_default_branch,
            entries: schedules.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}
