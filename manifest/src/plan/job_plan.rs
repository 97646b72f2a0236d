//! The part of a plan that the engine carries out, and what it can't yet.
//!
//! The language is checked and planned as a whole. What nobody carries out so far is an error here,
//! at its place in the manifest, and nowhere else: nothing is ignored in silence.

use std::sync::Arc;

use super::{Decision, Job, Pick, Plan, PlannedStage};
use crate::{
    Diagnostics, Manifest, Place,
    diagnostic::{Code, Report},
};

/// One job, all of which can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobPlan {
    /// What is said of all jobs alike, and [`Manifest::order`].
    pub manifest: Arc<Manifest>,
    /// The job.
    pub job: Job,
}

/// Keys at the top that are planned and not carried out yet. `agent`, `concurrency` and `retry` are the
/// farm's business: a run on one machine has no other agent, no other build, and no second try.
const SETTINGS: [&str; 1] = ["cache"];

/// Keys of a stage that are planned and not carried out yet.
const STAGE_SETTINGS: [&str; 2] = ["artifacts", "reports"];

impl Plan {
    /// The one job of this plan, as the engine carries it out. The errors name all that it can't
    /// carry out yet; of a stage that is skipped nothing needs to be.
    pub fn supported(&self) -> Result<JobPlan, Diagnostics> {
        self.supported_job(&Pick::Only)
    }

    /// As [`Plan::supported`], of the job that is meant.
    pub fn supported_job(&self, pick: &Pick) -> Result<JobPlan, Diagnostics> {
        let source = self.manifest.origin.source();
        let mut report = Report::new(&source);
        self.refuse_settings(&mut report);
        self.refuse_matrix(pick, &mut report);
        // Where none is meant that is refused already; the first stands for all.
        let job = self.job(pick).or(self.jobs.first());
        job.into_iter().flat_map(|job| &job.stages).for_each(|planned| refuse_stage(planned, &mut report));
        match job {
            Some(job) if !report.has_failed() => {
                Ok(JobPlan { manifest: Arc::clone(&self.manifest), job: job.clone() })
            }
            _ => Err(report.finish()),
        }
    }

    fn refuse_settings(&self, report: &mut Report<'_>) {
        let keys = &self.manifest.keys;
        for (key, place) in keys.iter().filter(|(key, _)| SETTINGS.contains(key)) {
            refuse(place, &format!("`{key}`"), report);
        }
    }

    fn refuse_matrix(&self, pick: &Pick, report: &mut Report<'_>) {
        let place = self.manifest.keys.get("matrix").unwrap_or_default();
        match pick {
            Pick::Only | Pick::With(_) if self.job(pick).is_none() => {
                let hint = "`buildr run --matrix AXIS=VALUE` runs one job, `buildr submit` runs them all";
                let problem = report.error(Code::BadMatrix, place.0, self.no_single_job(pick));
                report.push(problem.hint(hint));
            }
            Pick::Only if self.jobs.iter().any(|job| job.allow_failure) => {
                refuse(place, "`allow_failure` of a `matrix`", report);
            }
            Pick::Values(values) if self.job(pick).is_none() => {
                let wanted: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let message = format!("no job of the manifest has exactly {}", wanted.join(", "));
                report.push(report.error(Code::NotSupportedYet, place.0, message));
            }
            _ => {}
        }
    }
}

impl Plan {
    /// Why there is not exactly one such job, with those that there are.
    fn no_single_job(&self, pick: &Pick) -> String {
        const MAX_SHOWN: usize = 20;
        let equation = |(name, value): (&str, &str)| format!("{name}={value}");
        let shown = |job: &&Job| {
            let values = job.values.iter().map(|(name, value)| equation((name, value)));
            values.collect::<Vec<_>>().join(" ")
        };
        let list = |jobs: &[&Job]| {
            let more = if jobs.len() > MAX_SHOWN { "; ..." } else { "" };
            jobs.iter().take(MAX_SHOWN).map(shown).collect::<Vec<_>>().join("; ") + more
        };
        let all: Vec<&Job> = self.jobs.iter().collect();
        let Pick::With(values) = pick else {
            return format!("the matrix has {} jobs, and one is to be picked: {}", all.len(), list(&all));
        };
        let wanted: Vec<_> = values.iter().map(|(name, value)| equation((name, value))).collect();
        let wanted = wanted.join(" ");
        match &self.matching(pick)[..] {
            [] => format!("no job has {wanted}; the jobs are: {}", list(&all)),
            several => format!("{} jobs have {wanted}: {}", several.len(), list(several)),
        }
    }
}

fn refuse_stage(planned: &PlannedStage, report: &mut Report<'_>) {
    // What others hand over can still change a decision that reads variables.
    if matches!(planned.decision, Decision::Skip { .. }) && !planned.reads_variables() {
        return;
    }
    for (key, place) in planned.stage.keys.iter().filter(|(key, _)| STAGE_SETTINGS.contains(key)) {
        refuse(place, &format!("`{key}` in a stage"), report);
    }
}

fn refuse(place: Place, what: &str, report: &mut Report<'_>) {
    let problem = report.error(Code::NotSupportedYet, place.0, format!("{what} is not supported yet"));
    let hint = "the manifest is valid, but this can't be carried out so far; remove it to run the rest";
    report.push(problem.hint(hint));
}
