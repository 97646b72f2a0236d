//! The first half of a job: the project is brought here and its manifest is read. No code of the
//! build runs yet.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use buildr_manifest::{Context, EventKind, JobPlan, Manifest, Outcome};
use tokio_util::sync::CancellationToken;

use crate::{
    Finished,
    claim::Claim,
    engine::Inner,
    environment::repository,
    error::chain,
    feed::{Feed, StopSignal},
    job::{GitReference, GitSource, JobRequest, Prepared, SourceSpec},
    manifest_file::{self, ManifestFile},
    run_folder::RunFolder,
    source,
};

/// A project that is here.
#[derive(Debug, Default)]
struct Project {
    path: PathBuf,
    commit: Option<String>,
    branch: Option<String>,
    tag: Option<String>,
}

impl Project {
    /// With the branch and tag of another line of history in place of its own.
    fn seen_as(self, line: Option<&GitReference>) -> Self {
        match line {
            None | Some(GitReference::Default) => self,
            Some(GitReference::Branch(name)) => Self { branch: Some(name.clone()), tag: None, ..self },
            Some(GitReference::Tag(name)) => Self { branch: None, tag: Some(name.clone()), ..self },
        }
    }
}

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
        Ok((project, plan)) => {
            let Project { path, commit, branch, tag } = project;
            let claim = Claim::new(folder, since);
            Ok(Prepared { request, plan, workspace: path, commit, branch, tag, claim })
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
) -> Result<(Project, JobPlan), Outcome> {
    let project = bring(engine, request, folder, stop).await?.seen_as(request.seen_as.as_ref());
    feed.event(EventKind::SourceResolved {
        commit: project.commit.clone(),
        branch: project.branch.clone(),
        tag: project.tag.clone(),
    })
    .await;
    let (root, wanted) = (project.path.clone(), request.manifest_path.clone());
    let file = blocking(move || manifest_file::read(&root, wanted.as_deref())).await?;
    let file = file.map_err(|message| Outcome::ManifestError { message })?;
    let plan = resolve(request, &project, file, feed).await?;
    feed.event(EventKind::Planned {
        image: plan.image.clone(),
        stages: plan.stages.iter().map(|stage| stage.name.clone()).collect(),
    })
    .await;
    match stop.by() {
        Some(by) => Err(Outcome::Canceled { by }),
        None => Ok((project, plan)),
    }
}

/// The project as it is, or as it is after a checkout.
async fn bring(
    engine: &Arc<Inner>,
    request: &JobRequest,
    folder: &RunFolder,
    stop: &StopSignal,
) -> Result<Project, Outcome> {
    match &request.source {
        SourceSpec::Folder(path) => {
            let path = path.clone();
            blocking(move || local(&path)).await?
        }
        SourceSpec::Git(git) => check_out(engine, git, &folder.workspace(), stop).await,
    }
}

fn local(path: &Path) -> Result<Project, Outcome> {
    let failed = |error: std::io::Error| Outcome::SourceError {
        message: format!("cannot use the project's folder {}: {error}", path.display()),
    };
    let path = path.canonicalize().map_err(failed)?;
    if !path.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    // Waking libgit2 takes longer than all the rest: not for nothing.
    let in_repository = path.ancestors().any(|folder| folder.join(".git").exists());
    let facts = if in_repository { source::describe_folder(&path) } else { Default::default() };
    Ok(Project { path, commit: facts.commit, branch: facts.branch, tag: None })
}

async fn check_out(
    engine: &Arc<Inner>,
    git: &GitSource,
    workspace: &Path,
    stop: &StopSignal,
) -> Result<Project, Outcome> {
    let cancel = CancellationToken::new();
    let theirs = Arc::clone(engine);
    blocking(move || {
        theirs.sources();
    })
    .await?;
    let mut checkout = std::pin::pin!(engine.sources().checkout(git, workspace, &cancel));
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
    let found = done.map_err(|error| Outcome::SourceError { message: chain(&error) })?;
    Ok(Project {
        path: workspace.to_owned(),
        commit: Some(found.commit),
        branch: found.branch,
        tag: found.tag,
    })
}

async fn resolve(
    request: &JobRequest,
    project: &Project,
    file: ManifestFile,
    feed: &Feed,
) -> Result<JobPlan, Outcome> {
    if let Some(warning) = file.warning {
        feed.warning(warning).await;
    }
    let (manifest, diagnostics) = Manifest::parse(&file.text, &file.name)
        .map_err(|problems| Outcome::ManifestError { message: problems.render(false) })?;
    for diagnostic in diagnostics {
        feed.warning(diagnostic.render(false)).await;
    }
    let (plan, warnings) = manifest.plan(&Context {
        trigger: request.trigger,
        branch: project.branch.clone(),
        tag: project.tag.clone(),
        commit: project.commit.clone(),
        repository: repository(request),
        process_environment: request.process_environment.clone(),
        vars: request.vars.clone(),
    });
    for warning in warnings {
        feed.warning(warning).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_sees_the_line_of_history_that_it_is_told_of() {
        let seen = |line: Option<GitReference>| {
            let project = Project { branch: Some("main".into()), ..Project::default() };
            let Project { branch, tag, .. } = project.seen_as(line.as_ref());
            (branch, tag)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(seen(None), (text("main"), None));
        assert_eq!(seen(Some(GitReference::Branch("b".into()))), (text("b"), None));
        assert_eq!(seen(Some(GitReference::Tag("v1".into()))), (None, text("v1")));
    }
}
