//! The one writer of an attempt's spool. What it is given is in memory (events) or on disk (logs)
//! and visible to readers when a call returns. A disk that refuses stops no call: the fault is kept,
//! what could not be written is counted, and the job's end says so.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use buildr_engine::job::{Heard, Item, Output};
use buildr_manifest::{Event, EventKind, LogName, Outcome, StageState, Usage};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    Error, LogProgress, Progress,
    journal::{Journal, Record},
    log::LogFile,
};

/// Who ends a job whose spool cannot be written.
pub const DISK_FAULT: &str = "the agent, for want of disk";

/// What a log may have above the limit: the engine ends a stage at the limit and cuts off a service's
/// log there, and what was on its way by then still comes.
const LIMIT_SLACK: u64 = 4 << 20;

/// How many events may wait for the orchestrator before ephemeral ones are left out.
const EPHEMERAL_BACKLOG: u64 = 16;

/// All events of an attempt, in order. They are few: a manifest has at most 1 MiB of steps.
#[derive(Debug, Default)]
pub struct Outbox {
    events: Mutex<Vec<Event>>,
    acked: Mutex<u64>,
}

impl Outbox {
    /// The events after the first `skip` ones, at most `most`.
    pub fn after(&self, skip: u64, most: usize) -> Vec<Event> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        events.iter().skip(skip).take(most).cloned().collect()
    }

    /// The orchestrator has this many.
    pub fn set_acked(&self, acked: u64) {
        *self.acked.lock().unwrap_or_else(PoisonError::into_inner) = acked;
    }

    fn push(&self, event: Event) -> u64 {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        events.len() as u64
    }

    fn backlog(&self, recorded: u64) -> u64 {
        recorded.saturating_sub(*self.acked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes an attempt's spool.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    journal: Journal,
    files: Vec<Option<LogFile>>,
    outbox: Arc<Outbox>,
    progress: watch::Sender<Progress>,
    limit: u64,
    fault: Option<String>,
    finished: bool,
}

impl Writer {
    pub(super) fn begin(folder: PathBuf, limit: u64) -> Result<Self, Error> {
        let path = folder.join("journal");
        let journal = Journal::create(&path).map_err(Error::new("begin the journal", &path))?;
        Ok(Self::new(folder, journal, limit))
    }

    /// Takes up what another process left.
    pub(super) fn reopen(folder: PathBuf, limit: u64) -> Result<Self, Error> {
        let path = folder.join("journal");
        let (journal, records) = Journal::reopen(&path).map_err(Error::new("read the journal", &path))?;
        let mut writer = Self::new(folder, journal, limit);
        let mut progress = Progress::default();
        for record in records {
            match record {
                Record::Event { event } => {
                    note(&mut progress, &event.kind);
                    writer.finished |= matches!(event.kind, EventKind::JobFinished { .. });
                    progress.events = writer.outbox.push(event);
                }
                Record::Log { log } => progress.logs.push(writer.measure(log, progress.logs.len())?),
            }
        }
        writer.progress.send_replace(progress);
        Ok(writer)
    }

    fn new(folder: PathBuf, journal: Journal, limit: u64) -> Self {
        Self {
            folder,
            journal,
            files: Vec::new(),
            outbox: Arc::default(),
            progress: watch::Sender::default(),
            limit,
            fault: None,
            finished: false,
        }
    }

    fn measure(&mut self, log: LogName, index: usize) -> Result<LogProgress, Error> {
        let (length, crc) =
            LogFile::measure(&self.folder, index).map_err(Error::new("read a log in", &self.folder))?;
        self.files.push(None);
        Ok(LogProgress { log, written: length, length, crc, ended: false })
    }

    /// Where readers find the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The events.
    pub fn outbox(&self) -> Arc<Outbox> {
        self.outbox.clone()
    }

    /// How far it is, now and later.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// What the disk refused, if it did.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Takes what the engine tells, in its order. What follows the job's end is ignored.
    pub fn write(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            match mask(item) {
                _ if self.finished => {}
                Item::Event(event) => self.event(event),
                Item::Output(output) => self.output(&output),
            }
        }
    }

    /// What is kept of what the engine told.
    pub fn heard(&self) -> Heard {
        let progress = self.progress.borrow();
        let kept = self.outbox.after(0, usize::MAX);
        Heard {
            events: kept.iter().filter(|event| !event.kind.is_ephemeral()).count() as u64,
            logs: progress.logs.iter().map(|log| (log.log.clone(), log.length)).collect(),
        }
    }

    /// Whether a stage began: then the job cannot begin anew without anybody asking.
    pub fn has_begun(&self) -> bool {
        self.progress.borrow().logs.iter().any(|log| log.log.stage().is_some())
    }

    /// Whether it has the job's end.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Nothing more comes. A spool without the job's end gets this one.
    pub fn close(&mut self, outcome: Outcome) {
        if !self.finished {
            self.end_open_stages();
            self.event(now(EventKind::JobFinished {
                outcome,
                duration: Duration::ZERO,
                containers_removed: 0,
            }));
        }
        self.seal();
    }

    /// Says that nothing more comes, which is so once it is finished. Touches no disk.
    pub fn seal(&mut self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    /// Stages that began and never ended were not reached to their end.
    fn end_open_stages(&mut self) {
        let open: Vec<_> =
            self.outbox.after(0, usize::MAX).into_iter().fold(Vec::new(), |mut open, event| {
                match event.kind {
                    EventKind::StageStarted { stage } => open.push(stage),
                    EventKind::StageFinished { stage, .. } => open.retain(|other| *other != stage),
                    _ => {}
                }
                open
            });
        for stage in open {
            let log_bytes = {
                let progress = self.progress.borrow();
                progress.logs.iter().find(|log| log.log.is_of(&stage)).map_or(0, |log| log.length)
            };
            self.event(now(EventKind::StageFinished {
                stage,
                state: StageState::NotReached { because: None },
                allowed: false,
                log_bytes,
                duration: Duration::ZERO,
                usage: Usage::default(),
            }));
        }
    }

    fn event(&mut self, mut event: Event) {
        if event.kind.is_ephemeral() && self.outbox.backlog(self.progress.borrow().events) > EPHEMERAL_BACKLOG
        {
            return;
        }
        if let EventKind::StageStarted { stage } = &event.kind {
            self.log_index(&stage.clone().into());
        }
        if let EventKind::JobFinished { outcome, .. } = &mut event.kind {
            self.admit_fault(outcome);
            self.finished = true;
        }
        let kind = event.kind.clone();
        let record = Record::Event { event };
        self.append(&record);
        let Record::Event { event } = record else { return };
        let events = self.outbox.push(event);
        self.progress.send_modify(|progress| {
            note(progress, &kind);
            progress.events = events;
        });
    }

    /// A job whose log could not be kept has not passed, nor failed by itself; only somebody's
    /// cancel stands.
    fn admit_fault(&self, outcome: &mut Outcome) {
        let canceled = matches!(outcome, Outcome::Canceled { by } if by != DISK_FAULT);
        if let Some(fault) = &self.fault
            && !canceled
        {
            *outcome = Outcome::Internal {
                message: format!("the agent could not keep what the job wrote and ended it: {fault}"),
            };
        }
    }

    fn output(&mut self, output: &Output) {
        let index = self.log_index(&output.log);
        let (length, crc) = {
            let progress = self.progress.borrow();
            (progress.logs[index].length, progress.logs[index].crc)
        };
        if output.offset != length {
            self.fail(format!(
                "the log of {} jumps from byte {length} to {}",
                output.log.owner(),
                output.offset
            ));
        }
        if length + output.data.len() as u64 > self.limit.saturating_add(LIMIT_SLACK) {
            self.fail(format!("{} wrote more than the limit of {} bytes", output.log.owner(), self.limit));
        }
        let written = self.append_output(index, output);
        let added = output.data.len() as u64;
        let crc = crc32c::crc32c_append(crc, &output.data);
        self.progress.send_modify(|progress| {
            let log = &mut progress.logs[index];
            log.length += added;
            log.crc = crc;
            log.written += if written { added } else { 0 };
        });
    }

    fn append_output(&mut self, index: usize, output: &Output) -> bool {
        if self.fault.is_some() {
            return false;
        }
        match self.file(index).and_then(|file| file.append(&output.data, &output.times)) {
            Ok(()) => true,
            Err(error) => {
                self.fail(format!("write the log of {}: {error}", output.log.owner()));
                false
            }
        }
    }

    /// The open files of a log; those of an earlier process are opened when they are gone on with.
    fn file(&mut self, index: usize) -> std::io::Result<&mut LogFile> {
        let length = self.progress.borrow().logs[index].length;
        match &mut self.files[index] {
            Some(file) => Ok(file),
            none => Ok(none.insert(LogFile::reopen(&self.folder, index, length)?)),
        }
    }

    /// The index of a log; it begins where there is none.
    fn log_index(&mut self, log: &LogName) -> usize {
        let known = self.progress.borrow().logs.iter().position(|known| known.log == *log);
        if let Some(index) = known {
            return index;
        }
        self.append(&Record::Log { log: log.clone() });
        let index = self.files.len();
        let file = LogFile::create(&self.folder, index)
            .map_err(|error| self.fail(format!("begin the log of {}: {error}", log.owner())))
            .ok();
        self.files.push(file);
        let log = LogProgress { log: log.clone(), written: 0, length: 0, crc: 0, ended: false };
        self.progress.send_modify(|progress| progress.logs.push(log));
        index
    }

    fn append(&mut self, record: &Record) {
        if self.fault.is_none()
            && let Err(error) = self.journal.append(record)
        {
            self.fail(format!("write the journal in {}: {error}", self.folder.display()));
        }
    }

    fn fail(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// The one place that everything passes before it is kept or sent: where secret values will be
/// taken out of output, commands and messages. There are no secrets yet, so it changes nothing.
fn mask(item: Item) -> Item {
    item
}

fn now(kind: EventKind) -> Event {
    Event { at: Timestamp::now(), kind }
}

fn note(progress: &mut Progress, kind: &EventKind) {
    if let EventKind::StageFinished { stage, .. } = kind
        && let Some(log) = progress.logs.iter_mut().find(|log| log.log.is_of(stage))
    {
        log.ended = true;
    }
}
