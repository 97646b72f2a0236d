//! Plain lines for pipes and files, without any cursor movement: the stages' output and commands on
//! standard output, each line with its stage in front; what is said about them on standard error.
//! Made for bulk: one copy per byte, no allocation per line, memory bounded whatever a build prints.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use buildr_engine::job::{Item, Output};
use buildr_manifest::{Event, EventKind, LogName, Outcome, StageName};
use buildr_proto::{
    BuildId,
    build::{BuildEvent, BuildEventKind},
};
use jiff::{Timestamp, tz::TimeZone};

use super::{
    Headline, Palette, Renderer,
    ended::{Ended, failed_try},
    escape::{Colours, Filter, sanitize, sanitize_lines},
    story::Story,
    text,
};
use crate::client::follow::Entry;

/// So much is gathered before it is written.
const BUFFER: usize = 128 << 10;

/// An unfinished line that is held is broken here, so that memory stays bounded.
const LONGEST_LINE: usize = 64 << 10;

/// The columns of the table at the end.
const COLUMNS: usize = 100;

/// How the lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each with its stage: `[test] ...`.
    Staged,
    /// Each with its time and its stage.
    Timed,
    /// The bytes of the logs as they are, and nothing else.
    Raw,
}

/// The renderer for whatever is no terminal.
pub struct Plain<O: Write, E: Write> {
    out: O,
    err: E,
    layout: Layout,
    colours: Colours,
    palette: Palette,
    zone: TimeZone,
    story: Story,
    filters: BTreeMap<LogName, Filter>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// The log of the unfinished line.
    open: Option<LogName>,
    /// The unfinished lines of stages that run side by side, each with what stands before it.
    held: BTreeMap<LogName, Vec<u8>>,
    /// The images of which it was said that they are being pulled.
    pulling: BTreeSet<String>,
}

impl<O: Write, E: Write> Plain<O, E> {
    /// Writes the logs to `out`, the rest to `err`.
    pub fn new(out: O, err: E, layout: Layout, colour: bool, zone: TimeZone, headline: Headline) -> Self {
        Self {
            out,
            err,
            layout,
            colours: if colour { Colours::Keep } else { Colours::Drop },
            palette: Palette::new(colour),
            zone,
            story: Story::new(headline),
            filters: BTreeMap::new(),
            buffer: Vec::with_capacity(BUFFER * 2),
            scratch: Vec::new(),
            open: None,
            held: BTreeMap::new(),
            pulling: BTreeSet::new(),
        }
    }

    fn output(&mut self, output: &Output) -> io::Result<()> {
        if self.layout == Layout::Raw {
            return self.out.write_all(&output.data);
        }
        if self.open.as_ref().is_some_and(|open| *open != output.log) {
            self.end_line();
        }
        let mut filter = self.filters.remove(&output.log).unwrap_or_else(|| Filter::new(self.colours));
        let mut scratch = std::mem::take(&mut self.scratch);
        if self.layout == Layout::Timed {
            self.timed_lines(output, &mut filter, &mut scratch)?;
        } else {
            let clean = filter.push(&output.data, &mut scratch);
            self.story.output(&output.log, clean);
            let prefix = self.prefix(&output.log.to_string());
            self.lines(&output.log, &prefix, clean);
        }
        self.scratch = scratch;
        self.filters.insert(output.log.clone(), filter);
        self.write_if_full()
    }

    /// Puts the time of its first byte before each line. The marks are sparse: a line has the time
    /// of the last mark at or before it.
    fn timed_lines(&mut self, output: &Output, filter: &mut Filter, scratch: &mut Vec<u8>) -> io::Result<()> {
        let mut offset = output.offset;
        for line in output.data.split_inclusive(|&byte| byte == b'\n') {
            let marks = output.times.partition_point(|(mark, _)| *mark <= offset);
            let at = output.times.get(marks.saturating_sub(1)).map(|(_, at)| *at);
            let prefix = format!("{} {}", self.time(at), self.prefix(&output.log.to_string()));
            let clean = filter.push(line, scratch);
            self.story.output(&output.log, clean);
            self.lines(&output.log, &prefix, clean);
            offset += line.len() as u64;
            self.write_if_full()?;
        }
        Ok(())
    }

