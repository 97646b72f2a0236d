//! A plan as one JSON document, for programs.

use buildr_engine::{JobRequest, planning::Planned};
use buildr_manifest::{Decision, Diagnostic, Job, PlannedStage, Start};
use serde::Serialize;

use super::rounds;

/// The plan of a build.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    event: &'static str,
    branch: Option<&'a str>,
    tag: Option<&'a str>,
    commit: Option<&'a str>,
    /// Why the event starts no build; null where it does.
    no_build: Option<&'a str>,
    timeout_seconds: u64,
    jobs: Vec<JobDocument<'a>>,
    /// What the engine can't carry out yet.
    not_supported_yet: &'a [Diagnostic],
    warnings: Vec<&'a str>,
    diagnostics: &'a [Diagnostic],
}

#[derive(Debug, Serialize)]
struct JobDocument<'a> {
    number: usize,
    name: &'a str,
    matrix: serde_json::Map<String, serde_json::Value>,
    allow_failure: bool,
    image: String,
    agent: serde_json::Map<String, serde_json::Value>,
    services: Vec<ServiceDocument<'a>>,
    stages: Vec<StageDocument<'a>>,
}

#[derive(Debug, Serialize)]
struct ServiceDocument<'a> {
    name: &'a str,
    image: String,
}

#[derive(Debug, Serialize)]
struct StageDocument<'a> {
    name: &'a str,
    /// Stages of the same round can run side by side.
    round: usize,
    /// The stages that it waits for, skipped ones left out.
    after: Vec<&'a str>,
    /// After which ends of them it runs: `success`, `failure`, `always`; null where it is skipped.
    status: Option<String>,
    /// Why it is skipped.
    skipped: Option<&'a str>,
    /// The image of a container of its own.
    image: Option<String>,
    script: &'a [String],
}

/// Describes a plan.
pub(super) fn document<'a>(
    request: &'a JobRequest,
    planned: &'a Planned,
    unsupported: &'a [Diagnostic],
) -> Document<'a> {
    let plan = &planned.plan;
    Document {
        event: request.trigger.word(),
        branch: planned.branch.as_deref(),
        tag: planned.tag.as_deref(),
        commit: planned.commit.as_deref(),
        no_build: match &plan.start {
            Start::Yes => None,
            Start::No { why } => Some(why),
        },
        timeout_seconds: plan.manifest.timeout.as_secs(),
        jobs: plan.jobs.iter().map(|job| describe(planned, job)).collect(),
        not_supported_yet: unsupported,
        warnings: planned.warnings.iter().chain(&plan.warnings).map(String::as_str).collect(),
        diagnostics: &planned.diagnostics,
    }
}

fn describe<'a>(planned: &'a Planned, job: &'a Job) -> JobDocument<'a> {
    let rounds = rounds(&planned.plan, job);
    let mut stages: Vec<(usize, usize)> = Vec::new();
    for (number, round) in rounds.iter().enumerate() {
        stages.extend(round.iter().map(|at| (*at, number)));
    }
    stages.sort_unstable();
    let order = &planned.plan.manifest.order;
    let names = |at: usize| -> Vec<&str> {
        job.waits_for(order, at).into_iter().map(|at| &*job.stages[at].stage.name).collect()
    };
    let service = |service: &'a buildr_manifest::PlannedService| ServiceDocument {
        name: &service.service.name,
        image: service.image.to_string(),
    };
    JobDocument {
        number: job.number,
        name: &job.name,
        matrix: job.values.iter().map(|(axis, value)| (axis.to_string(), value.clone().into())).collect(),
        allow_failure: job.allow_failure,
        image: job.image.to_string(),
        agent: job.agent.iter().map(|(label, value)| (label.clone(), value.to_string().into())).collect(),
        services: job.services.iter().map(service).collect(),
        stages: stages.into_iter().map(|(at, round)| stage(&job.stages[at], round, names(at))).collect(),
    }
}

fn stage<'a>(planned: &'a PlannedStage, round: usize, after: Vec<&'a str>) -> StageDocument<'a> {
    StageDocument {
        name: &planned.stage.name,
        round,
        after,
        status: match planned.decision {
            Decision::Run(status) => Some(status.to_string()),
            Decision::Skip { .. } => None,
        },
        skipped: planned.skipped(),
        image: planned.image.as_ref().map(ToString::to_string),
        script: &planned.stage.script,
    }
}
