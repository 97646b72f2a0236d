//! The agent's own copy of what the orchestrator has not yet acknowledged: one folder per attempt
//! with a journal of its events and a file per log. It outlives the process. Nothing here
//! talks to anybody, and every call may block on the disk: call it from `spawn_blocking`.
//!
//! The only writer of a folder is its [`Writer`], but for the [`Fence`] in it; readers see no further than [`Progress`] says.
//! Nothing is synced: the spool is there for a process that dies, and the orchestrator has its own
//! record of what it acknowledged for a machine that does.

mod fence;
mod journal;
mod log;
mod writer;

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use buildr_manifest::LogName;
use buildr_proto::AttemptId;

pub use self::{
    fence::Fence,
    log::{LogReader, Piece},
    writer::{DISK_FAULT, Outbox, Writer},
};

/// The folder of all attempts' spools.
#[derive(Clone, Debug)]
pub struct Spool {
    root: PathBuf,
    log_limit: u64,
}

/// The spool of an attempt that another process had.
#[derive(Debug)]
pub struct Found {
    /// The attempt.
    pub attempt: AttemptId,
    /// Goes on with it.
    pub writer: Writer,
    /// When the attempt ends by itself, where it does.
    pub fence: Option<Fence>,
}

/// How far an attempt's spool is; what readers may rely on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many events there are.
    pub events: u64,
    /// The logs of the stages and services that began, in that order.
    pub logs: Vec<LogProgress>,
    /// Nothing will be added; the last event is the job's end.
    pub closed: bool,
}

/// How far a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// Whose.
    pub log: LogName,
    /// How many bytes can be read.
    pub written: u64,
    /// How many bytes there were to write; more than `written` only after a fault of the disk.
    pub length: u64,
    /// CRC-32C of all `length` bytes.
    pub crc: u32,
    /// Nothing will be added: its stage is over, or the job.
    pub ended: bool,
}

/// Something that the disk refused.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}")]
pub struct Error {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Error {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

impl Spool {
    /// Uses this folder, and makes it where it is missing. A log may have `log_limit` bytes.
    pub fn open(root: PathBuf, log_limit: u64) -> Result<Self, Error> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(Error::new("make the spool folder", &root))?;
        Ok(Self { root, log_limit })
    }

    /// Begins an attempt's spool. An older one of the same attempt is thrown away.
    pub fn begin(&self, attempt: AttemptId) -> Result<Writer, Error> {
        self.remove(attempt)?;
        let folder = self.folder(attempt);
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).create(&folder).map_err(Error::new("make the spool folder", &folder))?;
        Writer::begin(folder, self.log_limit)
    }

    /// The spools that another process left, oldest first. What is not readable as one is removed, with
    /// a warning.
    pub fn leftovers(&self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for (attempt, folder) in self.folders()? {
            let read = || -> Result<Found, Error> {
                let fence = Fence::read(&folder).map_err(Error::new("read the fence in", &folder))?;
                Ok(Found { attempt, writer: Writer::reopen(folder.clone(), self.log_limit)?, fence })
            };
            match read() {
                Ok(one) => found.push(one),
                Err(error) => {
                    tracing::warn!(%attempt, error = &error as &dyn std::error::Error, "a spool of an earlier process cannot be read and is dropped");
                    self.remove(attempt)?;
                }
            }
        }
        Ok(found)
    }

    /// Keeps after what silence an attempt ends by itself.
    pub fn keep_fence(&self, attempt: AttemptId, fence: &Fence) -> Result<(), Error> {
        let folder = self.folder(attempt);
        fence.write(&folder).map_err(Error::new("write the fence in", &folder))
    }

    /// Removes an attempt's spool; one that is not there is fine.
    pub fn remove(&self, attempt: AttemptId) -> Result<(), Error> {
        let folder = self.folder(attempt);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::new("remove the spool folder", &folder)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what belongs to no held attempt; tells how many. `held` is asked after the folders
    /// were listed, so that an attempt that begins meanwhile is safe.
    pub fn sweep(&self, held: impl FnOnce() -> HashSet<AttemptId>) -> Result<usize, Error> {
        let folders = self.folders()?;
        let held = held();
        let orphans: Vec<_> = folders.into_iter().filter(|(id, _)| !held.contains(id)).collect();
        for (attempt, _) in &orphans {
            self.remove(*attempt)?;
        }
        Ok(orphans.len())
    }

    fn folder(&self, attempt: AttemptId) -> PathBuf {
        self.root.join(attempt.to_string())
    }

    /// The attempts' folders; anything else in the spool's folder is left alone.
    fn folders(&self) -> Result<Vec<(AttemptId, PathBuf)>, Error> {
        let entries = fs::read_dir(&self.root).map_err(Error::new("list the spool folder", &self.root))?;
        let attempts = entries.flatten().filter_map(|entry| {
            let attempt = entry.file_name().to_str()?.parse().ok()?;
            Some((attempt, entry.path()))
        });
        let mut attempts: Vec<(AttemptId, PathBuf)> = attempts.collect();
        attempts.sort();
        Ok(attempts)
    }
}

#[cfg(test)]
mod tests;
