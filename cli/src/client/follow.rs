//! A build as one ordered stream: its events and its logs, merged so that a reader sees things as
//! they happened. A late reader sees everything from byte 0 by the same path as a live one, and a
//! broken connection costs neither a byte nor an event.
//!
//! An event says up to where its stage's log must have been shown before it
//! ([`EventKind::position`](buildr_manifest::EventKind::position)): the log is read up to there,
//! then the event is given. The other way round, bytes that come ahead of an event that stands
//! before them are held for a moment; for a build that has ended no guess is needed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use buildr_engine::job::{Item, Output};
use buildr_manifest::{EventKind, Outcome, StageName, StageState};
use buildr_proto::{
    BuildId,
    build::{Build, BuildEvent, BuildEventKind, BuildState, StageProgress},
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};

pub use super::watch::Patience;
use super::{
    Client,
    watch::{self, Feed, LogKey, LogPart},
};
use crate::Error;

/// Log bytes wait so long for an event that belongs before them. Events and logs travel on
/// different streams, a few milliseconds apart.
const HOLD: Duration = Duration::from_millis(20);

/// The most that is held of all logs together; beyond it bytes are given without waiting.
const MAX_HELD: usize = 4 << 20;

/// How long the logs of an attempt that ended without a result are waited for.
const DRAIN: Duration = Duration::from_secs(10);

/// One thing to show.
#[derive(Clone, Debug)]
pub enum Entry {
    /// What the engine told: an event, or output.
    Item(Item),
    /// What the orchestrator told of the build. Never a `BuildEventKind::Job`.
    Farm(BuildEvent),
    /// So many bytes of the end of a stage's log were never delivered.
    LogIncomplete {
        /// The stage.
        stage: StageName,
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
    /// Where to begin in the logs of some stages; the others from byte 0.
    pub begin: BTreeMap<StageName, u64>,
    /// Give the times of the bytes too.
    pub times: bool,
    /// Go on to the build's end, or stop where it stood at the beginning.
    pub until: Until,
    /// How to deal with a broken connection.
    pub patience: Patience,
}

/// Which stages are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stages {
    /// All.
    #[default]
    All,
    /// These.
    Named(BTreeSet<StageName>),
    /// Those that failed; each is given when it has.
    Failed,
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
    client: Client,
    build: BuildId,
    options: Options,
    /// The build had ended at the beginning: all events are there, so bytes need not be shown
    /// before an event has asked for them.
    settled: bool,
    /// With [`Until::Now`]: what was there and was not given yet.
    remaining: Option<BTreeMap<StageName, Remaining>>,
    events: mpsc::Receiver<Feed<BuildEvent>>,
    log_parts: mpsc::Receiver<(LogKey, Feed<LogPart>)>,
    log_sender: mpsc::Sender<(LogKey, Feed<LogPart>)>,
    readers: JoinSet<()>,
    open: BTreeMap<LogKey, OpenLog>,
    /// Events that wait for their logs, in order.
    due: VecDeque<BuildEvent>,
    /// Since when the first of `due` has waited for logs to end.
    draining_since: Option<Instant>,
    /// With [`Stages::Failed`]: the events of stages that have not ended yet.
    stash: BTreeMap<LogKey, Vec<BuildEvent>>,
    ready: VecDeque<Entry>,
    broken: BTreeSet<Option<LogKey>>,
    outcome: Option<Outcome>,
    over: bool,
}

/// What was there of a stage at the beginning.
#[derive(Clone, Copy, Debug)]
enum Remaining {
    /// It had ended: up to its last event.
    Finished,
    /// It ran: its log up to here.
    Running(u64),
}

/// A log that is being read.
struct OpenLog {
    reader: AbortHandle,
    /// Everything below was given.
    shown: u64,
    held: VecDeque<Held>,
    ended: Option<u64>,
}

struct Held {
    since: Instant,
    offset: u64,
    data: Bytes,
    times: Vec<(u64, Timestamp)>,
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
        let (event_sender, events) = mpsc::channel(64);
        let (log_sender, log_parts) = mpsc::channel(8);
        let mut readers = JoinSet::new();
        readers.spawn(watch::events(client.clone(), build.number, options.patience, event_sender));
        let settled = matches!(build.state, BuildState::Finished(_));
        let remaining = (options.until == Until::Now && !settled).then(|| remaining(build, &options.stages));
        let over = remaining.as_ref().is_some_and(BTreeMap::is_empty);
        Self {
            client,
            build: build.number,
            options,
            settled,
            remaining,
            events,
            log_parts,
            log_sender,
            readers,
            open: BTreeMap::new(),
            due: VecDeque::new(),
            draining_since: None,
            stash: BTreeMap::new(),
            ready: VecDeque::new(),
            broken: BTreeSet::new(),
            outcome: None,
            over,
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
        !self.ready.is_empty() || !self.log_parts.is_empty() || !self.events.is_empty()
    }

