//! The one task that writes logs: chunks as they come, syncs in groups, all on a blocking thread.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{Appended, Chunk, Error, FLUSH, LogKey, file::LogFile, path};

/// A log that nobody has used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Beyond this many logs, those that nobody waits for are put aside at once; and beyond this many
/// with open files, two each, the files of those that have nothing to write are closed.
const MAX_OPEN: usize = 128;

/// What the writer is asked to do.
pub(super) enum Request {
    Append(Chunk, oneshot::Sender<Result<Appended, Error>>),
    Seal(LogKey, oneshot::Sender<Sealed>),
}

type Sealed = Result<(u64, Option<u32>), Error>;

/// Runs until all handles are gone; everything is durable then.
pub(super) async fn run(root: PathBuf, mut requests: mpsc::Receiver<Request>) {
    let mut logs = OpenLogs { root, open: HashMap::new() };
    let mut waiting = Vec::new();
    let mut sync_at: Option<Instant> = None;
    loop {
        // A sync that is due goes first, so that a steady stream of chunks cannot put it off.
        let done = tokio::select! {
            biased;
            () = async { sleep_until(sync_at.unwrap_or_else(Instant::now)).await }, if sync_at.is_some() => {
                sync_at = None;
                spawn_blocking(move || { logs.sync(); logs })
            }
            count = requests.recv_many(&mut waiting, super::WAITING) => {
                if count == 0 {
                    break;
                }
                let batch = std::mem::take(&mut waiting);
                sync_at.get_or_insert_with(|| Instant::now() + FLUSH);
                spawn_blocking(move || { logs.take_all(batch); logs })
            }
        };
        match done.await {
            Ok(back) => logs = back,
            Err(error) => {
                tracing::error!(%error, "the log writer failed");
                return;
            }
        }
    }
    if let Err(error) = spawn_blocking(move || logs.sync()).await {
        tracing::error!(%error, "the last sync of the logs failed");
    }
}

struct OpenLogs {
    root: PathBuf,
    open: HashMap<LogKey, LogFile>,
}

impl OpenLogs {
    fn take_all(&mut self, batch: Vec<Request>) {
        batch.into_iter().for_each(|request| self.take(request));
        if self.open.values().filter(|log| log.is_open()).count() > MAX_OPEN {
            self.sync();
            self.open.values_mut().for_each(LogFile::rest);
        }
    }

    fn take(&mut self, request: Request) {
        // Who asked may have gone; what was written stays.
        match request {
            Request::Append(chunk, answer) => drop(answer.send(self.append(&chunk))),
            Request::Seal(key, answer) => {
                let path = path(&self.root, &key);
                let sealed = self.log(&key).and_then(|log| log.seal().map_err(|error| failed(&path, error)));
                drop(answer.send(sealed));
            }
        }
    }

    fn append(&mut self, chunk: &Chunk) -> Result<Appended, Error> {
        let log = self.log(&chunk.key)?;
        let taken = log.append(chunk)?;
        Ok(Appended { durable: log.durable.subscribe(), gap: !taken })
    }

    fn log(&mut self, key: &LogKey) -> Result<&mut LogFile, Error> {
        if !self.open.contains_key(key) {
            if self.open.len() >= MAX_OPEN {
                self.open.retain(|_, log| !log.is_idle());
            }
            let path = path(&self.root, key);
            let log = LogFile::open(path.clone()).map_err(|error| failed(&path, error))?;
            self.open.insert(key.clone(), log);
        }
        self.open.get_mut(key).ok_or(Error::Stopped)
    }

    fn sync(&mut self) {
        let mut broken = Vec::new();
        for (key, log) in self.open.iter_mut().filter(|(_, log)| log.is_dirty()) {
            if let Err(error) = log.sync() {
                tracing::error!(attempt = %key.attempt, log = %key.log, %error, "syncing a log failed");
                broken.push(key.clone());
            }
        }
        // Dropping it ends the streams that wait for it: their agents begin again at what is sure.
        broken.iter().for_each(|key| drop(self.open.remove(key)));
        self.open.retain(|_, log| !log.is_idle() || log.used.elapsed() < IDLE);
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}
