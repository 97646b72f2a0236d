//! Jobs that are to end before their time: the build was canceled, a newer build took their place,
//! or a sibling failed fast. Desired state: it is stored, told at once, and told again until it is so.

use buildr_manifest::Outcome;
use buildr_proto::{BuildId, JobId, build::BuildEventKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    State,
    build::{Build, Job, JobState, Phase},
    input::{Desired, Effects, Signal, Want},
    record::AttemptState,
};

/// Why one job is to end before its time, and since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub why: Why,
    /// Since when.
    pub at: Timestamp,
}

/// Why one job is to end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// A newer build of its concurrency group took its place.
    Superseded {
        /// The newer build.
        by: BuildId,
    },
    /// Another job of the build failed, and the manifest says `fail_fast`.
    FailFast {
        /// That job's index.
        job: u32,
    },
}

/// What a job that is to end comes to, whatever its agent reports.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// Its outcome.
    pub(super) outcome: Outcome,
    /// On whose behalf, for people.
    pub(super) by: String,
    /// Since when its end is wanted.
    pub(super) since: Timestamp,
}

impl Build {
    /// The end that is wanted of a job before its time.
    pub(super) fn wanted_end(&self, job: &Job) -> Option<Wanted> {
        if let Some(by) = &self.row.cancel {
            let since = self.row.cancel_at.unwrap_or(job.queued_at);
            return Some(Wanted { outcome: Outcome::Canceled { by: by.clone() }, by: by.clone(), since });
        }
        let Ending { why, at } = job.ending.clone()?;
        let by = why.on_behalf_of(self.row.number);
        let outcome = match why {
            Why::Superseded { by } => Outcome::Superseded { by: by.get() },
            Why::FailFast { .. } => Outcome::Canceled { by: by.clone() },
        };
        Some(Wanted { outcome, by, since: at })
    }
}

impl Why {
    fn on_behalf_of(self, build: BuildId) -> String {
        match self {
            Self::Superseded { by } => format!("build {by}, which is newer"),
            Self::FailFast { job } => format!("job {build}.{job}, which failed"),
        }
    }
}

impl State {
    /// Wants a job's end that nobody has wanted before.
    pub(super) fn stop_job(&mut self, id: JobId, why: Why, now: Timestamp, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(id) else { return };
        let job = &build.jobs[place];
        if matches!(job.state, JobState::Finished(_)) || build.wanted_end(job).is_some() {
            return;
        }
        build.jobs[place].ending = Some(Ending { why, at: now });
        let reason = match why {
            Why::Superseded { by } => format!("superseded by build {by}"),
            Why::FailFast { job } => format!("job {}.{job} failed, and the matrix is to fail fast", id.build),
        };
        self.note(id, None, BuildEventKind::JobStopped { reason }, now, out);
        self.save_job(id, out);
        self.wind_up(id, now, out);
    }

    /// Ends a job that no agent has; tells the agent that has it. Its end must be wanted.
    pub(super) fn wind_up(&mut self, id: JobId, now: Timestamp, out: &mut Effects) {
        let Some((build, job)) = self.job(id) else { return };
        let Some(Wanted { outcome, by, .. }) = build.wanted_end(job) else { return };
        match &job.state {
            JobState::Finished(_) => return,
            JobState::Queued { .. } => {}
            JobState::Held(attempt) => {
                let session = self.agents.get(&attempt.agent).and_then(|agent| agent.session());
                if let Some(session) = session {
                    let want = Want::Cancel { by };
                    out.signals.push(Signal::Desired(session, Desired { attempt: attempt.id, want }));
                }
                if !matches!(attempt.phase, Phase::Offered) {
                    return;
                }
                let (id, void_at) = (attempt.id, now + self.limits.offer);
                let agent = attempt.agent.clone();
                self.canceled_offers.insert(id, (agent, void_at));
            }
        }
        self.detach(id, AttemptState::Void, now, out);
        self.end_job(id, outcome, now, out);
    }
}
