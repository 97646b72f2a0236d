//! Brings a project here: one bare mirror for each repository, the wanted commit pinned and checked
//! out into a folder with a repository of its own.
//!
//! URLs, names and commits are not trusted and are checked before git sees them; nothing of a
//! repository's (hooks, config, filters) is ever run or believed. Credentials are the operator's
//! business: they come from the machine's own git and ssh, and are in no message and no workspace.
//!
//! # Layout
//! - [`Sources`]: mirrors, and checkouts from them
//! - `address`, `wanted`: what may be handed to git
//! - `mirror`, `workspace`: the two kinds of folders
//! - `program`, `library`: the network half, by the git program or by libgit2
//! - `folder`, `changes`: what is known of a folder of the user's

mod address;
mod changes;
mod error;
mod folder;
mod library;
mod mirror;
mod program;
mod wanted;
mod workspace;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use git2::Oid;
use tokio_util::sync::CancellationToken;

pub use address::{UrlPolicy, without_credentials};
pub use changes::changed_paths;
pub use error::SourceError;
pub use folder::{FolderFacts, describe_folder};

use crate::job::GitSource;
use address::Address;
use library::Library;
use mirror::{Mirror, Mirrors};
use program::Program;
use wanted::{Line, Wanted};

/// How many names that look like a missing one are told.
const NEAR_NAMES: usize = 3;

/// Where projects come from. Cheap to share behind an `Arc`; safe to use from several tasks, and
/// from several processes with the same root folder.
#[derive(Debug)]
pub struct Sources {
    policy: UrlPolicy,
    limits: Limits,
    mirrors: Mirrors,
    program: Option<Program>,
}

/// What [`Sources`] can be told beside where it keeps its mirrors.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which URLs are let through.
    pub policy: UrlPolicy,
    /// What talks to remotes.
    pub backend: Backend,
    /// How long a remote may take.
    pub limits: Limits,
    /// What the git program gets in its environment beside that of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// What talks to remotes and checks files out.
#[derive(Clone, Debug, Default)]
pub enum Backend {
    /// The `git` of the search path where there is one, libgit2 otherwise.
    #[default]
    Detect,
    /// This git program; libgit2 where it is none, or older than 2.31.
    Program(PathBuf),
    /// libgit2, whatever there is.
    Library,
}

/// How long a remote may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a word from it.
    pub silence: Duration,
    /// For one fetch.
    pub total: Duration,
}

impl Default for Limits {
    /// 2 minutes of silence, 1 hour in all.
    fn default() -> Self {
        Self { silence: Duration::from_secs(120), total: Duration::from_secs(3600) }
    }
}

/// A project that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkout {
    /// The full commit id.
    pub commit: String,
    /// The branch that HEAD is on; none where it is detached.
    pub branch: Option<String>,
    /// The tag that was asked for.
    pub tag: Option<String>,
}

/// A commit that was decided on, and the line of history that it was found by.
#[derive(Clone, Debug)]
struct Pin {
    commit: Oid,
    line: Option<Line>,
}

/// What became of a fetch that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetched {
    Done,
    /// The remote has no such ref or commit.
    NotThere,
}

impl Sources {
    /// Keeps mirrors below `root`, which is made when it is needed. Looks for a git program once,
    /// here.
    pub fn new(root: PathBuf, policy: UrlPolicy) -> Self {
        Self::with_settings(root, Settings { policy, ..Settings::default() })
    }

    /// As [`Sources::new`], with more to say.
    pub fn with_settings(root: PathBuf, settings: Settings) -> Self {
        let Settings { policy, backend, limits, environment } = settings;
        let path = match backend {
            Backend::Detect => program::find("git", std::env::var_os("PATH").as_deref()),
            Backend::Program(path) => Some(path),
            Backend::Library => None,
        };
        let program = path.and_then(|path| Program::probe(path, environment, limits));
        Self { policy, limits, mirrors: Mirrors::new(root), program }
    }

