//! From a project that is here to what is to be done: its manifest is read, checked and planned for
//! the event. Needs no Docker and runs nothing of the project's.

use std::path::{Path, PathBuf};

use buildr_manifest::{Context, Diagnostic, Manifest, Outcome, Plan, Trigger};

use crate::{
    environment::repository,
    job::{JobRequest, SourceSpec},
    manifest_file::{self, ManifestFile},
    source,
};

/// What the manifest of a project comes to for one event.
#[derive(Debug)]
#[non_exhaustive]
pub struct Planned {
    /// What is to be done.
    pub plan: Plan,
    /// What is doubtful in the manifest.
    pub diagnostics: Vec<Diagnostic>,
    /// What else the user should know, as plain sentences; those of the plan are not among them.
    pub warnings: Vec<String>,
    /// The commit that is checked out, where there is one.
    pub commit: Option<String>,
    /// The branch that the build is of, where it is of one.
    pub branch: Option<String>,
    /// The tag that the build is of, where it is of one.
    pub tag: Option<String>,
    /// What the manifest was planned for.
    pub(crate) context: Context,
}

/// A project that is here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Project {
    pub(crate) path: PathBuf,
    pub(crate) commit: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) tag: Option<String>,
}

/// Plans a build of a folder as [`crate::Engine::prepare`] does, and leaves it at that. An error is
/// how the build would end. Blocks.
pub fn plan_folder(request: &JobRequest) -> Result<Planned, Outcome> {
    let SourceSpec::Folder(path) = &request.source else {
        return Err(Outcome::SourceError { message: "this can only plan a folder".to_owned() });
    };
    let project = local(path)?.seen_as(request);
    let mut file = manifest_file::read(&project.path, request.manifest_path.as_deref())
        .map_err(|message| Outcome::ManifestError { message })?;
    let warning = file.warning.take();
    let planned = plan(request, project, &file)?;
    Ok(Planned { warnings: warning.into_iter().collect(), ..planned })
}

/// A folder of the user's as a project. Blocks.
pub(crate) fn local(path: &Path) -> Result<Project, Outcome> {
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
    Ok(Project { path, commit: facts.commit, branch: facts.branch, tag: facts.tag })
}

impl Project {
    /// With what the request says instead of git, and without what its event has not.
    pub(crate) fn seen_as(mut self, request: &JobRequest) -> Self {
        let facts = &request.facts;
        if facts.branch.is_some() || facts.tag.is_some() {
            // One line of history: whoever names a tag means no branch, and the other way round.
            (self.branch, self.tag) = (facts.branch.clone(), facts.tag.clone());
        } else {
            // That a commit also has a tag makes a build of it no build of the tag.
            let of_tag = request.trigger == Trigger::Tag || matches!(request.source, SourceSpec::Git(_));
            self.tag = self.tag.filter(|_| of_tag);
        }
        if matches!(request.trigger, Trigger::Tag | Trigger::PullRequest) {
            self.branch = None;
        }
        self
    }
}

/// Checks a manifest and plans it for the request's event. May look through the whole project, so it
/// blocks.
pub(crate) fn plan(request: &JobRequest, project: Project, file: &ManifestFile) -> Result<Planned, Outcome> {
    let (manifest, diagnostics) = Manifest::parse(&file.text, &file.name).map_err(manifest_error)?;
    let context = Context {
        trigger: request.trigger,
        branch: project.branch.clone(),
        tag: project.tag.clone(),
        target: request.facts.target.clone(),
        cron: request.facts.cron.clone(),
        commit: project.commit.clone(),
        repository: repository(request),
        changed_paths: changed_paths(request, &project, &manifest),
        process_environment: request.process_environment.clone(),
        vars: request.vars.clone(),
    };
    let plan = manifest.plan(&context).and_then(|plan| plan.narrowed(&request.part));
    let plan = plan.map_err(manifest_error)?;
    let Project { commit, branch, tag, .. } = project;
    Ok(Planned { plan, diagnostics, warnings: Vec::new(), commit, branch, tag, context })
}

pub(crate) fn manifest_error(problems: buildr_manifest::Diagnostics) -> Outcome {
    Outcome::ManifestError { message: problems.render(false) }
}

/// The files that were changed, where somebody asks and there is something to compare with.
fn changed_paths(request: &JobRequest, project: &Project, manifest: &Manifest) -> Option<Vec<String>> {
    let is_folder = matches!(request.source, SourceSpec::Folder(_));
    if is_folder && reads_paths(manifest) { source::changed_paths(&project.path) } else { None }
}

fn reads_paths(manifest: &Manifest) -> bool {
    let by_event = manifest.on.as_ref().is_some_and(|on| {
        on.push.as_ref().is_some_and(|push| push.paths.is_some())
            || on.pull_request.as_ref().is_some_and(|request| request.paths.is_some())
    });
    let mut conditions = manifest.stages.iter().flat_map(|stage| &stage.when.any);
    by_event || conditions.any(|conditions| conditions.paths.is_some())
}
