//! Log bytes: one append-only file per stage or service of an attempt, and beside it a sparse index of times.
//!
//! Bytes are acknowledged only after an fdatasync that covers them; the syncs of all logs are made
//! together, at most [`FLUSH`] after the oldest byte. Readers never see what is not durable. The
//! length of a file is its only state, so there is nothing to repair after a crash. Whose attempt
//! it is, and whether it is current, is checked by the caller.

mod file;
mod index;
mod reader;
mod writer;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use buildr_manifest::LogName;
use buildr_proto::AttemptId;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

pub use self::reader::LogReader;
use self::writer::Request;
use crate::core::input::LogVerdict;

/// How long a byte waits at most until it is made durable.
pub const FLUSH: Duration = Duration::from_millis(20);

/// The largest log that is taken; agents end a stage long before.
pub const MAX_LOG: u64 = 8 << 30;

/// How many chunks may wait for the writer.
const WAITING: usize = 64;

/// The log of one stage or service of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogKey {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whose.
    pub log: LogName,
}

/// A piece of a log.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Whose it is.
    pub key: LogKey,
    /// Where it begins.
    pub offset: u64,
    /// The bytes; none to ask how far the log is.
    pub data: Bytes,
    /// When which byte was written, ascending.
    pub times: Vec<(u64, Timestamp)>,
}

/// What a log must be, as its agent says.
#[derive(Clone, Debug)]
pub struct LogClaim {
    /// Whose.
    pub log: LogName,
    /// Its length.
    pub length: u64,
    /// CRC-32C of all of it.
    pub crc32c: u32,
    /// How many bytes at its end the agent could not deliver.
    pub missing: u64,
}

/// What became of a chunk.
#[derive(Debug)]
pub struct Appended {
    /// How much of the log is durable; changes as it grows, and ends where the log is put aside.
    pub durable: watch::Receiver<u64>,
    /// The chunk began above the end of the log and was not taken.
    pub gap: bool,
}

/// Why a log cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be written or read.
    #[error("the log file {} failed", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The log is longer than any may be.
    #[error("the log of {} is longer than {MAX_LOG} bytes", .0.owner())]
    TooLong(LogName),
    /// The final report was given.
    #[error("the log of {} is complete and takes no more", .0.owner())]
    Sealed(LogName),
    /// The writer has ended.
    #[error("the log writer has stopped")]
    Stopped,
}

/// All logs.
pub struct Logs {
    root: PathBuf,
    requests: mpsc::Sender<Request>,
}

impl Logs {
    /// Starts the writer of the logs in a folder. The task ends when the handle is dropped, after
    /// it has made everything durable.
    pub fn start(root: PathBuf) -> (Self, JoinHandle<()>) {
        let (requests, receiver) = mpsc::channel(WAITING);
        let task = tokio::spawn(writer::run(root.clone(), receiver));
        (Self { root, requests }, task)
    }

    /// Takes a chunk. What the log has already is dropped from it.
    pub async fn append(&self, chunk: Chunk) -> Result<Appended, Error> {
        let (answer, taken) = oneshot::channel();
        self.requests.send(Request::Append(chunk, answer)).await.map_err(|_| Error::Stopped)?;
        taken.await.map_err(|_| Error::Stopped)?
    }

    /// Compares a log with what its agent says it must be. It takes no chunk after that.
    pub async fn verify(&self, attempt: AttemptId, claim: LogClaim) -> Result<LogVerdict, Error> {
        let key = LogKey { attempt, log: claim.log };
        let (answer, sealed) = oneshot::channel();
        self.requests.send(Request::Seal(key.clone(), answer)).await.map_err(|_| Error::Stopped)?;
        let (stored, crc) = sealed.await.map_err(|_| Error::Stopped)??;
        let whole = stored == claim.length;
        let crc = match crc {
            Some(crc) => crc,
            None if whole => reader::checksum(path(&self.root, &key)).await?,
            None => 0,
        };
        let damage = if stored > claim.length {
            Some(format!("{stored} bytes came, and the agent speaks of {}", claim.length))
        } else if whole && crc != claim.crc32c {
            Some("its checksum is not the agent's".to_owned())
        } else {
            None
        };
        let missing = (claim.length.saturating_sub(stored)).max(if whole { claim.missing } else { 0 });
        Ok(LogVerdict { log: key.log, stored, missing, damage })
    }

    /// A reader of a log whose attempt is over: all of it is there.
    pub fn reader(&self, key: &LogKey) -> LogReader {
        LogReader::new(path(&self.root, key))
    }

    /// How much of a log is stored, whether its attempt is over or not.
    pub async fn length(&self, key: &LogKey) -> u64 {
        tokio::fs::metadata(path(&self.root, key)).await.map_or(0, |metadata| metadata.len())
    }
}

/// A log's file. Its name is a user's text: of it only harmless characters are used, and
/// a digest tells apart what is left.
fn path(root: &Path, key: &LogKey) -> PathBuf {
    let attempt = key.attempt.to_string();
    let name = key.log.to_string();
    let readable: String =
        name.chars().take(40).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let digest = Sha256::digest(name.as_bytes());
    let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    // The first characters of a ULID are time: a folder has the attempts of about nine hours.
    root.join(&attempt[..5]).join(&attempt).join(format!("{readable}.{digest}.log"))
}

#[cfg(test)]
mod tests;
