//! The bare mirrors: one folder for each repository, locked while it is used, remade where it is
//! broken. A mirror holds what was ever fetched; nothing in it comes from a build.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};
use rustix::fs::{FlockOperation, flock};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{SourceError, address::Address, wanted::Line};

/// How often a lock that another process holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(25);

/// The folder of all mirrors.
#[derive(Debug)]
pub(super) struct Mirrors {
    root: PathBuf,
    /// Who waits for which mirror in this process; the lock on the file is between processes.
    turns: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
}

/// A mirror that nobody else uses now.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    _file: File,
    _turn: OwnedMutexGuard<()>,
}

impl Mirrors {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, turns: Mutex::default() }
    }

    /// Waits for the mirror of a repository. It may not be there, or be broken: see
    /// [`Mirror::prepare`].
    pub(super) async fn lock(
        &self,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<Mirror, SourceError> {
        let path = self.root.join(address.folder_name()).with_extension("git");
        let turn = self.turn(&path);
        let turn = tokio::select! {
            turn = turn.lock_owned() => turn,
            () = cancel.cancelled() => return Err(SourceError::Canceled),
        };
        fs::create_dir_all(&self.root).map_err(SourceError::io(&self.root))?;
        let lock = path.with_extension("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&lock);
        let file = file.map_err(SourceError::io(&lock))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
                Ok(()) => return Ok(Mirror { path, _file: file, _turn: turn }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(SourceError::io(&lock)(error)),
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_INTERVAL) => {}
                () = cancel.cancelled() => return Err(SourceError::Canceled),
            }
        }
    }

    fn turn(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(path).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(path.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

impl Mirror {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it usable: made where it is not there, remade where it is no repository, rid of what a
    /// killed git has left.
    pub(super) fn prepare(&self) -> Result<(), SourceError> {
        if Repository::open_bare(&self.path).is_ok_and(|repository| repository.is_bare()) {
            sweep(&self.path).map_err(SourceError::io(&self.path))?;
            remove_all(&self.aside())?;
            return Ok(());
        }
        remove_all(&self.path)?;
        let unfinished = self.path.with_extension("new");
        remove_all(&unfinished)?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).mkpath(true).no_reinit(true);
        Repository::init_opts(&unfinished, &options).map_err(local(&unfinished))?;
        fs::rename(&unfinished, &self.path).map_err(SourceError::io(&self.path))
    }

    /// Puts it out of the way, so that [`Mirror::prepare`] makes a new one.
    pub(super) fn set_aside(&self) -> Result<(), SourceError> {
        remove_all(&self.aside())?;
        match fs::rename(&self.path, self.aside()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SourceError::io(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// After [`Mirror::set_aside`]: the new one is good.
    pub(super) fn drop_aside(&self) -> Result<(), SourceError> {
        remove_all(&self.aside())
    }

    /// After [`Mirror::set_aside`]: the new one was no better, so the old one was not the reason.
    pub(super) fn take_back(&self) -> Result<(), SourceError> {
        if !self.aside().exists() {
            return Ok(());
        }
        remove_all(&self.path)?;
        fs::rename(self.aside(), &self.path).map_err(SourceError::io(&self.path))
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("old")
    }

    /// The commit that a branch or a tag was at when it was fetched last.
    pub(super) fn tip(&self, line: &Line) -> Result<Option<Oid>, SourceError> {
        let repository = self.open()?;
        let Ok(reference) = repository.find_reference(&line.full_name()) else { return Ok(None) };
        Ok(reference.peel_to_commit().ok().map(|commit| commit.id()))
    }

    /// True where the commit is here with its first tree.
    pub(super) fn has(&self, commit: Oid) -> Result<bool, SourceError> {
        Ok(self.open()?.find_commit(commit).is_ok_and(|commit| commit.tree().is_ok()))
    }

    /// True where a commit is in the history of a branch.
    pub(super) fn is_on(&self, commit: Oid, branch: &Line) -> Result<bool, SourceError> {
        let Some(tip) = self.tip(branch)? else { return Ok(false) };
        Ok(tip == commit || self.open()?.graph_descendant_of(tip, commit).unwrap_or(false))
    }

    /// The remote's default branch, as it was last heard of.
    pub(super) fn default_branch(&self) -> Result<Option<Line>, SourceError> {
        let repository = self.open()?;
        let Ok(head) = repository.head() else { return Ok(None) };
        Ok(head.shorthand().ok().map(|name| Line::Branch(name.to_owned())))
    }

    /// Remembers the remote's default branch.
    pub(super) fn set_default_branch(&self, branch: &Line) -> Result<(), SourceError> {
        self.open()?.set_head(&branch.full_name()).map_err(local(&self.path))
    }

    /// All tags, as full name and object, sorted by name.
    pub(super) fn tags(&self) -> Result<Vec<(String, Oid)>, SourceError> {
        let repository = self.open()?;
        let references = repository.references_glob("refs/tags/*").map_err(local(&self.path))?;
        let mut tags: Vec<_> = references
            .flatten()
            .filter_map(|tag| Some((tag.name().ok()?.to_owned(), tag.target()?)))
            .filter(|(_, target)| repository.find_object(*target, Some(ObjectType::Any)).is_ok())
            .collect();
        tags.sort();
        Ok(tags)
    }

    fn open(&self) -> Result<Repository, SourceError> {
        Repository::open_bare(&self.path).map_err(local(&self.path))
    }
}

/// For `map_err` on libgit2's work in a folder of ours.
pub(super) fn local(path: &Path) -> impl FnOnce(git2::Error) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::io(path)(io::Error::other(error))
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove_all(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(SourceError::io(path))
        }
        result => result.map_err(SourceError::io(path)),
    }
}

/// Removes locks and unfinished packs. The mirror is locked, so nobody is using them.
fn sweep(mirror: &Path) -> io::Result<()> {
    for entry in fs::read_dir(mirror.join("objects/pack"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("tmp_") {
            fs::remove_file(entry.path())?;
        }
    }
    sweep_locks(mirror, false)?;
    sweep_locks(&mirror.join("refs"), true)
}

fn sweep_locks(folder: &Path, below: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && below {
            sweep_locks(&entry.path(), true)?;
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
