//! A build as one ordered stream: its events and its logs, merged so that a reader sees things as
//! they happened. A late reader sees everything from byte 0 by the same path as a live one, and a
//! broken connection costs neither a byte nor an event.
//!
//! An event says up to where its stage's log must have been shown before it
//! ([`EventKind::position`]): the log is read up to there, then the event is given. The other way
//! round, bytes that come ahead of an event that stands before them are held for a moment; for a
//! build that has ended no guess is needed.
//!
//! # Layout
//! - `logs`: the logs that are being read, and what is held of them
//! - `wanted`: which stages a reader wants, and when it has had enough

mod logs;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use buildr_engine::job::Item;
use buildr_manifest::{EventKind, LogName, Outcome, ServiceName, StageState};
use buildr_proto::build::{Build, BuildEvent, BuildEventKind, BuildState};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

pub use super::watch::Patience;
use super::{
    Client,
    watch::{self, Feed, LogKey, LogPart},
};
use crate::Error;
use logs::{Logs, Reading};
pub use wanted::Stages;
use wanted::{Remaining, Selection};

/// How long the logs of an attempt that ended without a result are waited for.
const DRAIN: Duration = Duration::from_secs(10);

/// One thing to show.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What the engine told: an event, or output.
    Item(Item),
    /// What the orchestrator told of the build. Never a `BuildEventKind::Job`.
    Farm(BuildEvent),
    /// So many bytes of the end of a log were never delivered.
    LogIncomplete {
        /// Whose.
        log: LogName,
        /// How many.
        missing: u64,
    },
    /// The connection broke; the stream goes on when it is back.
    ConnectionLost {
        /// Why.
        why: String,
    },
    /// The connection is back, and nothing was lost.
    ConnectionBack,
}

/// What of a build is wanted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Of which stages.
    pub stages: Stages,
    /// And the output of which services.
    pub services: BTreeSet<ServiceName>,
    /// Where to begin in some logs; the others from byte 0.
    pub begin: BTreeMap<LogName, u64>,
    /// Give the times of the bytes too.
    pub times: bool,
    /// Go on to the build's end, or stop where it stood at the beginning.
    pub until: Until,
    /// How to deal with a broken connection.
    pub patience: Patience,
}

/// Where the stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// At the build's end.
    #[default]
    End,
    /// Where the build stood when the stream began.
    Now,
}

/// The stream. Dropping it ends all its readers.
pub struct Follow {
    selection: Selection,
    /// The build had ended at the beginning: all events are there, so bytes need not be shown
    /// before an event has asked for them.
    settled: bool,
    /// With [`Until::Now`] only.
    remaining: Option<Remaining>,
    events: mpsc::Receiver<Feed<BuildEvent>>,
    _event_reader: JoinSet<()>,
    logs: Logs,
    /// Events that wait for their logs, in order.
    due: VecDeque<BuildEvent>,
    /// Since when the first of `due` has waited for logs to end.
    draining_since: Option<Instant>,
    ready: VecDeque<Entry>,
    /// The readers without a connection; none is that of the events.
    broken: BTreeSet<Option<LogKey>>,
    outcome: Option<Outcome>,
    over: bool,
}

/// What the first due event waits for.
enum Wait {
    /// Nothing.
    Ready,
    /// More of a log.
    Log,
    /// The end of logs, at most until then.
    Drain(Instant),
}

impl Follow {
    /// Begins to follow a build, which is as `build` says.
    pub fn new(client: Client, build: &Build, options: Options) -> Self {
        let Options { stages, services, begin, times, until, patience } = options;
        let (event_sender, events) = mpsc::channel(64);
        let mut event_reader = JoinSet::new();
        event_reader.spawn(watch::events(client.clone(), build.number, patience, event_sender));
        let settled = matches!(build.state, BuildState::Finished(_));
        let remaining = (until == Until::Now && !settled).then(|| Remaining::of(build, &stages));
        Self {
            over: remaining.as_ref().is_some_and(Remaining::is_empty),
            selection: Selection::new(stages, services, begin),
            settled,
            remaining,
            events,
            _event_reader: event_reader,
            logs: Logs::new(Reading { client, build: build.number, times, patience }),
            due: VecDeque::new(),
            draining_since: None,
            ready: VecDeque::new(),
            broken: BTreeSet::new(),
            outcome: None,
        }
    }

