//! The first half of a job: the project is brought here and its manifest is read. No code of the
//! build runs yet.

use std::{path::Path, sync::Arc, time::Instant};

use buildr_manifest::{EventKind, JobPlan, Outcome, Pick, StageState, Start};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Finished, Lifetime,
    claim::Claim,
    clock,
    engine::Inner,
    error::chain,
    feed::{Feed, Keeper, StopSignal},
    job::{GitSource, Item, JobRequest, Prepared, SourceSpec},
    journal::{Begun, Journal},
    manifest_file::{self, ManifestFile},
    planning::{self, Planned, Project, manifest_error},
    run_folder::RunFolder,
    source::{Pinned, SourceError},
};

/// Prepares a job; where that fails, says so as the stream's last event.
pub(crate) async fn prepare(
    engine: &Arc<Inner>,
    request: JobRequest,
    items: &mpsc::Sender<Item>,
    stop: &StopSignal,
) -> Result<Prepared, Finished> {
    let since = Instant::now();
    let (opened, trouble) = match open(engine, &request).await {
        Ok(opened) => (Some(opened), None),
        Err(outcome) => (None, Some(outcome)),
    };
    let journal = opened.as_ref().and_then(|opened| opened.journal.clone());
    let feed = Feed::new(items.clone(), journal);
    feed.event(EventKind::JobStarted).await;
    let outcome = match opened {
        Some(opened) => match begin(engine, request, (opened, since), &feed, stop).await {
            Ok(prepared) => return Ok(prepared),
            Err(outcome) => outcome,
        },
        None => trouble.unwrap_or_else(|| internal("no folder for the run".to_owned())),
    };
    feed.event(EventKind::JobFinished {
        outcome: outcome.clone(),
        duration: since.elapsed(),
        containers_removed: 0,
    })
    .await;
    Err(Finished { outcome })
}

/// A run's folder that was just made.
struct Opened {
    folder: RunFolder,
    journal: Option<Arc<Keeper>>,
}

async fn open(engine: &Arc<Inner>, request: &JobRequest) -> Result<Opened, Outcome> {
    let (data_dir, run) = (engine.config.data_dir.clone(), request.run.clone());
    let lives_on = matches!(engine.config.lifetime, Lifetime::Detached { .. });
    let open = move || -> Result<Opened, Error> {
        let folder = RunFolder::create(&data_dir, &run)?;
        let begin = || Journal::create(folder.path()).map_err(Error::files("write", folder.path()));
        let journal = lives_on.then(begin).transpose()?;
        Ok(Opened { journal: journal.map(|journal| Arc::new(Keeper::new(journal))), folder })
    };
    blocking(move || open().map_err(|error| internal(error.chain()))).await?
}

/// All but the first and the last event.
async fn begin(
    engine: &Arc<Inner>,
    request: JobRequest,
    (opened, since): (Opened, Instant),
    feed: &Feed,
    stop: &StopSignal,
) -> Result<Prepared, Outcome> {
    let Opened { folder, journal } = opened;
    let planned = plan(engine, &request, &folder, feed, stop).await;
    match planned {
        Ok(Readied { project, file, pinned, planned, plan }) => {
            let Project { path, commit, branch, tag } = project;
            let begun = Box::new(Begun {
                request: request.clone(),
                manifest: String::from_utf8_lossy(&file.text).into_owned(),
                name: file.name,
                context: planned.context,
                workspace: path.clone(),
                at: clock::since_boot(),
                unattended: None,
            });
            let claim = Claim { folder, since, journal, begun, pinned };
            let build = Some(planned.plan);
            Ok(Prepared { request, plan, build, workspace: path, commit, branch, tag, claim })
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

/// A project that is known, its manifest, and what that comes to.
struct Readied {
    project: Project,
    file: ManifestFile,
    /// The commit whose files are still to be brought.
    pinned: Option<Pinned>,
    planned: Planned,
    plan: JobPlan,
}

async fn plan(
    engine: &Arc<Inner>,
    request: &JobRequest,
    folder: &RunFolder,
    feed: &Feed,
    stop: &StopSignal,
) -> Result<Readied, Outcome> {
    let Brought { project, file, pinned } = bring(engine, request, folder, stop).await?;
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
    let planned = blocking(move || {
        let planned = planning::plan(&theirs, place, &file);
        planned.map(|planned| (planned, file))
    });
    let (planned, file) = planned.await??;
    let plan = narrow(&planned, &request.pick, feed).await?;
    match stop.by() {
        Some(by) => Err(Outcome::Canceled { by }),
        None => Ok(Readied { project, file, pinned, planned, plan }),
    }
}

/// A project and its manifest, which may not be readable.
struct Brought {
    project: Project,
    file: Result<ManifestFile, Outcome>,
    pinned: Option<Pinned>,
}

/// The project as it is, or what is known of it before a checkout.
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
                let file = file.map_err(|message| Outcome::ManifestError { message });
                Ok(Brought { project, file, pinned: None })
            })
            .await?
        }
        SourceSpec::Git(git) => {
            folder.make_workspace().map_err(|error| internal(error.chain()))?;
            pin(engine, git, (&folder.workspace(), wanted.as_deref()), stop).await
        }
    }
}

async fn pin(
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
    let mut pinned = std::pin::pin!(engine.sources().pin(git, &cancel));
    let pinned = tokio::select! {
        biased;
        by = stop.requested() => {
            cancel.cancel();
            // It ends soon, and must not go on writing while the folder is removed.
            let _ended = pinned.await;
            return Err(Outcome::Canceled { by });
        }
        pinned = &mut pinned => pinned.map_err(source_error)?,
    };
    let file = manifest_file::read_pinned(&pinned, manifest).await;
    let (commit, branch, tag) = (Some(pinned.commit.clone()), pinned.branch.clone(), pinned.tag.clone());
    let project = Project { path: workspace.to_owned(), commit, branch, tag };
    Ok(Brought { project, file, pinned: Some(pinned) })
}

/// What it means that a project cannot be had.
pub(crate) fn source_error(error: SourceError) -> Outcome {
    Outcome::SourceError { message: chain(&error) }
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
    let job = &plan.job;
    feed.event(EventKind::Planned {
        image: job.image.to_string(),
        stages: job.stages.iter().map(|stage| stage.stage.name.clone()).collect(),
        services: job.services.iter().map(|service| service.service.name.clone()).collect(),
    })
    .await;
    // The farm has to hear of the other jobs of a matrix, so the first one goes on in any case.
    let is_alone = *pick != Pick::First || planned.plan.jobs.len() == 1;
    let skipped: Vec<_> = job.stages.iter().filter_map(|stage| Some((stage, stage.skipped()?))).collect();
    if is_alone && skipped.len() == job.stages.len() {
        for (stage, why) in skipped {
            feed.never_ran(&stage.stage.name, StageState::Skipped { why: why.to_owned() }).await;
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