    /// How the build ended, once its last event was given.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Waits for one message or for the time at which held bytes are to be given.
    async fn listen(&mut self, wait: Option<Wait>) -> Result<(), Error> {
        let hold_ends = self.hold_ends();
        let drain_ends = match wait {
            Some(Wait::Drain(until)) => Some(until),
            _ => None,
        };
        let room = self.held_bytes() < MAX_HELD || wait.is_some();
        tokio::select! {
            biased;
            event = self.events.recv(), if wait.is_none() => match event {
                Some(feed) => self.take_event(feed)?,
                None => self.over = true,
            },
            Some((key, feed)) = self.log_parts.recv(), if room => self.take_log(key, feed)?,
            () = tokio::time::sleep_until(hold_ends.unwrap_or_else(Instant::now)), if hold_ends.is_some() => {
                self.give_oldest();
            }
            () = tokio::time::sleep_until(drain_ends.unwrap_or_else(Instant::now)), if drain_ends.is_some() => {
                self.give_up_draining();
            }
        }
        Ok(())
    }

    fn take_event(&mut self, feed: Feed<BuildEvent>) -> Result<(), Error> {
        match feed {
            Feed::Next(event) => self.admit(event),
            Feed::Lost(why) => self.lost(None, why),
            Feed::Back => self.back(&None),
            Feed::Failed(error) => return Err(error),
        }
        Ok(())
    }