    /// The next thing, or none at the end. May be dropped and called again without a loss.
    pub async fn next(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            if self.over {
                return Ok(None);
            }
            let wait = self.first_due();
            if matches!(wait, Some(Wait::Ready)) {
                self.release();
            } else if self.ready.is_empty() {
                self.listen(wait).await?;
            }
        }
    }

    /// True if [`Follow::next`] would give something without waiting for the network.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty() || self.logs.has_more() || !self.events.is_empty()
    }

    /// How the build ended, once its last event was given.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Waits for one message or for the time at which held bytes are to be given.
    async fn listen(&mut self, wait: Option<Wait>) -> Result<(), Error> {
        let hold_ends = if self.settled { None } else { self.logs.hold_ends() };
        let drain_ends = match wait {
            Some(Wait::Drain(until)) => Some(until),
            _ => None,
        };
        let room = wait.is_some() || !self.logs.are_full();
        tokio::select! {
            biased;
            event = self.events.recv(), if wait.is_none() => match event {
                Some(feed) => self.take_event(feed)?,
                None => self.over = true,
            },
            Some((key, feed)) = self.logs.next(), if room => self.take_log(key, feed)?,
            () = tokio::time::sleep_until(hold_ends.unwrap_or_else(Instant::now)), if hold_ends.is_some() => {
                self.give_oldest();
            }
            () = tokio::time::sleep_until(drain_ends.unwrap_or_else(Instant::now)), if drain_ends.is_some() => {
                self.logs.give_up();
            }
        }
        Ok(())
    }

    fn take_event(&mut self, feed: Feed<BuildEvent>) -> Result<(), Error> {
        match feed {
            Feed::Next(event) => self.due.extend(self.selection.admit(event)),
            Feed::Lost(why) => self.lost(None, why),
            Feed::Back => self.back(&None),
            Feed::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn take_log(&mut self, key: LogKey, feed: Feed<LogPart>) -> Result<(), Error> {
        match feed {
            Feed::Next(part) => {
                self.logs.hold(&key, part);
                if self.logs.are_full() && (!self.settled || !self.due.is_empty()) {
                    self.give_oldest();
                }
            }
            Feed::Lost(why) => self.lost(Some(key), why),
            Feed::Back => self.back(&Some(key)),
            Feed::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn lost(&mut self, who: Option<LogKey>, why: String) {
        if self.broken.is_empty() {
            self.ready.push_back(Entry::ConnectionLost { why });
        }
        self.broken.insert(who);
    }

    fn back(&mut self, who: &Option<LogKey>) {
        if self.broken.remove(who) && self.broken.is_empty() {
            self.ready.push_back(Entry::ConnectionBack);
        }
    }

    /// Gives what the first due event waits for, and says whether that is enough.
    fn first_due(&mut self) -> Option<Wait> {
        let event = self.due.front()?;
        if ends_attempt(event) {
            let keys = self.logs.ended_by(event);
            keys.iter().for_each(|key| self.give(key, u64::MAX));
            if keys.iter().all(|key| self.logs.has_ended(key)) {
                return Some(Wait::Ready);
            }
            let since = *self.draining_since.get_or_insert_with(Instant::now);
            return Some(Wait::Drain(since + DRAIN));
        }
        let Some((key, offset)) = place(event) else { return Some(Wait::Ready) };
        self.give(&key, offset);
        Some(if self.logs.has_given(&key, offset) { Wait::Ready } else { Wait::Log })
    }

    /// Gives the first due event and does what it brings about.
    fn release(&mut self) {
        let Some(event) = self.due.pop_front() else { return };
        self.draining_since = None;
        if ends_attempt(&event) {
            self.logs.ended_by(&event).iter().for_each(|key| self.close(key, 0));
        }
        if let Some(EventKind::Planned { services, .. }) = job_event(&event) {
            let wanted = services.iter().filter(|name| self.selection.wants_service(name));
            let keys: Vec<_> = wanted.map(|name| log_key(&event, name.clone())).collect();
            keys.into_iter().for_each(|key| self.open(key));
        }
        if let Some((key, length)) = place(&event) {
            match job_event(&event) {
                Some(EventKind::StageStarted { .. }) => self.open(key),
                Some(EventKind::StageFinished { .. }) => {
                    self.close(&key, length);
                    self.note(|remaining| remaining.ended(&key.log));
                }
                _ => {}
            }
        }
        self.ready.push_back(match event {
            BuildEvent { kind: BuildEventKind::Job(event), .. } => Entry::Item(Item::Event(event)),
            event => {
                if let BuildEventKind::Finished(outcome) = &event.kind {
                    self.outcome = Some(outcome.clone());
                    self.over = true;
                }
                Entry::Farm(event)
            }
        });
    }

    fn open(&mut self, key: LogKey) {
        let begin = self.selection.begin(&key.log);
        self.note(|remaining| remaining.shown(&key.log, begin));
        self.logs.open(key, begin);
    }

    /// Ends the reading of a log that should have this length, and says so if some of it is missing.
    fn close(&mut self, key: &LogKey, length: u64) {
        let Some(missing) = self.logs.close(key, length) else { return };
        self.back(&Some(key.clone()));
        if missing > 0 {
            self.ready.push_back(Entry::LogIncomplete { log: key.log.clone(), missing });
        }
    }

    fn give(&mut self, key: &LogKey, upto: u64) {
        if let Some(shown) = self.logs.give(key, upto, &mut self.ready) {
            self.note(|remaining| remaining.shown(&key.log, shown));
        }
    }

    fn give_oldest(&mut self) {
        if let Some((key, upto)) = self.logs.oldest() {
            self.give(&key, upto);
        }
    }

    /// Notes what was given, and ends where nothing remains.
    fn note(&mut self, given: impl FnOnce(&mut Remaining)) {
        if let Some(remaining) = &mut self.remaining {
            given(remaining);
            self.over |= remaining.is_empty();
        }
    }
}

fn job_event(event: &BuildEvent) -> Option<&EventKind> {
    match &event.kind {
        BuildEventKind::Job(event) => Some(&event.kind),
        _ => None,
    }
}

/// The log that an event concerns, and the offset before which all of it is to be shown first.
fn place(event: &BuildEvent) -> Option<(LogKey, u64)> {
    let (stage, offset) = job_event(event)?.position()?;
    Some((log_key(event, stage.clone()), offset))
}

/// A log of the attempt that an event is of.
fn log_key(event: &BuildEvent, log: impl Into<LogName>) -> LogKey {
    LogKey { job: event.job, attempt: event.attempt, log: log.into() }
}

/// The stage ran, and not to its good end.
pub fn is_failure(state: &StageState) -> bool {
    matches!(state, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut | StageState::Canceled)
}

/// After such an event nothing more comes of the logs that are open.
fn ends_attempt(event: &BuildEvent) -> bool {
    matches!(event.kind, BuildEventKind::AttemptLost { .. } | BuildEventKind::Finished(_))
}
