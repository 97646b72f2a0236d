//! What the farm is told of a manifest that was planned here.

use std::num::NonZeroU32;

use buildr_engine::job::{GitReference, Prepared, SourceSpec};
use buildr_manifest::{Job, Open, Outcome, Plan, StageName, Text};
use buildr_proto::plan::{BuildPlan, Face, Group, PlannedJob, Retry, Schedule, Schedules, Terms};

/// The plan of a prepared job and of its siblings.
pub(super) fn plan_of(prepared: &Prepared) -> Result<BuildPlan, Outcome> {
    let Some(plan) = &prepared.build else {
        return Err(Outcome::Internal { message: "the engine gave no plan of the build".to_owned() });
    };
    let jobs = plan.jobs.iter().map(planned_job).collect::<Result<_, _>>()?;
    Ok(BuildPlan {
        commit: prepared.commit.clone(),
        jobs,
        terms: terms(plan),
        schedules: schedules(prepared, plan),
    })
}

fn planned_job(job: &Job) -> Result<PlannedJob, Outcome> {
    let labels = job.agent.iter().map(|(name, value)| Ok((name.clone(), known("agent", value)?)));
    let group = job
        .concurrency
        .as_ref()
        .map(|(name, cancel)| Ok(Group { name: known("concurrency", name)?, cancel: *cancel }));
    Ok(PlannedJob {
        face: Face {
            name: job.name.clone(),
            axes: job.values.iter().map(|(name, value)| (name.to_string(), value.clone())).collect(),
            allow_failure: job.allow_failure,
            group: group.transpose()?,
        },
        labels: labels.collect::<Result<_, Outcome>>()?,
        image: job.image.known().unwrap_or_default().to_owned(),
        stages: job.stages.iter().map(|stage| StageName::clone(&stage.stage.name)).collect(),
    })
}

/// A text that must not depend on files, because it is needed where there are none.
fn known(key: &str, text: &Text) -> Result<String, Outcome> {
    text.resolve(|open| match open {
        Open::Os => Ok(std::env::consts::OS.to_owned()),
        Open::Arch => Ok(std::env::consts::ARCH.to_owned()),
        Open::Checksum(_) => {
            let message = format!("`{key}` cannot depend on the checksum of files");
            Err(Outcome::ManifestError { message })
        }
    })
}

fn terms(plan: &Plan) -> Terms {
    let manifest = &plan.manifest;
    let matrix = manifest.matrix.as_ref();
    Terms {
        retry: manifest.retry.as_ref().map(|retry| Retry { times: retry.times, when: retry.when.clone() }),
        max_parallel: matrix.and_then(|matrix| matrix.max_parallel).and_then(NonZeroU32::new),
        fail_fast: matrix.is_some_and(|matrix| matrix.fail_fast),
    }
}

fn schedules(prepared: &Prepared, plan: &Plan) -> Option<Schedules> {
    let branch = prepared.branch.clone()?;
    let of_default_branch = matches!(
        &prepared.request.source,
        SourceSpec::Git(git) if git.reference == GitReference::Default && git.commit.is_none()
    );
    let crons = plan.manifest.on.as_ref().map(|on| on.cron.as_slice()).unwrap_or_default();
    let entries = crons.iter().map(|cron| Schedule {
        name: cron.name.clone(),
        schedule: cron.schedule.to_string(),
        branch: cron.branch.clone(),
    });
    Some(Schedules { branch, of_default_branch, entries: entries.collect() })
}
