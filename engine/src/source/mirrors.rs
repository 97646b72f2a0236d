//! The folder of all mirrors, and who may do what with one of them at a time, in this process and in
//! every other that has the same folder.
//!
//! A mirror has two locks beside it. `NAME.lock` is for the one who fetches into it. `NAME.users` is
//! shared by all who read it: as long as anybody does, nothing is taken out of it. Who takes
//! something out (removes it, starts over, packs anew) has both for himself.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use super::{SourceError, address::Address, mirror::Mirror};

/// How often a lock that another process holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(25);

/// The folder of all mirrors.
#[derive(Debug)]
pub(super) struct Mirrors {
    root: PathBuf,
    /// Who waits for which mirror in this process; the locks on files are between processes.
    queues: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
}

/// A mirror that nobody else fetches into.
#[derive(Debug)]
pub(super) struct Turn {
    mirror: Arc<Mirror>,
    _lock: File,
    _place: OwnedMutexGuard<()>,
}

impl Mirrors {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, queues: Mutex::default() }
    }

    /// Waits for the right to fetch into the mirror of a repository. It may not be there, or be
    /// broken: see [`Mirror::prepare`].
    pub(super) async fn turn(
        &self,
        address: &Address,
        cancel: &CancellationToken,
    ) -> Result<Turn, SourceError> {
        let path = self.root.join(address.folder_name()).with_extension("git");
        let queue = self.queue(&path);
        let place = tokio::select! {
            place = queue.lock_owned() => place,
            () = cancel.cancelled() => return Err(SourceError::Canceled),
        };
        fs::create_dir_all(&self.root).map_err(SourceError::io(&self.root))?;
        let lock = Lock::open(path.with_extension("lock"))?;
        lock.wait(FlockOperation::NonBlockingLockExclusive, cancel).await?;
        let users = Lock::open(path.with_extension("users"))?;
        users.wait(FlockOperation::NonBlockingLockShared, cancel).await?;
        users.file.set_modified(SystemTime::now()).map_err(SourceError::io(&users.path))?;
        let mirror = Arc::new(Mirror::new(path, users));
        Ok(Turn { mirror, _lock: lock.file, _place: place })
    }

    /// All mirrors that there are.
    pub(super) fn all(&self) -> Result<Vec<Kept>, SourceError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(SourceError::io(&self.root))?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(SourceError::io(&self.root))?.path();
            if path.extension().is_some_and(|kind| kind == "git") {
                let users = fs::metadata(path.with_extension("users"));
                let used = users.and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                all.push(Kept { path, used });
            }
        }
        Ok(all)
    }

    fn queue(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(path).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::default();
        queues.insert(path.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

impl Turn {
    /// The mirror. It may be kept for longer than the turn.
    pub(super) fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// Waits until nobody else reads the mirror; nobody can begin to before [`Turn::share`]. The
    /// caller must not have the mirror by another turn.
    pub(super) async fn alone(&self, cancel: &CancellationToken) -> Result<(), SourceError> {
        self.mirror.users().wait(FlockOperation::NonBlockingLockExclusive, cancel).await
    }

    /// After [`Turn::alone`]: others may read it again.
    pub(super) async fn share(&self, cancel: &CancellationToken) -> Result<(), SourceError> {
        self.mirror.users().wait(FlockOperation::NonBlockingLockShared, cancel).await
    }
}

/// A mirror that nobody may be using.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    /// When it was used last.
    pub(super) used: SystemTime,
}

/// A mirror that is in nobody else's hands, in this process or another.
#[derive(Debug)]
pub(super) struct Idle {
    _lock: Lock,
    _users: Lock,
}

impl Kept {
    /// None where anybody uses it.
    pub(super) fn take(&self) -> Result<Option<Idle>, SourceError> {
        let lock = Lock::open(self.path.with_extension("lock"))?;
        let users = Lock::open(self.path.with_extension("users"))?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        let taken = lock.try_to(exclusive)? && users.try_to(exclusive)?;
        Ok(taken.then_some(Idle { _lock: lock, _users: users }))
    }
}

/// An open file whose lock is between all who opened it.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    fn open(path: PathBuf) -> Result<Self, SourceError> {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(SourceError::io(&path))?;
        Ok(Self { path, file })
    }

    /// False where somebody else has it.
    fn try_to(&self, operation: FlockOperation) -> Result<bool, SourceError> {
        match flock(&self.file, operation).map_err(io::Error::from) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(SourceError::io(&self.path)(error)),
        }
    }

    async fn wait(&self, operation: FlockOperation, cancel: &CancellationToken) -> Result<(), SourceError> {
        while !self.try_to(operation)? {
            tokio::select! {
                () = tokio::time::sleep(LOCK_INTERVAL) => {}
                () = cancel.cancelled() => return Err(SourceError::Canceled),
            }
        }
        Ok(())
    }
}