    /// Brings a commit here and checks it out into `dest`, which must be empty or not there.
    ///
    /// With a commit in the source that the mirror has, the network is not used. HEAD is on the
    /// branch for branches (the remote's default branch where no reference is named), and detached
    /// for tags, and for commits that are on no branch known here. `dest` stands for itself: it can
    /// be mounted anywhere. After an error it is empty again. A cancel ends git and all its children.
    pub async fn checkout(
        &self,
        source: &GitSource,
        dest: &Path,
        cancel: &CancellationToken,
    ) -> Result<Checkout, SourceError> {
        let wanted = Wanted::check(source, self.policy)?;
        let folder = dest.to_owned();
        blocking(move || workspace::vacant(&folder)).await?;
        let mut result = self.attempt(&wanted, dest, cancel).await;
        if let Err(error) = &result
            && error.may_be_the_mirror()
            && !cancel.is_cancelled()
        {
            tracing::warn!(%error, url = wanted.address.shown(), "the mirror may be broken: it is made anew");
            result = self.start_over(&wanted, dest, cancel).await;
        }
        if result.is_err() {
            let folder = dest.to_owned();
            if let Err(error) = blocking(move || workspace::clear(&folder)).await {
                tracing::warn!(%error, "a workspace that failed could not be emptied");
            }
        }
        result
    }

    /// Tries with a new mirror. Where that fails too, the remote is to blame, and the old one is
    /// kept: it may have cost an hour.
    async fn start_over(
        &self,
        wanted: &Wanted,
        dest: &Path,
        cancel: &CancellationToken,
    ) -> Result<Checkout, SourceError> {
        let mirror = Arc::new(self.mirrors.lock(&wanted.address, cancel).await?);
        let folder = dest.to_owned();
        on(&mirror, move |mirror| mirror.set_aside().and_then(|()| workspace::clear(&folder))).await?;
        let brought = self.bring(&mirror, wanted, dest, cancel).await;
        let end = if brought.is_ok() { Mirror::drop_aside } else { Mirror::take_back };
        on(&mirror, end).await?;
        drop(mirror);
        self.fill(brought?, wanted, dest, cancel).await
    }

    async fn attempt(
        &self,
        wanted: &Wanted,
        dest: &Path,
        cancel: &CancellationToken,
    ) -> Result<Checkout, SourceError> {
        let mirror = Arc::new(self.mirrors.lock(&wanted.address, cancel).await?);
        let pin = self.bring(&mirror, wanted, dest, cancel).await?;
        // From here on the workspace stands for itself, and the next job may have the mirror.
        drop(mirror);
        self.fill(pin, wanted, dest, cancel).await
    }

    /// Fetches and pins, and makes the repository of the workspace.
    async fn bring(
        &self,
        mirror: &Arc<Mirror>,
        wanted: &Wanted,
        dest: &Path,
        cancel: &CancellationToken,
    ) -> Result<Pin, SourceError> {
        on(mirror, |mirror| mirror.prepare()).await?;
        let fetch = Fetch { sources: self, address: &wanted.address, mirror: mirror.clone(), cancel };
        let pin = fetch.pin(wanted).await?;
        let (folder, address, token, its) =
            (dest.to_owned(), wanted.address.clone(), cancel.clone(), pin.clone());
        on(mirror, move |mirror| workspace::make_repository(&folder, mirror, &address, &its, &token)).await?;
        Ok(pin)
    }

    /// Checks the files out.
    async fn fill(
        &self,
        pin: Pin,
        wanted: &Wanted,
        dest: &Path,
        cancel: &CancellationToken,
    ) -> Result<Checkout, SourceError> {
        match &self.program {
            Some(program) => program.fill(dest, &wanted.address, cancel).await?,
            None => {
                let (folder, token) = (dest.to_owned(), cancel.clone());
                blocking(move || workspace::fill(&folder, pin.commit, &token)).await?;
            }
        }
        let commit = pin.commit.to_string();
        Ok(match pin.line {
            Some(Line::Branch(name)) => Checkout { commit, branch: Some(name), tag: None },
            Some(Line::Tag(name)) => Checkout { commit, branch: None, tag: Some(name) },
            None => Checkout { commit, branch: None, tag: None },
        })
    }
}

/// Getting what is wanted into a locked mirror.
struct Fetch<'a> {
    sources: &'a Sources,
    address: &'a Address,
    mirror: Arc<Mirror>,
    cancel: &'a CancellationToken,
}

