//! The part of a plan that the engine carries out, and what it can't yet.
//!
//! The language is checked and planned as a whole. What nobody carries out so far is an error here,
//! at its place in the manifest, and nowhere else: nothing is ignored in silence.

use std::time::Duration;

use super::{Decision, Job, Pick, Plan, PlannedStage, VarMap};
use crate::{
    Diagnostics, Place, StageName, Status, VarName,
    diagnostic::{Code, Report},
};

/// What one job does: one container of `image`, the stages in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlan {
    /// The image with its tag or digest, `:latest` where the manifest names none.
    pub image: String,
    /// The limit on the whole job's run.
    pub timeout: Duration,
    /// Inherited variables, `CI=true`, the manifest's, the matrix's and `Context::vars`, resolved;
    /// each name once. Buildr's own (`BUILDR_*`) are added by the engine.
    pub environment: Vec<(VarName, String)>,
    /// The stages in the order in which they run, `prepare` first. Never empty.
    pub stages: Vec<StagePlan>,
}

/// What one stage does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// Its name, unique in the job.
    pub name: StageName,
    /// The entries; each is a step. Never empty.
    pub script: Vec<String>,
    /// Where it does not run: the condition that does not hold and the actual value, in words. It is
    /// [`crate::StageState::Skipped`] then.
    pub skip: Option<String>,
}

/// Keys at the top that are planned and not carried out yet. `agent`, `concurrency` and `retry` are the
/// farm's business: a run on one machine has no other agent, no other build, and no second try.
const SETTINGS: [&str; 6] = ["shell", "clone", "services", "cache", "docker", "resources"];

/// Keys of a stage that are planned and not carried out yet.
const STAGE_SETTINGS: [&str; 12] = [
    "environment",
    "timeout",
    "retry",
    "allow_failure",
    "artifacts",
    "reports",
    "image",
    "workdir",
    "user",
    "shell",
    "docker",
    "resources",
];

/// What a script asks of buildr by naming it, and does not get yet. Empty, it would do harm: `docker
/// run --network $BUILDR_NETWORK IMAGE` takes the image for the network.
const SCRIPT_VARIABLES: [&str; 2] = ["BUILDR_ENV", "BUILDR_NETWORK"];

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
        let plan = self.job(pick).or(self.jobs.first()).and_then(|job| {
            self.refuse_order(job, &mut report);
            job.stages.iter().for_each(|planned| refuse_stage(planned, &mut report));
            self.job_plan(job, &mut report)
        });
        match plan {
            Some(plan) if !report.has_failed() => Ok(plan),
            _ => Err(report.finish()),
        }
    }

    /// None only where an error was reported.
    fn job_plan(&self, job: &Job, report: &mut Report<'_>) -> Option<JobPlan> {
        let Some(image) = job.image.known() else {
            refuse(self.manifest.image.place(), "an image that depends on the agent or on files", report);
            return None;
        };
        Some(JobPlan {
            image: image.to_owned(),
            timeout: self.manifest.timeout,
            environment: job.variables.resolve(&VarMap::new()).into_iter().collect(),
            stages: job.stages.iter().map(stage_plan).collect(),
        })
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
            Pick::Only if self.jobs.len() > 1 => refuse(place, "a `matrix` of more than one job", report),
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

    /// Refuses what would let stages run in another order than that of the list: the first stage that
    /// does not wait for all that run before it.
    fn refuse_order(&self, job: &Job, report: &mut Report<'_>) {
        let running: Vec<usize> =
            (0..job.stages.len()).filter(|at| job.stages[*at].skipped().is_none()).collect();
        // Where all before it run one after the other, waiting for the last of them is waiting for all.
        let is_in_line = |number: usize| {
            let needs = job.waits_for(&self.manifest.order, running[number]);
            needs.iter().all(|need| running[..number].contains(need))
                && number.checked_sub(1).is_none_or(|last| needs.contains(&running[last]))
        };
        if let Some(number) = (0..running.len()).find(|number| !is_in_line(*number)) {
            let stage = &job.stages[running[number]].stage;
            let place = stage.keys.get("needs").unwrap_or(stage.place);
            refuse(place, "running stages in another order than that of `stages`", report);
        }
    }
}

fn refuse_stage(planned: &PlannedStage, report: &mut Report<'_>) {
    let Decision::Run(status) = planned.decision else { return };
    let stage = &planned.stage;
    for (key, place) in stage.keys.iter().filter(|(key, _)| STAGE_SETTINGS.contains(key)) {
        refuse(place, &format!("`{key}` in a stage"), report);
    }
    for (entry, place) in stage.script.iter().zip(&stage.script_places) {
        for name in SCRIPT_VARIABLES.into_iter().filter(|name| reads(entry, name)) {
            refuse(*place, &format!("the variable `{name}`"), report);
        }
    }
    if status != Status::SUCCESS {
        let entry = stage.when.any.iter().find(|entry| entry.status.failure);
        let place = entry.map_or(stage.place, |entry| entry.place);
        refuse(place, "a stage that also runs after a failure", report);
    }
}

/// True where a shell would put the variable's value into a text: `$NAME` or `${NAME`.
fn reads(script: &str, name: &str) -> bool {
    script.split('$').skip(1).any(|text| {
        let rest = text.strip_prefix('{').unwrap_or(text).strip_prefix(name);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next == '_' || next.is_ascii_alphanumeric()))
    })
}

fn refuse(place: Place, what: &str, report: &mut Report<'_>) {
    let problem = report.error(Code::NotSupportedYet, place.0, format!("{what} is not supported yet"));
    let hint = "the manifest is valid, but this can't be carried out so far; remove it to run the rest";
    report.push(problem.hint(hint));
}

fn stage_plan(planned: &PlannedStage) -> StagePlan {
    StagePlan {
        name: planned.stage.name.clone(),
        script: planned.stage.script.clone(),
        skip: planned.skipped().map(str::to_owned),
    }
}
