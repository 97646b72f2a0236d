//! Brings a project here: one bare mirror for each repository, the wanted commit pinned and checked
//! out into a folder with a repository of its own.
//!
//! URLs, names and commits are not trusted and are checked before git sees them; nothing of a
//! repository's (hooks, config, filters) is ever run or believed. Credentials are the operator's
//! business: they come from the machine's own git and ssh, and are in no message and no workspace.
//!
//! # Layout
//! - [`Sources`]: decides on a commit and fetches it; [`Pinned`]: reads it and checks it out
//! - `address`, `wanted`: what may be handed to git
//! - `mirrors`, `mirror`, `workspace`: the folders; `upkeep`: how the mirrors stay small
//! - `tree`: the files of a commit
//! - `submodules`, `large_files`: what a manifest may ask for besides
//! - `fetch`, and for its network half `program` (git) or `library` (libgit2)
//! - `folder`, `changes`: what is known of a folder of the user's

mod address;
mod changes;
mod error;
mod fetch;
mod folder;
mod large_files;
mod library;
mod mirror;
mod mirrors;
mod pinned;
mod program;
mod submodules;
mod tree;
mod upkeep;
mod wanted;
mod workspace;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use address::{UrlPolicy, without_credentials};
pub use changes::changed_paths;
pub use error::SourceError;
pub use folder::{FolderFacts, describe_folder};
pub use pinned::{CheckedOut, Pinned};
pub use upkeep::Upkeep;

use crate::job::GitSource;
use fetch::{Fetch, Pin};
use mirror::Mirror;
use mirrors::{Mirrors, Turn};
use program::Program;
use wanted::Wanted;

/// Where projects come from. Cheap to clone; safe to use from several tasks, and from several
/// processes with the same root folder.
#[derive(Clone, Debug)]
pub struct Sources {
    policy: UrlPolicy,
    limits: Limits,
    mirrors: Arc<Mirrors>,
    program: Option<Program>,
}

/// What [`Sources`] can be told beside where it keeps its mirrors.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Which URLs are let through.
    pub policy: UrlPolicy,
    /// What talks to remotes.
    pub backend: Backend,
    /// How long a remote may take, and how much the mirrors.
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
    /// This git program; libgit2 where it is none, or older than 2.32.
    Program(PathBuf),
    /// libgit2, whatever there is.
    Library,
}

/// How long a remote may take, and how much the mirrors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without a word from it.
    pub silence: Duration,
    /// For one fetch.
    pub total: Duration,
    /// What all mirrors together may take of the disk, in bytes. Those in use may take more.
    pub disk: u64,
}

impl Default for Limits {
    /// 2 minutes of silence, 1 hour in all, 20 GiB.
    fn default() -> Self {
        Self { silence: Duration::from_secs(120), total: Duration::from_secs(3600), disk: 20 << 30 }
    }
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
        Self { policy, limits, mirrors: Arc::new(Mirrors::new(root)), program }
    }

    /// Decides on a commit and brings it here. With a commit in the source that the mirror has, the
    /// network is not used. Without a reference in the source it is the remote's default branch. A
    /// cancel ends git and all its children.
    pub async fn pin(&self, source: &GitSource, cancel: &CancellationToken) -> Result<Pinned, SourceError> {
        self.pin_wanted(Wanted::check(source, self.policy)?, cancel).await
    }

    async fn pin_wanted(&self, wanted: Wanted, cancel: &CancellationToken) -> Result<Pinned, SourceError> {
        let (turn, since) = (self.mirrors.turn(&wanted.address, cancel).await?, Instant::now());
        let turn = Arc::new(turn);
        let mut result = self.bring(&turn, &wanted, cancel).await;
        if let Err(error) = &result
            && error.may_be_the_mirror()
            && !cancel.is_cancelled()
        {
            tracing::warn!(%error, url = wanted.address.shown(), "the mirror may be broken: it is made anew");
            result = self.bring_anew(&turn, &wanted, cancel).await;
        }
        Ok(Pinned::new(self.clone(), turn.mirror(), wanted.address, result?, since.elapsed()))
    }

    /// Fetches and decides.
    async fn bring(
        &self,
        turn: &Arc<Turn>,
        wanted: &Wanted,
        cancel: &CancellationToken,
    ) -> Result<Pin, SourceError> {
        on(turn.mirror(), Mirror::prepare).await?;
        Fetch { sources: self, address: &wanted.address, turn, cancel }.pin(wanted).await
    }

    /// Brings it with a new mirror. Where that fails too, the remote is to blame, and the old one is
    /// kept: it may have cost an hour.
    async fn bring_anew(
        &self,
        turn: &Arc<Turn>,
        wanted: &Wanted,
        cancel: &CancellationToken,
    ) -> Result<Pin, SourceError> {
        turn.alone(cancel).await?;
        on(turn.mirror(), Mirror::set_aside).await?;
        let brought = self.bring(turn, wanted, cancel).await;
        let end = if brought.is_ok() { Mirror::drop_aside } else { Mirror::take_back };
        on(turn.mirror(), end).await?;
        turn.share(cancel).await?;
        brought
    }
}

/// Works on what is held by a lock on a thread that may block; the thread keeps the lock.
async fn on<H: Send + Sync + 'static, T: Send + 'static>(
    held: &Arc<H>,
    work: impl FnOnce(&H) -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let held = held.clone();
    blocking(move || work(&held)).await
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

#[cfg(test)]
mod tests;