impl Fetch<'_> {
    /// Decides on the commit; it is in the mirror afterwards.
    async fn pin(&self, wanted: &Wanted) -> Result<Pin, SourceError> {
        match (wanted.commit, &wanted.line) {
            (None, Some(line)) => self.pin_line(line.clone()).await,
            (None, None) => {
                let branch = self.default_branch().await?;
                self.pin_line(branch).await
            }
            (Some(commit), line) => self.pin_commit(commit, line.clone()).await,
        }
    }

    async fn pin_line(&self, line: Line) -> Result<Pin, SourceError> {
        if self.fetch_line(&line).await? == Fetched::NotThere {
            return Err(self.no_reference(&line).await?);
        }
        let wanted = line.clone();
        let Some(commit) = on(&self.mirror, move |mirror| mirror.tip(&wanted)).await? else {
            let detail = format!("{} is not at a commit", line.full_name());
            return Err(SourceError::Git { url: self.url(), detail });
        };
        Ok(Pin { commit, line: Some(line) })
    }

    async fn pin_commit(&self, commit: Oid, line: Option<Line>) -> Result<Pin, SourceError> {
        let has = || on(&self.mirror, move |mirror| mirror.has(commit));
        let mut line = line;
        if !has().await? {
            let found_by = match line.clone() {
                Some(line) => line,
                None => self.default_branch().await?,
            };
            self.fetch_line(&found_by).await?;
        }
        if !has().await? {
            let refspec = format!("+{commit}:refs/buildr/{commit}");
            let fetched = self.fetch(&refspec).await?;
            if fetched == Fetched::NotThere || !has().await? {
                return Err(SourceError::NoCommit { url: self.url(), commit: commit.to_string() });
            }
        }
        if line.is_none() {
            line = on(&self.mirror, move |mirror| {
                let branch = mirror.default_branch()?;
                Ok(match branch {
                    Some(branch) if mirror.is_on(commit, &branch)? => Some(branch),
                    _ => None,
                })
            })
            .await?;
        }
        Ok(Pin { commit, line })
    }

    async fn default_branch(&self) -> Result<Line, SourceError> {
        let found = match &self.sources.program {
            Some(program) => program.default_branch(self.address, self.cancel).await?,
            None => self.library(|library, _| library.default_branch()).await?,
        };
        let (name, _) = found.ok_or_else(|| SourceError::Empty { url: self.url() })?;
        let branch = Line::Branch(name);
        // The remote's word is no more trusted than the submitter's.
        branch.check()?;
        let head = branch.clone();
        on(&self.mirror, move |mirror| mirror.set_default_branch(&head)).await?;
        Ok(branch)
    }

    async fn fetch_line(&self, line: &Line) -> Result<Fetched, SourceError> {
        let name = line.full_name();
        self.fetch(&format!("+{name}:{name}")).await
    }

    async fn fetch(&self, refspec: &str) -> Result<Fetched, SourceError> {
        if let Some(program) = &self.sources.program {
            return program.fetch(self.mirror.path(), self.address, refspec, self.cancel).await;
        }
        let refspec = refspec.to_owned();
        self.library(move |library, mirror| library.fetch(mirror.path(), &refspec)).await
    }

    /// The error for a branch or tag that is not there, with the names that look like it.
    async fn no_reference(&self, line: &Line) -> Result<SourceError, SourceError> {
        let names = match &self.sources.program {
            Some(program) => program.names(self.address, line, self.cancel).await?,
            None => {
                let like = line.clone();
                self.library(move |library, _| library.names(&like)).await?
            }
        };
        let (url, name, kind) = (self.url(), line.name().to_owned(), line.kind());
        Ok(SourceError::NoReference { url, kind, near: nearest(&name, names), name })
    }

    /// Uses libgit2 on a thread that may block. A cancel is answered at once; the thread ends by
    /// itself and keeps the mirror's lock until then.
    async fn library<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library, &Mirror) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let library = Library::new(self.sources.limits, self.address.clone(), self.cancel.clone());
        tokio::select! {
            result = on(&self.mirror, move |mirror| work(&library, mirror)) => result,
            () = self.cancel.cancelled() => Err(SourceError::Canceled),
        }
    }

    fn url(&self) -> String {
        self.address.shown().to_owned()
    }
}

/// Works on a locked mirror on a thread that may block.
async fn on<T: Send + 'static>(
    mirror: &Arc<Mirror>,
    work: impl FnOnce(&Mirror) -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let mirror = mirror.clone();
    blocking(move || work(&mirror)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(SourceError::Canceled),
        },
    }
}

/// The names that look like this one, the nearest first.
fn nearest(name: &str, names: Vec<String>) -> Vec<String> {
    let mut near: Vec<_> = names
        .into_iter()
        .map(|other| (strsim::jaro_winkler(name, &other), other))
        .filter(|(likeness, _)| *likeness > 0.7)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    near.into_iter().take(NEAR_NAMES).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests;
