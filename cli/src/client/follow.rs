//! A build as one ordered stream: its events and its logs, merged so that a reader sees things as
//! they happened. A late reader sees everything from byte 0 by the same path as a live one, and a
//! broken connection costs neither a byte nor an event.
//!
//! An event says up to where its stage's log must have been shown before it
//! ([`EventKind::position`]): the log is read up to there, then the event is given. The other way
//! round, bytes that come ahead of an event that stands before them are held for a moment; for a
//! build that has ended no guess is needed.
//!
//! Stages that run side by side are independent of each other: see `due`.
//!
//! # Layout
//! - `due`: which events may be given before others that came first
//! - `logs`: the logs that are being read, and what is held of them
//! - `wanted`: which stages a reader wants, and when it has had enough

mod due;
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
use due::{Blocked, Standing};
use logs::{Logs, Reading};
pub use wanted::Stages;
use wanted::{Remaining, Selection};

/// How long the logs of an attempt that ended without a result are waited for.
const DRAIN: Duration = Duration::from_secs(10);

/// So many events may wait for their logs; then no more are taken.
const MAX_DUE: usize = 1024;

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
    /// No more events come.
    events_over: bool,
    /// Events that wait for their logs, in order.
    due: VecDeque<BuildEvent>,
    /// Since when the end of logs has been waited for without any of them going on.
    draining_since: Option<Instant>,
    ready: VecDeque<Entry>,
    /// The readers without a connection; none is that of the events.
    broken: BTreeSet<Option<LogKey>>,
    outcome: Option<Outcome>,
    over: bool,
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
            events_over: false,
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
            let drain_ends = self.release_due();
            if self.ready.is_empty() && !self.over {
                self.listen(drain_ends).await?;
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
    async fn listen(&mut self, drain_ends: Option<Instant>) -> Result<(), Error> {
        let hold_ends = if self.settled || self.is_blind() { None } else { self.logs.hold_ends() };
        tokio::select! {
            biased;
            event = self.events.recv(), if self.due.len() < MAX_DUE && !self.events_over => match event {
                Some(feed) => self.take_event(feed)?,
                None => self.events_over = true,
            },
            (key, feed) = self.logs.next() => self.take_log(key, feed)?,
            () = tokio::time::sleep_until(hold_ends.unwrap_or_else(Instant::now)), if hold_ends.is_some() => {
                self.give_oldest();
            }
            () = tokio::time::sleep_until(drain_ends.unwrap_or_else(Instant::now)), if drain_ends.is_some() => {
                self.logs.give_up();
            }
        }
        self.over |= self.events_over && self.due.is_empty();
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
                // The end of logs is waited for as long as they go on.
                self.draining_since = None;
                let enough = self.logs.hold(&key, part);
                if let Some(upto) = enough.filter(|_| !self.settled && !self.is_blind()) {
                    self.give(&key, upto);
                }
            }
            Feed::Lost(why) => self.lost(Some(key), why),
            Feed::Back => self.back(&Some(key)),
            Feed::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// True while no events come, so that nothing is known of what belongs before the output.
    fn is_blind(&self) -> bool {
        self.broken.contains(&None)
    }

    fn lost(&mut self, who: Option<LogKey>, why: String) {
        if self.broken.is_empty() {
            self.ready.push_back(Entry::ConnectionLost { why });
        }
        self.broken.insert(who);
    }

    fn back(&mut self, who: &Option<LogKey>) {
        if who.is_none() {
            self.logs.hold_anew();
        }
        if self.broken.remove(who) && self.broken.is_empty() {
            self.ready.push_back(Entry::ConnectionBack);
        }
    }

    /// Gives the due events that can be given, with the output that belongs before them. Where the
    /// ends of logs are waited for, tells until when.
    ///
    /// What happens to one stage is given in its order. An event whose output is not here yet holds
    /// back no other stage, but for two things: a stage does not begin before those that ended before
    /// it, and what concerns the job as a whole waits for all before it. Of a build that has ended
    /// all is given in the order in which it happened.
    fn release_due(&mut self) -> Option<Instant> {
        let mut blocked = Blocked::default();
        let mut index = 0;
        while let Some(event) = self.due.get(index) {
            match blocked.standing(event) {
                Standing::Free => self.release(index),
                Standing::AfterAll => return None,
                Standing::Ending => match self.drained(index) {
                    None => self.release(index),
                    until => return until,
                },
                Standing::Behind(key) => {
                    blocked.add(key, is_stage_end(event));
                    index += 1;
                }
                Standing::Due(key, offset) => {
                    self.give(&key, offset);
                    if self.logs.has_given(&key, offset) {
                        self.release(index);
                    } else if self.settled {
                        return None;
                    } else {
                        let ends = is_stage_end(&self.due[index]);
                        blocked.add(key, ends);
                        index += 1;
                    }
                }
            }
            if self.over {
                return None;
            }
        }
        None
    }

    /// Gives all that came of the logs that an event ends; none where that is all that will come,
    /// and else how long to wait for more.
    fn drained(&mut self, index: usize) -> Option<Instant> {
        let keys = self.logs.ended_by(&self.due[index]);
        keys.iter().for_each(|key| self.give(key, u64::MAX));
        if keys.iter().all(|key| self.logs.has_ended(key)) {
            return None;
        }
        let since = *self.draining_since.get_or_insert_with(Instant::now);
        Some(since + DRAIN)
    }

    /// Gives a due event and does what it brings about.
    fn release(&mut self, index: usize) {
        let Some(event) = self.due.remove(index) else { return };
        if ends_attempt(&event) {
            self.draining_since = None;
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

fn is_stage_end(event: &BuildEvent) -> bool {
    matches!(job_event(event), Some(EventKind::StageFinished { .. }))
}

/// After such an event nothing more comes of the logs that are open.
fn ends_attempt(event: &BuildEvent) -> bool {
    matches!(event.kind, BuildEventKind::AttemptLost { .. } | BuildEventKind::Finished(_))
}
