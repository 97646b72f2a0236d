//! The first half of a job: the project is brought here and its manifest is read. No code of the
//! build runs yet.

use std::{path::Path, sync::Arc, time::Instant};

use buildr_manifest::{CloneOptions, EventKind, JobPlan, Outcome, Pick, Plan, Start};
use tokio_util::sync::CancellationToken;

use crate::{
    Finished,
    claim::Claim,
    engine::Inner,
    error::chain,
    feed::{Feed, StopSignal},
    job::{GitSource, JobRequest, Prepared, SourceSpec},
    manifest_file::{self, ManifestFile},
    planning::{self, Planned, Project, manifest_error},
    run_folder::RunFolder,
    source::SourceError,
    verdict,
};

/// Prepares a job; where that fails, says so as the stream's last event.
pub(crate) async fn prepare(
    engine: &Arc<Inner>,
    request: JobRequest,
    feed: &Feed,
    stop: &StopSignal,
) -> Result<Prepared, Finished> {
    let since = Instant::now();
    feed.event(EventKind::JobStarted).await;
    let outcome = match claim_folder(engine, &request).await {
        Ok(folder) => match begin(engine, request, (folder, since), feed, stop).await {
            Ok(prepared) => return Ok(prepared),
            Err(outcome) => outcome,
        },
        Err(outcome) => outcome,
    };
    feed.event(EventKind::JobFinished {
        outcome: outcome.clone(),
        duration: since.elapsed(),
        containers_removed: 0,
    })
    .await;
    Err(Finished { outcome })
}

async fn claim_folder(engine: &Arc<Inner>, request: &JobRequest) -> Result<RunFolder, Outcome> {
    let (data_dir, run) = (engine.config.data_dir.clone(), request.run.clone());
    blocking(move || RunFolder::create(&data_dir, &run).map_err(|error| internal(error.chain()))).await?
}

/// All but the first and the last event.
async fn begin(
    engine: &Arc<Inner>,
    request: JobRequest,
    (folder, since): (RunFolder, Instant),
    feed: &Feed,
    stop: &StopSignal,
) -> Result<Prepared, Outcome> {
    let planned = plan(engine, &request, &folder, feed, stop).await;
    match planned {
        Ok((project, plan, build)) => {
            let Project { path, commit, branch, tag } = project;
            let claim = Claim::new(folder, since);
            Ok(Prepared { request, plan, build: Some(build), workspace: path, commit, branch, tag, claim })
        }
        Err(outcome) => {
            let removed = blocking(move || folder.remove()).await;
            if !matches!(removed, Ok(Ok(()))) {
                tracing::warn!(run = %request.run, "the run's folder is left to the reaper");
            }
            Err(outcome)
        }
    }
}

async fn plan(
    engine: &Arc<Inner>,
    request: &JobRequest,
    folder: &RunFolder,
    feed: &Feed,
    stop: &StopSignal,
) -> Result<(Project, JobPlan, Plan), Outcome> {
    let (project, file) = bring(engine, request, folder, stop).await?;
    let project = project.seen_as(request);
    feed.event(EventKind::SourceResolved {
        commit: project.commit.clone(),
        branch: project.branch.clone(),
        tag: project.tag.clone(),
    })
    .await;
    let mut file = file?;
    if let Some(warning) = file.warning.take() {
        feed.warning(warning).await;
    }
    let (theirs, place) = (request.clone(), project.clone());
    let planned = blocking(move || planning::plan(&theirs, place, &file)).await??;
    let plan = narrow(&planned, &request.pick, feed).await?;
    match stop.by() {
        Some(by) => Err(Outcome::Canceled { by }),
        None => Ok((project, plan, planned.plan)),
    }
}

/// A project and its manifest, which may not be readable.
type Brought = (Project, Result<ManifestFile, Outcome>);

/// The project as it is, or as it is after a checkout.
async fn bring(
    engine: &Arc<Inner>,
    request: &JobRequest,
    folder: &RunFolder,
    stop: &StopSignal,
) -> Result<Brought, Outcome> {
    let wanted = request.manifest_path.clone();
    match &request.source {
        SourceSpec::Folder(path) => {
            let path = path.clone();
            blocking(move || {
                let project = planning::local(&path)?;
                let file = manifest_file::read(&project.path, wanted.as_deref());
                Ok((project, file.map_err(|message| Outcome::ManifestError { message })))
            })
            .await?
        }
        SourceSpec::Git(git) => check_out(engine, git, (&folder.workspace(), wanted.as_deref()), stop).await,
    }
}

async fn check_out(
    engine: &Arc<Inner>,
    git: &GitSource,
    (workspace, manifest): (&Path, Option<&Path>),
    stop: &StopSignal,
) -> Result<Brought, Outcome> {
    let cancel = CancellationToken::new();
    let theirs = Arc::clone(engine);
    blocking(move || {
        theirs.sources();
    })
    .await?;
    let sources = engine.sources();
    let checkout = async {
        let pinned = sources.pin(git, &cancel).await?;
        let file = manifest_file::read_pinned(&pinned, manifest).await;
        let (commit, branch, tag) = (pinned.commit.clone(), pinned.branch.clone(), pinned.tag.clone());
        pinned.check_out(workspace, &CloneOptions::default(), &cancel).await?;
        Ok((Project { path: workspace.to_owned(), commit: Some(commit), branch, tag }, file))
    };
    let mut checkout = std::pin::pin!(checkout);
    let done = tokio::select! {
        biased;
        by = stop.requested() => {
            cancel.cancel();
            // It ends soon, and must not go on writing while the folder is removed.
            let _ended = checkout.await;
            return Err(Outcome::Canceled { by });
        }
        done = &mut checkout => done,
    };
    done.map_err(|error: SourceError| Outcome::SourceError { message: chain(&error) })
}

/// What the engine is to do of a plan, unless that is nothing.
async fn narrow(planned: &Planned, pick: &Pick, feed: &Feed) -> Result<JobPlan, Outcome> {
    for diagnostic in &planned.diagnostics {
        feed.warning(diagnostic.render(false)).await;
    }
    for warning in &planned.plan.warnings {
        feed.warning(warning.clone()).await;
    }
    if matches!(planned.plan.start, Start::No { .. }) {
        return Err(Outcome::Skipped);
    }
    let plan = planned.plan.supported_job(pick).map_err(manifest_error)?;
    feed.event(EventKind::Planned {
        image: plan.image.clone(),
        stages: plan.stages.iter().map(|stage| stage.name.clone()).collect(),
        services: Vec::new(),
    })
    .await;
    // The farm has to hear of the other jobs of a matrix, so the first one goes on in any case.
    let is_alone = *pick != Pick::First || planned.plan.jobs.len() == 1;
    if is_alone && plan.stages.iter().all(|stage| stage.skip.is_some()) {
        for stage in &plan.stages {
            feed.never_ran(stage, verdict::never_runs(stage, None)).await;
        }
        return Err(Outcome::Skipped);
    }
    Ok(plan)
}

/// Runs what blocks on a thread for that.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Outcome> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(error.to_string()))
}

fn internal(message: String) -> Outcome {
    Outcome::Internal { message }
}
