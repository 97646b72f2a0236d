//! The part of a plan that the engine carries out, and what it can't yet.
//!
//! The language is checked and planned as a whole. What nobody carries out so far is an error here,
//! at its place in the manifest, and nowhere else: nothing is ignored in silence.

use std::time::Duration;

use super::{Decision, Job, Plan, PlannedStage, VarMap};
use crate::{
    Diagnostics, Place, StageName, Status, VarName,
    diagnostic::{Code, Diagnostic},
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

/// Keys at the top that are planned and not carried out yet.
const TOP: [&str; 9] =
    ["shell", "clone", "agent", "services", "cache", "concurrency", "retry", "docker", "resources"];

/// Keys of a stage that are planned and not carried out yet.
const STAGE: [&str; 11] = [
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

impl Plan {
    /// The one job of this plan, as the engine carries it out. The errors name all that it can't
    /// carry out yet.
    pub fn supported(&self) -> Result<JobPlan, Diagnostics> {
        let mut problems = Vec::new();
        self.refuse_top(&mut problems);
        let out_of_line = self.manifest.order.first_out_of_line();
        for (at, stage) in self.manifest.stages.iter().enumerate() {
            let planned = self.jobs.first().and_then(|job| job.stages.get(at));
            self.refuse_stage(&stage.name, &stage.keys, &mut problems);
            if planned.is_some_and(|planned| wants_failure(planned)) {
                let place = stage.when.any.first().map_or(stage.place, |entry| entry.place);
                problems.push(self.refuse(place, "`status` other than `success`"));
            }
            if out_of_line == Some(at) {
                let place = stage.keys.get("needs").unwrap_or(stage.place);
                problems.push(self.refuse(place, "running stages in another order than that of `stages`"));
            }
        }
        match self.jobs.as_slice() {
            _ if !problems.is_empty() => Err(sorted(problems)),
            [job] => self.job_plan(job),
            _ => {
                let place = self.manifest.keys.get("matrix").unwrap_or_default();
                Err(sorted(vec![self.refuse(place, "a `matrix` of more than one job")]))
            }
        }
    }

    fn job_plan(&self, job: &Job) -> Result<JobPlan, Diagnostics> {
        let Some(image) = job.image.known() else {
            let place = self.manifest.image.place();
            return Err(sorted(vec![self.refuse(place, "an image that depends on the agent or on files")]));
        };
        Ok(JobPlan {
            image: image.to_owned(),
            timeout: self.manifest.timeout,
            environment: job.variables.resolve(&VarMap::new()).into_iter().collect(),
            stages: job.stages.iter().map(stage_plan).collect(),
        })
    }

    fn refuse_top(&self, problems: &mut Vec<Diagnostic>) {
        let manifest = &self.manifest;
        for key in TOP {
            if let Some(place) = manifest.keys.get(key) {
                problems.push(self.refuse(place, &format!("`{key}`")));
            }
        }
        if self.jobs.len() > 1 {
            let place = manifest.keys.get("matrix").unwrap_or_default();
            problems.push(self.refuse(place, "a `matrix` of more than one job"));
        }
    }

    fn refuse_stage(&self, name: &StageName, keys: &crate::Keys, problems: &mut Vec<Diagnostic>) {
        for key in STAGE.into_iter().chain(["environment"]) {
            if let Some(place) = keys.get(key) {
                problems.push(self.refuse(place, &format!("`{key}` in a stage (here: `{name}`)")));
            }
        }
    }

    fn refuse(&self, place: Place, what: &str) -> Diagnostic {
        let problem =
            self.manifest.origin.error(Code::NotSupportedYet, place, format!("{what} is not supported yet"));
        problem.hint("the manifest is valid, but this can't be carried out so far; remove it to run the rest")
    }
}

fn stage_plan(planned: &PlannedStage) -> StagePlan {
    StagePlan {
        name: planned.stage.name.clone(),
        script: planned.stage.script.clone(),
        skip: planned.skipped().map(str::to_owned),
    }
}

fn wants_failure(planned: &PlannedStage) -> bool {
    matches!(planned.decision, Decision::Run(status) if status != Status::SUCCESS)
}

fn sorted(mut problems: Vec<Diagnostic>) -> Diagnostics {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    Diagnostics::from(problems)
}