    fn time(&self, at: Option<Timestamp>) -> String {
        match at {
            Some(at) => at.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string(),
            None => " ".repeat("00:00:00.000".len()),
        }
    }

    fn prefix(&self, log: &str) -> String {
        let dim = self.palette.dim;
        format!("{dim}[{}]{dim:#} ", sanitize(log))
    }

    /// Writes clean text of a log, with the prefix before each line that begins.
    fn lines(&mut self, log: &LogName, prefix: &str, clean: &[u8]) {
        if self.story.must_name(log) && self.open.is_none() {
            let whole = memchr::memrchr(b'\n', clean).map_or(0, |at| at + 1);
            let (whole, unfinished) = clean.split_at(whole);
            if !whole.is_empty() {
                self.write_through(log, prefix, whole);
            }
            return self.hold(log, prefix, unfinished);
        }
        self.write_through(log, prefix, clean);
    }

    /// Keeps an unfinished line of a stage until it is finished, so that those of others stay whole.
    fn hold(&mut self, log: &LogName, prefix: &str, unfinished: &[u8]) {
        if unfinished.is_empty() {
            return;
        }
        let held = self.held.entry(log.clone()).or_insert_with(|| prefix.as_bytes().to_vec());
        held.extend_from_slice(unfinished);
        if held.len() >= LONGEST_LINE {
            self.end_held(log);
        }
    }

    /// Writes the held line of a log, finished or not.
    fn end_held(&mut self, log: &LogName) {
        let Some(held) = self.held.remove(log) else { return };
        self.buffer.extend(held);
        if let Some(filter) = self.filters.get_mut(log) {
            self.buffer.extend(filter.finish());
        }
        self.buffer.push(b'\n');
    }

