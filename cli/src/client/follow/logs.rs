//! The logs that are being read: what came of each, what was given of it, and what is held because
//! an event may belong before it.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use buildr_engine::job::{Item, Output};
use buildr_proto::{BuildId, build::BuildEvent};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    super::{
        Client,
        watch::{self, Feed, LogKey, LogPart, Patience},
    },
    Entry,
};

/// Log bytes wait so long for an event that belongs before them. Events and logs travel on
/// different streams, a few milliseconds apart.
const HOLD: Duration = Duration::from_millis(20);

/// The most that is held of all logs together; beyond it bytes are given without waiting.
const MAX_HELD: usize = 4 << 20;

/// How logs are read.
pub(super) struct Reading {
    pub(super) client: Client,
    pub(super) build: BuildId,
    /// Give the times of the bytes too.
    pub(super) times: bool,
    pub(super) patience: Patience,
}

/// All logs that are open. Dropping it ends their readers.
pub(super) struct Logs {
    reading: Reading,
    open: BTreeMap<LogKey, OpenLog>,
    sender: mpsc::Sender<(LogKey, Feed<LogPart>)>,
    parts: mpsc::Receiver<(LogKey, Feed<LogPart>)>,
    readers: JoinSet<()>,
}

/// A log that is being read.
struct OpenLog {
    reader: AbortHandle,
    /// Everything below was given.
    shown: u64,
    held: VecDeque<Held>,
    /// Its end came; so many bytes were never delivered.
    ended: Option<u64>,
}

struct Held {
    since: Instant,
    offset: u64,
    data: Bytes,
    times: Vec<(u64, Timestamp)>,
}

impl Logs {
    pub(super) fn new(reading: Reading) -> Self {
        let (sender, parts) = mpsc::channel(8);
        Self { reading, open: BTreeMap::new(), sender, parts, readers: JoinSet::new() }
    }

    /// Begins to read a log.
    pub(super) fn open(&mut self, key: LogKey, begin: u64) {
        let (sender, mut parts) = mpsc::channel(2);
        let Reading { client, build, times, patience } = &self.reading;
        let read = watch::log(client.clone(), *build, key.clone(), begin, *times, *patience, sender);
        let (out, whose) = (self.sender.clone(), key.clone());
        let reader = self.readers.spawn(async move {
            let pass = async {
                while let Some(part) = parts.recv().await {
                    if out.send((whose.clone(), part)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(read, pass);
        });
        self.open.insert(key, OpenLog { reader, shown: begin, held: VecDeque::new(), ended: None });
    }

    /// The next message of any reader. May be dropped and called again without a loss.
    pub(super) async fn next(&mut self) -> Option<(LogKey, Feed<LogPart>)> {
        self.parts.recv().await
    }

    /// True if there is a message.
    pub(super) fn has_more(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Holds a part of a log; what comes of a log that was closed is dropped.
    pub(super) fn hold(&mut self, key: &LogKey, part: LogPart) {
        let Some(log) = self.open.get_mut(key) else { return };
        match part {
            LogPart::Piece { offset, data, times } => {
                log.held.push_back(Held { since: Instant::now(), offset, data, times });
            }
            LogPart::End { missing } => log.ended = Some(missing),
        }
    }

    /// Gives the held bytes of a log up to an offset; returns up to where it was given in all.
    pub(super) fn give(&mut self, key: &LogKey, upto: u64, out: &mut VecDeque<Entry>) -> Option<u64> {
        let log = self.open.get_mut(key)?;
        while let Some(held) = log.held.front_mut() {
            let wanted = usize::try_from(upto.saturating_sub(held.offset)).unwrap_or(usize::MAX);
            if wanted == 0 {
                break;
            }
            let (offset, times) = (held.offset, held.times.clone());
            let data = held.data.split_to(wanted.min(held.data.len()));
            held.offset += data.len() as u64;
            log.shown = held.offset;
            if held.data.is_empty() {
                log.held.pop_front();
            }
            let output = Output { log: key.log.clone(), offset, data, times };
            out.push_back(Entry::Item(Item::Output(output)));
        }
        Some(log.shown)
    }

    /// Ends the reading of a log that should have this length; returns how much of it is missing.
    pub(super) fn close(&mut self, key: &LogKey, length: u64) -> Option<u64> {
        let log = self.open.remove(key)?;
        log.reader.abort();
        Some(log.ended.unwrap_or(0).max(length.saturating_sub(log.shown)))
    }

    /// The logs of which nothing more comes after an event that ends an attempt.
    pub(super) fn ended_by(&self, event: &BuildEvent) -> Vec<LogKey> {
        let theirs = |key: &&LogKey| event.attempt.is_none() || key.attempt == event.attempt;
        self.open.keys().filter(theirs).cloned().collect()
    }

    /// True if nothing more will come of a log.
    pub(super) fn has_ended(&self, key: &LogKey) -> bool {
        self.open.get(key).is_none_or(|log| log.ended.is_some())
    }

    /// True if all below an offset was given, or will never come.
    pub(super) fn has_given(&self, key: &LogKey, offset: u64) -> bool {
        self.open.get(key).is_none_or(|log| log.shown >= offset || log.ended.is_some())
    }

    /// Waits for no log any more.
    pub(super) fn give_up(&mut self) {
        for log in self.open.values_mut() {
            log.ended.get_or_insert(0);
        }
    }

    /// The log whose bytes are held the longest, and the end of the first piece of them.
    pub(super) fn oldest(&self) -> Option<(LogKey, u64)> {
        let first = |(key, log): (_, &OpenLog)| {
            log.held.front().map(|held| (held.since, held.offset + held.data.len() as u64, key))
        };
        let (_, end, key) = self.open.iter().filter_map(first).min_by_key(|(since, ..)| *since)?;
        Some((key.clone(), end))
    }

    /// True if so much is held that no more should be taken.
    pub(super) fn are_full(&self) -> bool {
        let held = self.open.values().flat_map(|log| &log.held);
        held.map(|held| held.data.len()).sum::<usize>() >= MAX_HELD
    }

    /// When the oldest held bytes have waited long enough.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        self.open.values().filter_map(|log| log.held.front()).map(|held| held.since + HOLD).min()
    }
}
