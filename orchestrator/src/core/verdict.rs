//! What becomes of a build, from what became of its jobs.

use buildr_manifest::Outcome;

use super::{
    build::{Build, Job, JobState},
    ending::Why,
};

/// A build's outcome once all jobs have one.
///
/// A build that was canceled is canceled. Otherwise the first job decides that ended badly: one that
/// may fail, and one that ended only because another failed, come last.
pub(super) fn of_build(build: &Build) -> Option<Outcome> {
    let ends: Option<Vec<(&Job, &Outcome)>> = build
        .jobs
        .iter()
        .map(|job| match &job.state {
            JobState::Finished(outcome) => Some((job, outcome)),
            _ => None,
        })
        .collect();
    let ends = ends?;
    let canceled = build.row.cancel.as_ref();
    if let Some(by) = canceled.filter(|_| ends.iter().any(|(_, end)| matches!(end, Outcome::Canceled { .. })))
    {
        return Some(Outcome::Canceled { by: by.clone() });
    }
    let mut bad: Vec<_> = ends.iter().filter(|(job, end)| !counts_as_success(job, end)).collect();
    bad.sort_by_key(|(job, _)| is_collateral(job));
    if let Some((_, outcome)) = bad.first() {
        return Some(Outcome::clone(outcome));
    }
    if ends.iter().any(|(_, end)| has_run_to_an_end(end)) {
        return Some(Outcome::Passed);
    }
    // Nothing passed and nothing failed: a fault that would be allowed is no pass.
    let fault = ends.iter().find(|(_, end)| !end.is_success()).or(ends.first());
    fault.map(|(_, end)| Outcome::clone(end))
}

/// True where a job's end does not make the build red.
pub(super) fn counts_as_success(job: &Job, outcome: &Outcome) -> bool {
    let wanted = matches!(outcome, Outcome::Canceled { .. } | Outcome::Superseded { .. });
    outcome.is_success() || (job.face.allow_failure && !wanted)
}

/// It ended only because another one failed.
fn is_collateral(job: &Job) -> bool {
    job.ending.as_ref().is_some_and(|ending| matches!(ending.why, Why::FailFast { .. }))
}

/// Stages of it ran, and ended by themselves.
fn has_run_to_an_end(outcome: &Outcome) -> bool {
    use Outcome::{Failed, Oom, Passed, TimedOut};
    matches!(outcome, Passed | Failed { .. } | Oom { .. } | TimedOut { .. })
}
