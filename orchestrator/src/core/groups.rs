//! Concurrency groups: of the jobs of one repository that name the same group one is with an agent
//! at a time. A group is known only once a job's manifest was read, so a job joins with its plan.

use std::collections::{BTreeMap, BTreeSet};

use buildr_manifest::CancelOlder;
use buildr_proto::JobId;
use jiff::Timestamp;

use super::{
    State,
    build::{Build, Job, JobState, Phase},
    ending::Why,
    input::Effects,
};

/// All groups that have a job which has not ended.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<(String, String), Members>);

/// The jobs of one group.
#[derive(Debug, Default)]
struct Members {
    /// Who is with an agent, or offered to one.
    holder: Option<JobId>,
    /// All, the holder too.
    jobs: BTreeSet<JobId>,
}

impl Groups {
    /// Who has the group.
    pub(super) fn holder(&self, repository: &str, group: &str) -> Option<JobId> {
        // A key of two texts cannot be looked up by two borrowed ones.
        self.0.get(&(repository.to_owned(), group.to_owned()))?.holder
    }

    /// Takes in a job, which stays until it ends.
    pub(super) fn join(&mut self, build: &Build, job: &Job) {
        let Some(key) = key(build, job) else { return };
        let id = JobId { build: build.row.number, index: job.index };
        self.0.entry(key).or_default().jobs.insert(id);
    }

    /// A job is offered to an agent, or is with one and goes on.
    pub(super) fn hold(&mut self, build: &Build, job: &Job) {
        let id = JobId { build: build.row.number, index: job.index };
        if let Some(members) = key(build, job).and_then(|key| self.0.get_mut(&key)) {
            members.holder = Some(id);
        }
    }

    /// A job is no longer with an agent.
    pub(super) fn release(&mut self, build: &Build, job: &Job) {
        let id = JobId { build: build.row.number, index: job.index };
        if let Some(members) = key(build, job).and_then(|key| self.0.get_mut(&key)) {
            members.holder = members.holder.filter(|holder| *holder != id);
        }
    }

    /// A job has ended.
    pub(super) fn leave(&mut self, build: &Build, job: &Job) {
        self.release(build, job);
        let Some(key) = key(build, job) else { return };
        let Some(members) = self.0.get_mut(&key) else { return };
        members.jobs.remove(&JobId { build: build.row.number, index: job.index });
        if members.jobs.is_empty() {
            self.0.remove(&key);
        }
    }

    fn jobs(&self, build: &Build, job: &Job) -> Vec<JobId> {
        let members = key(build, job).and_then(|key| self.0.get(&key));
        members.map(|members| members.jobs.iter().copied().collect()).unwrap_or_default()
    }

    /// Every group with its holder and its jobs.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (Option<JobId>, &BTreeSet<JobId>)> {
        self.0.values().map(|members| (members.holder, &members.jobs))
    }
}

fn key(build: &Build, job: &Job) -> Option<(String, String)> {
    let group = job.face.group.as_ref()?;
    Some((build.spec.source.repository.clone(), group.name.clone()))
}

impl State {
    /// A job has a plan: it takes the place of older ones, or a newer one takes its own, as they
    /// asked for.
    pub(super) fn join_group(&mut self, id: JobId, now: Timestamp, out: &mut Effects) {
        let Some((build, job)) = super::find(&self.builds, id) else { return };
        let Some(group) = &job.face.group else { return };
        let cancel = group.cancel;
        let others = self.groups.jobs(build, job);
        self.groups.join(build, job);
        let newer = others.iter().filter(|other| other.build > id.build && self.cancels_waiting(**other));
        let newer = newer.max().copied();
        if let Some(newer) = newer {
            return self.stop_job(id, Why::Superseded { by: newer.build }, now, out);
        }
        for older in others.into_iter().filter(|other| other.build < id.build) {
            let stops = match cancel {
                CancelOlder::None => false,
                CancelOlder::Queued => self.waits(older),
                CancelOlder::Running => true,
            };
            if stops {
                self.stop_job(older, Why::Superseded { by: id.build }, now, out);
            }
        }
    }

    fn cancels_waiting(&self, id: JobId) -> bool {
        let group = self.job(id).and_then(|(_, job)| job.face.group.as_ref());
        group.is_some_and(|group| group.cancel != CancelOlder::None)
    }

    /// No agent has it for certain.
    fn waits(&self, id: JobId) -> bool {
        self.job(id).is_some_and(|(_, job)| match &job.state {
            JobState::Queued { .. } => true,
            JobState::Held(attempt) => matches!(attempt.phase, Phase::Offered),
            JobState::Finished(_) => false,
        })
    }
}