    fn take_log(&mut self, key: LogKey, feed: Feed<LogPart>) -> Result<(), Error> {
        match feed {
            Feed::Next(part) => {
                if let Some(log) = self.open.get_mut(&key) {
                    match part {
                        LogPart::Piece { offset, data, times } => {
                            log.held.push_back(Held { since: Instant::now(), offset, data, times });
                        }
                        LogPart::End { missing } => log.ended = Some(missing),
                    }
                }
                if self.held_bytes() > MAX_HELD && (!self.settled || !self.due.is_empty()) {
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

    /// Queues an event if it is wanted.
    fn admit(&mut self, event: BuildEvent) {
        let Some(stage) = stage_of(&event).cloned() else {
            self.due.push_back(event);
            return;
        };
        match &self.options.stages {
            Stages::All => {}
            Stages::Named(names) if names.contains(&stage) => {}
            Stages::Named(_) => return,
            Stages::Failed => return self.stash(event, stage),
        }
        if self.is_before_begin(&event) {
            return;
        }
        self.due.push_back(event);
    }

    fn stash(&mut self, event: BuildEvent, stage: StageName) {
        let key = LogKey { job: event.job, attempt: event.attempt, stage };
        let failed = match job_event(&event) {
            Some(EventKind::StageFinished { state, .. }) => Some(is_failure(state)),
            _ => None,
        };
        match failed {
            None => self.stash.entry(key).or_default().push(event),
            Some(false) => drop(self.stash.remove(&key)),
            Some(true) => {
                let earlier = self.stash.remove(&key).unwrap_or_default();
                let wanted = earlier.into_iter().filter(|event| !self.is_before_begin(event));
                let wanted: Vec<_> = wanted.chain([event]).collect();
                self.due.extend(wanted);
            }
        }
    }

    /// A step above the place where the reader wants to begin.
    fn is_before_begin(&self, event: &BuildEvent) -> bool {
        match job_event(event) {
            Some(EventKind::StepStarted { stage, offset, .. }) => {
                self.options.begin.get(stage).is_some_and(|begin| offset < begin)
            }
            _ => false,
        }
    }

    /// Gives what the first due event waits for, and says whether that is enough.
    fn first_due(&mut self) -> Option<Wait> {
        let event = self.due.front()?;
        if ends_attempt(event) {
            let keys: Vec<_> = self
                .open
                .keys()
                .filter(|key| event.attempt.is_none() || key.attempt == event.attempt)
                .cloned()
                .collect();
            keys.iter().for_each(|key| self.give(key, u64::MAX));
            if keys.iter().all(|key| self.open[key].ended.is_some()) {
                return Some(Wait::Ready);
            }
            let since = *self.draining_since.get_or_insert_with(Instant::now);
            return Some(Wait::Drain(since + DRAIN));
        }
        let Some((stage, offset)) = job_event(event).and_then(EventKind::position) else {
            return Some(Wait::Ready);
        };
        let key = LogKey { job: event.job, attempt: event.attempt, stage: stage.clone() };
        self.give(&key, offset);
        match self.open.get(&key) {
            Some(log) if log.shown < offset && log.ended.is_none() => Some(Wait::Log),
            _ => Some(Wait::Ready),
        }
    }

    /// Gives the first due event and does what it brings about.
    fn release(&mut self) {
        let Some(event) = self.due.pop_front() else { return };
        self.draining_since = None;
        if ends_attempt(&event) {
            let keys: Vec<_> = self.open.keys().cloned().collect();
            for key in keys.iter().filter(|key| event.attempt.is_none() || key.attempt == event.attempt) {
                self.close(key, 0);
            }
        }
        match job_event(&event) {
            Some(EventKind::StageStarted { stage }) => {
                let stage = stage.clone();
                self.open_log(LogKey { job: event.job, attempt: event.attempt, stage });
            }
            Some(EventKind::StageFinished { stage, log_bytes, .. }) => {
                let key = LogKey { job: event.job, attempt: event.attempt, stage: stage.clone() };
                self.close(&key, *log_bytes);
                self.reached(&key.stage, None);
            }
            _ => {}
        }
        match event {
            BuildEvent { kind: BuildEventKind::Job(event), .. } => {
                self.ready.push_back(Entry::Item(Item::Event(event)));
            }
            event => {
                if let BuildEventKind::Finished(outcome) = &event.kind {
                    self.outcome = Some(outcome.clone());
                    self.over = true;
                }
                self.ready.push_back(Entry::Farm(event));
            }
        }
    }

    fn open_log(&mut self, key: LogKey) {
        let begin = self.options.begin.get(&key.stage).copied().unwrap_or(0);
        let (sender, mut parts) = mpsc::channel(2);
        let (client, build, out) = (self.client.clone(), self.build, self.log_sender.clone());
        let (times, patience) = (self.options.times, self.options.patience);
        let reading = key.clone();
        let reader = self.readers.spawn(async move {
            let read = watch::log(client, build, reading.clone(), begin, times, patience, sender);
            let pass = async {
                while let Some(part) = parts.recv().await {
                    if out.send((reading.clone(), part)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(read, pass);
        });
        self.open.insert(key.clone(), OpenLog { reader, shown: begin, held: VecDeque::new(), ended: None });
        self.reached(&key.stage, Some(begin));
    }

    /// Ends the reading of a log that should have this length, and says so if some of it is missing.
    fn close(&mut self, key: &LogKey, length: u64) {
        let Some(log) = self.open.remove(key) else { return };
        log.reader.abort();
        self.back(&Some(key.clone()));
        let missing = log.ended.unwrap_or(0).max(length.saturating_sub(log.shown));
        if missing > 0 {
            self.ready.push_back(Entry::LogIncomplete { stage: key.stage.clone(), missing });
        }
    }

    /// Gives the held bytes of a log up to an offset.
    fn give(&mut self, key: &LogKey, upto: u64) {
        let Some(log) = self.open.get_mut(key) else { return };
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
            let output = Output { stage: key.stage.clone(), offset, data, times };
            self.ready.push_back(Entry::Item(Item::Output(output)));
        }
        let shown = log.shown;
        self.reached(&key.stage, Some(shown));
    }

    fn give_oldest(&mut self) {
        let oldest = self
            .open
            .iter()
            .filter_map(|(key, log)| {
                log.held.front().map(|held| (held.since, held.offset, held.data.len(), key))
            })
            .min_by_key(|(since, ..)| *since)
            .map(|(_, offset, length, key)| (key.clone(), offset + length as u64));
        if let Some((key, upto)) = oldest {
            self.give(&key, upto);
        }
    }

    fn give_up_draining(&mut self) {
        for log in self.open.values_mut() {
            log.ended.get_or_insert(0);
        }
    }

    fn held_bytes(&self) -> usize {
        self.open.values().flat_map(|log| &log.held).map(|held| held.data.len()).sum()
    }

    fn hold_ends(&self) -> Option<Instant> {
        if self.settled {
            return None;
        }
        self.open.values().filter_map(|log| log.held.front()).map(|held| held.since + HOLD).min()
    }

    /// Notes what was given of a stage, for [`Until::Now`]; no offset means its end.
    fn reached(&mut self, stage: &StageName, shown: Option<u64>) {
        let Some(remaining) = &mut self.remaining else { return };
        let done = match (remaining.get(stage), shown) {
            (Some(_), None) => true,
            (Some(Remaining::Running(wanted)), Some(shown)) => shown >= *wanted,
            _ => false,
        };
        if done {
            remaining.remove(stage);
            self.over |= remaining.is_empty();
        }
    }
}

fn remaining(build: &Build, wanted: &Stages) -> BTreeMap<StageName, Remaining> {
    let stages = build.jobs.iter().flat_map(|job| &job.stages);
    stages
        .filter(|stage| match wanted {
            Stages::All => true,
            Stages::Named(names) => names.contains(&stage.name),
            Stages::Failed => {
                matches!(&stage.progress, StageProgress::Finished(state) if is_failure(state))
            }
        })
        .filter_map(|stage| match stage.progress {
            StageProgress::Waiting => None,
            StageProgress::Running => Some((stage.name.clone(), Remaining::Running(stage.log_bytes))),
            StageProgress::Finished(_) => Some((stage.name.clone(), Remaining::Finished)),
        })
        .collect()
}

fn job_event(event: &BuildEvent) -> Option<&EventKind> {
    match &event.kind {
        BuildEventKind::Job(event) => Some(&event.kind),
        _ => None,
    }
}

fn stage_of(event: &BuildEvent) -> Option<&StageName> {
    job_event(event).and_then(EventKind::position).map(|(stage, _)| stage)
}

/// The stage ran, and not to its good end.
pub fn is_failure(state: &StageState) -> bool {
    matches!(state, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut | StageState::Canceled)
}

/// After such an event nothing more comes of the logs that are open.
fn ends_attempt(event: &BuildEvent) -> bool {
    matches!(event.kind, BuildEventKind::AttemptLost { .. } | BuildEventKind::Finished(_))
}