    /// As [`Plain::lines`], with an unfinished line at the end left open.
    fn write_through(&mut self, log: &LogName, prefix: &str, clean: &[u8]) {
        if let Some(held) = self.held.remove(log) {
            self.buffer.extend(held);
            self.open = Some(log.clone());
        }
        let mut begins = self.open.is_none();
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', clean) {
            if begins {
                self.buffer.extend_from_slice(prefix.as_bytes());
            }
            self.buffer.extend_from_slice(&clean[start..=end]);
            start = end + 1;
            begins = true;
        }
        let rest = &clean[start..];
        if !rest.is_empty() {
            if begins {
                self.buffer.extend_from_slice(prefix.as_bytes());
            }
            self.buffer.extend_from_slice(rest);
            begins = false;
        }
        match (begins, &self.open) {
            (true, _) => self.open = None,
            (false, None) => self.open = Some(log.clone()),
            (false, Some(_)) => {}
        }
    }

    fn end_line(&mut self) {
        let Some(log) = self.open.take() else { return };
        if let Some(filter) = self.filters.get_mut(&log) {
            self.buffer.extend(filter.finish());
        }
        self.buffer.push(b'\n');
    }

    /// Ends the unfinished line that is written, and the one of this log that is held.
    fn end_of(&mut self, log: &LogName) {
        self.end_line();
        self.end_held(log);
    }

    fn write_if_full(&mut self) -> io::Result<()> {
        if self.buffer.len() >= BUFFER {
            self.out.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Says something on standard error, behind all that is for standard output.
    fn say(&mut self, text: &str) -> io::Result<()> {
        self.settle()?;
        writeln!(self.err, "{text}")
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.story.event(event);
        match &event.kind {
            EventKind::JobStarted => self.filters.clear(),
            EventKind::SourceResolved { commit: Some(commit), branch, tag } => {
                let line = tag.as_ref().or(branch.as_ref());
                let of = line.map_or(String::new(), |line| format!(" of {}", sanitize(line)));
                self.say(&format!("commit {}{of}", sanitize(text::short_commit(commit))))?;
            }
            EventKind::Warning { message } => {
                let warn = self.palette.warn;
                self.say(&format!("{warn}warning:{warn:#} {}", sanitize_lines(message)))?;
            }
            EventKind::PullProgress { image, .. } if self.pulling.insert(image.clone()) => {
                self.say(&format!("pulling image {}", sanitize(image)))?;
            }
            EventKind::StepStarted { stage, command, .. } => self.command(stage, command, event.at)?,
            EventKind::ContainerReady { stage: Some(stage), image, pull, .. } => {
                self.say(&container_line(stage, image, *pull))?;
            }
            EventKind::ServiceReady { service, took, .. } => {
                self.say(&format!("service {service} is ready after {}", text::duration(*took)))?;
            }
            EventKind::StageRetried { stage, attempt, attempts, state, pause, .. } => {
                self.end_of(&stage.clone().into());
                let failed = failed_try(*attempt, *attempts, state, *pause);
                self.say(&format!("{}: {failed}", sanitize(stage)))?;
            }
            EventKind::StageFinished { stage, state, allowed, duration, usage, .. } => {
                let log = stage.clone().into();
                self.end_of(&log);
                self.filters.remove(&log);
                let (duration, peak_memory) = (*duration, usage.peak_memory);
                let ended = Ended { state, allowed: *allowed, duration, peak_memory };
                self.say(&format!("{}: {}", sanitize(stage), ended.words()))?;
            }
            EventKind::JobFinished { outcome, duration, .. } if self.story.headline.build.is_none() => {
                let took = text::duration(*duration);
                self.result(outcome, &format!(" in {took}"))?;
            }
            _ => {}
        }
        Ok(())
    }

    fn command(&mut self, stage: &StageName, command: &str, at: Timestamp) -> io::Result<()> {
        self.end_of(&stage.clone().into());
        if self.layout == Layout::Raw {
            return Ok(());
        }
        let dim = self.palette.dim;
        for (index, line) in command.trim_end().lines().enumerate() {
            let sign = if index == 0 { '$' } else { '>' };
            if self.layout == Layout::Timed {
                write!(self.buffer, "{} ", self.time(Some(at)))?;
            }
            let prefix = self.prefix(stage);
            writeln!(self.buffer, "{prefix}{dim}{sign} {}{dim:#}", sanitize(line))?;
        }
        self.write_if_full()
    }

    fn farm(&mut self, event: &BuildEvent) -> io::Result<()> {
        if let BuildEventKind::Finished(outcome) = &event.kind {
            return self.result(outcome, "");
        }
        match farm_line(event) {
            Some(line) => self.say(&line),
            None => Ok(()),
        }
    }

    fn result(&mut self, outcome: &Outcome, took: &str) -> io::Result<()> {
        self.end_line();
        let held: Vec<_> = self.held.keys().cloned().collect();
        held.iter().for_each(|log| self.end_held(log));
        let style = if outcome.is_success() { self.palette.good } else { self.palette.bad };
        let build = self.story.headline.build.map_or(String::new(), |build| format!("build {build} "));
        let what = sanitize_lines(&outcome.to_string());
        let took = if outcome.is_success() { took } else { "" };
        self.say(&format!("{style}{build}{what}{style:#}{took}"))?;
        let dim = self.palette.dim;
        for (label, line) in self.story.report(outcome) {
            self.say(&format!("{dim}{label:>11}{dim:#}  {line}"))?;
        }
        for line in self.story.account.lines(COLUMNS, &self.palette) {
            self.say(&line)?;
        }
        Ok(())
    }
}

/// What an event of the farm says to people; none for those that say nothing.
pub(super) fn farm_line(event: &BuildEvent) -> Option<String> {
    let build = event.build;
    let job = format!("job {build}.{}", event.job);
    Some(match &event.kind {
        BuildEventKind::Queued => format!("build {build} is queued"),
        BuildEventKind::AttemptAccepted { agent_name } => {
            format!("build {build} runs on agent {}", sanitize(agent_name))
        }
        BuildEventKind::AttemptLost { reason, requeued } => {
            let then = if *requeued { "; it is queued again" } else { "" };
            format!("this attempt of build {build} is over: {}{then}", sanitize(reason))
        }
        BuildEventKind::CancelRequested { by } => {
            format!("build {build} is being canceled by {}", sanitize(by))
        }
        BuildEventKind::Planned { jobs } if jobs.len() < 2 => return None,
        BuildEventKind::Planned { jobs } => {
            let names: Vec<_> = (1..).zip(jobs).map(|(index, job)| named(build, index, &job.name)).collect();
            format!("build {build} has {} jobs: {}", jobs.len(), names.join(", "))
        }
        BuildEventKind::HandedBack { reason } => format!("{job} waits again: {}", sanitize(reason)),
        BuildEventKind::JobRetried { outcome, next, tries } => {
            format!("{job} is tried again ({next} of {tries}): {}", sanitize_lines(&outcome.to_string()))
        }
        BuildEventKind::JobStopped { reason } => format!("{job} is to end: {}", sanitize(reason)),
        BuildEventKind::JobEnded { outcome, allowed } => {
            let allowed = if *allowed { " (allowed)" } else { "" };
            format!("{job}: {}{allowed}", sanitize_lines(&outcome.to_string()))
        }
        BuildEventKind::CancelConfirmed { took, containers_removed } => {
            let removed = match containers_removed {
                Some(1) => ", 1 container removed".to_owned(),
                Some(count) => format!(", {count} containers removed"),
                None => String::new(),
            };
            format!("canceled in {}{removed}", text::duration(*took))
        }
        BuildEventKind::AgentSilent { agent_name, silent_for, lost_in } => format!(
            "agent {} has not been heard of for {}; {job} goes on there as far as anybody knows, and counts as lost in {}",
            sanitize(agent_name),
            text::duration(*silent_for),
            text::duration(*lost_in)
        ),
        BuildEventKind::AgentBack { agent_name, silent_for } => {
            format!("agent {} is back after {}", sanitize(agent_name), text::duration(*silent_for))
        }
        BuildEventKind::Job(_) | BuildEventKind::Finished(_) => return None,
    })
}

/// What is said of a container that one stage has for itself.
pub(super) fn container_line(stage: &StageName, image: &str, pull: std::time::Duration) -> String {
    let pulled = match pull.is_zero() {
        true => String::new(),
        false => format!(", pulled in {}", text::duration(pull)),
    };
    format!("{}: its container of {} is ready{pulled}", sanitize(stage), sanitize(image))
}

/// A job with its number and its name.
fn named(build: BuildId, index: u32, name: &str) -> String {
    format!("{build}.{index} {}", sanitize(name))
}

/// What is said of a log of which the end is missing.
pub(super) fn incomplete_line(log: &LogName, missing: u64) -> String {
    format!(
        "the log of {} is incomplete: its last {} were never delivered",
        sanitize(&log.owner()),
        text::bytes(missing)
    )
}

/// What is said when the connection breaks.
pub(super) fn lost_line(why: &str) -> String {
    format!("lost the connection to the orchestrator ({}); trying again", sanitize(why))
}

/// What is said when the connection is back.
pub(super) const BACK_LINE: &str = "connected again, nothing was lost";

impl<O: Write, E: Write> Renderer for Plain<O, E> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Item(Item::Output(output)) => self.output(output),
            Entry::Item(Item::Event(event)) => self.event(event),
            Entry::Farm(event) => self.farm(event),
            Entry::LogIncomplete { log, missing } => {
                self.end_of(log);
                let warn = self.palette.warn;
                self.say(&format!("{warn}warning:{warn:#} {}", incomplete_line(log, *missing)))
            }
            Entry::ConnectionLost { why } => self.say(&lost_line(why)),
            Entry::ConnectionBack => self.say(BACK_LINE),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        self.out.flush()
    }

    fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        self.say(text)
    }
}
