//! The logs that are being read: what came of each, what was given of it, and what is held because
//! an event may belong before it.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    ops::Bound,
    task::{Context, Poll},
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

/// The most that is held of one log. Beyond it no more of this log is taken, whatever the others do.
const MAX_HELD: usize = 1 << 20;

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
    /// The log that was served last: the next one has its turn, so that none starves another.
    served: Option<LogKey>,
    readers: JoinSet<()>,
}

/// A log that is being read.
struct OpenLog {
    reader: AbortHandle,
    parts: mpsc::Receiver<Feed<LogPart>>,
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
        Self { reading, open: BTreeMap::new(), served: None, readers: JoinSet::new() }
    }

    /// Begins to read a log.
    pub(super) fn open(&mut self, key: LogKey, begin: u64) {
        let (sender, parts) = mpsc::channel(2);
        let Reading { client, build, times, patience } = &self.reading;
        let read = watch::log(client.clone(), *build, key.clone(), begin, *times, *patience, sender);
        let reader = self.readers.spawn(read);
        let log = OpenLog { reader, parts, shown: begin, held: VecDeque::new(), ended: None };
        self.open.insert(key, log);
    }

    /// The next message of any reader, each in its turn; a log of which enough is held has none. May
    /// be dropped and called again without a loss. Never comes back where there is nothing to wait for.
    pub(super) async fn next(&mut self) -> (LogKey, Feed<LogPart>) {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<(LogKey, Feed<LogPart>)> {
        let after = self.served.take();
        let keys: Vec<LogKey> = match &after {
            Some(key) => {
                let later = self.open.range((Bound::Excluded(key), Bound::Unbounded));
                later.chain(self.open.range(..=key)).map(|(key, _)| key.clone()).collect()
            }
            None => self.open.keys().cloned().collect(),
        };
        for key in keys {
            let log = self.open.get_mut(&key).filter(|log| !log.is_full());
            if let Some(Poll::Ready(Some(feed))) = log.map(|log| log.parts.poll_recv(context)) {
                self.served = Some(key.clone());
                return Poll::Ready((key, feed));
            }
        }
        self.served = after;
        Poll::Pending
    }

    /// True if there is a message that would be taken.
    pub(super) fn has_more(&self) -> bool {
        self.open.values().any(|log| !log.parts.is_empty() && !log.is_full())
    }

    /// Holds a part of a log; what comes of a log that was closed is dropped. Where so much is held
    /// now that no more is taken, tells the end of the first piece.
    pub(super) fn hold(&mut self, key: &LogKey, part: LogPart) -> Option<u64> {
        let log = self.open.get_mut(key)?;
        match part {
            LogPart::Piece { offset, data, times } => {
                log.held.push_back(Held { since: Instant::now(), offset, data, times });
            }
            LogPart::End { missing } => log.ended = Some(missing),
        }
        let first = log.held.front().filter(|_| log.is_full())?;
        Some(first.offset + first.data.len() as u64)
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

    /// What is held waits as long as if it had come now.
    pub(super) fn hold_anew(&mut self) {
        let now = Instant::now();
        self.open.values_mut().flat_map(|log| &mut log.held).for_each(|held| held.since = now);
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

    /// When the oldest held bytes have waited long enough.
    pub(super) fn hold_ends(&self) -> Option<Instant> {
        self.open.values().filter_map(|log| log.held.front()).map(|held| held.since + HOLD).min()
    }
}

impl OpenLog {
    fn is_full(&self) -> bool {
        self.held.iter().map(|held| held.data.len()).sum::<usize>() >= MAX_HELD
    }
}
