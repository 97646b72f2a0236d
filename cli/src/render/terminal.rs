//! The picture on a terminal: all output goes to the scrollback and stays there; below it stands
//! one status line, and above that the line that a build has not finished yet. The two are erased
//! and drawn again; nothing else ever moves the cursor, and the scrollback is never touched.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use buildr_engine::job::{Item, Output};
use buildr_manifest::{Event, EventKind, LogName, Outcome, StageName, StageState};
use buildr_proto::build::{BuildEvent, BuildEventKind};
use jiff::Timestamp;

use super::{
    Headline, Palette, Renderer,
    ended::{Ended, failed_try},
    escape::{Colours, Filter, sanitize, sanitize_lines},
    plain::{BACK_LINE, container_line, farm_line, incomplete_line, lost_line},
    pulls::Pulls,
    story::{Running, Story},
    text,
};
use crate::client::follow::Entry;

/// An unfinished line is broken here, so that memory stays bounded.
const LONGEST_LINE: usize = 64 << 10;

/// Text for the scrollback is written when there is so much of it, also without a pause.
const BUFFER: usize = 64 << 10;

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Tells how many columns the terminal has; asked before each drawing, as people resize windows.
pub type Size = Box<dyn Fn() -> usize>;

/// Tells the time.
pub type Clock = fn() -> Timestamp;

/// The renderer for terminals.
pub struct Terminal<O: Write> {
    out: O,
    columns: Size,
    clock: Clock,
    palette: Palette,
    story: Story,
    outputs: BTreeMap<LogName, LogOutput>,
    /// What goes to the scrollback with the next drawing.
    scroll: Vec<u8>,
    /// The widths of the lines that are drawn below the scrollback.
    drawn: Vec<usize>,
    /// What happens while no stage runs, and since when.
    phase: Option<(String, Timestamp)>,
    pulls: Pulls,
    /// The log whose unfinished line is shown.
    latest: Option<LogName>,
    spin: usize,
    scratch: Vec<u8>,
}

struct LogOutput {
    filter: Filter,
    unfinished: Vec<u8>,
}

impl<O: Write> Terminal<O> {
    /// Draws on `out`.
    pub fn new(out: O, columns: Size, clock: Clock, colour: bool, headline: Headline) -> Self {
        Self {
            out,
            columns,
            clock,
            palette: Palette::new(colour),
            story: Story::new(headline),
            outputs: BTreeMap::new(),
            scroll: Vec::new(),
            drawn: Vec::new(),
            phase: None,
            pulls: Pulls::default(),
            latest: None,
            spin: 0,
            scratch: Vec::new(),
        }
    }

    fn output(&mut self, output: &Output) -> io::Result<()> {
        let colours = if self.palette.bad == anstyle::Style::new() { Colours::Drop } else { Colours::Keep };
        let mut stage = self
            .outputs
            .remove(&output.log)
            .unwrap_or_else(|| LogOutput { filter: Filter::new(colours), unfinished: Vec::new() });
        let mut scratch = std::mem::take(&mut self.scratch);
        let clean = stage.filter.push(&output.data, &mut scratch);
        self.story.output(&output.log, clean);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', clean) {
            stage.unfinished.extend_from_slice(&clean[start..end]);
            self.scroll_line(&output.log, &stage.unfinished);
            stage.unfinished.clear();
            start = end + 1;
        }
        for piece in clean[start..].chunks(LONGEST_LINE) {
            stage.unfinished.extend_from_slice(piece);
            if stage.unfinished.len() >= LONGEST_LINE {
                self.scroll_line(&output.log, &stage.unfinished);
                stage.unfinished.clear();
            }
        }
        self.scratch = scratch;
        self.outputs.insert(output.log.clone(), stage);
        self.latest = Some(output.log.clone());
        if self.scroll.len() >= BUFFER { self.draw(false) } else { Ok(()) }
    }

    /// Puts a line of a build into the scrollback. Where several stages run, it says whose it is.
    fn scroll_line(&mut self, log: &LogName, line: &[u8]) {
        let prefix = self.prefix(log);
        self.scroll.extend_from_slice(prefix.as_bytes());
        let line = visible(line);
        match str::from_utf8(line) {
            Ok(_) => self.scroll.extend_from_slice(line),
            Err(_) => self.scroll.extend_from_slice(String::from_utf8_lossy(line).as_bytes()),
        }
        self.scroll.extend_from_slice(b"\r\n");
    }

    /// What stands before the lines of a log: whose they are, where that is not clear.
    fn prefix(&self, log: &LogName) -> String {
        if !self.story.must_name(log) {
            return String::new();
        }
        let style = self.palette.stage(self.story.index(log));
        format!("{style}[{}]{style:#} ", sanitize(&log.to_string()))
    }

    /// Puts a line of our own into the scrollback.
    fn line(&mut self, text: &str) {
        for line in text.lines() {
            self.scroll.extend_from_slice(line.as_bytes());
            self.scroll.extend_from_slice(b"\r\n");
        }
    }

    fn end_line(&mut self, log: &LogName) {
        let Some(mut output) = self.outputs.remove(log) else { return };
        output.unfinished.extend(output.filter.finish());
        if !output.unfinished.is_empty() {
            self.scroll_line(log, &output.unfinished);
        }
    }

    /// Writes what is for the scrollback, and the lines below it where they are wanted.
    fn draw(&mut self, with_status: bool) -> io::Result<()> {
        let columns = (self.columns)().max(1);
        let mut frame = self.erasure(columns);
        frame.append(&mut self.scroll);
        if with_status {
            self.draw_below(columns, &mut frame);
        }
        if frame.is_empty() {
            return Ok(());
        }
        self.out.write_all(&frame)?;
        self.out.flush()
    }

    /// What takes away the drawn lines. In a window that became narrower they may be wrapped.
    fn erasure(&mut self, columns: usize) -> Vec<u8> {
        let rows: usize = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        self.drawn.clear();
        match rows {
            0 => Vec::new(),
            1 => b"\r\x1b[J".to_vec(),
            _ => format!("\x1b[{}A\r\x1b[J", rows - 1).into_bytes(),
        }
    }

    fn draw_below(&mut self, columns: usize, frame: &mut Vec<u8>) {
        // One column stays free: a terminal that has filled its last one is in doubt where its cursor is.
        let room = columns.saturating_sub(1);
        let Some(status) = self.status(room) else { return };
        if let Some(line) = self.unfinished() {
            let line = text::fit(&line, room);
            self.drawn.push(text::width(&line));
            frame.extend_from_slice(line.as_bytes());
            frame.extend_from_slice(b"\r\n");
        }
        let status = text::fit(&status, room);
        self.drawn.push(text::width(&status));
        let dim = self.palette.dim;
        frame.extend_from_slice(format!("{dim}{status}{dim:#}").as_bytes());
    }

    /// The unfinished line that was written to last, with its owner where several run.
    fn unfinished(&self) -> Option<String> {
        let log = self.latest.as_ref()?;
        let line = sanitize(&String::from_utf8_lossy(visible(&self.outputs.get(log)?.unfinished)));
        let owner = if self.story.must_name(log) {
            format!("[{}] ", sanitize(&log.to_string()))
        } else {
            String::new()
        };
        (!line.is_empty()).then(|| format!("{owner}{line}"))
    }

    fn status(&self, room: usize) -> Option<String> {
        let spinner = SPINNER[self.spin % SPINNER.len()];
        let words = match self.story.running.len() {
            0 => match (self.pulls.words(), &self.phase) {
                (Some((words, since)), _) => format!("{words} · {}", self.elapsed(since)),
                (None, Some((phase, since))) => format!("{phase} · {}", self.elapsed(*since)),
                (None, None) => return None,
            },
            1 => self.one_stage()?,
            _ => self.several_stages(room.saturating_sub(2)),
        };
        Some(format!("{spinner} {words}"))
    }

    fn elapsed(&self, since: Timestamp) -> String {
        text::duration((self.clock)().duration_since(since).try_into().unwrap_or_default())
    }

    fn one_stage(&self) -> Option<String> {
        let (stage, running) = self.story.running.iter().next()?;
        let place = self.story.place(stage).map_or(String::new(), |place| format!(" {place}"));
        let now = match (&running.step, running.paused) {
            (_, Some(until)) => {
                let left = until.duration_since((self.clock)()).try_into().unwrap_or_default();
                format!(" · next try in {}", text::duration(left))
            }
            (Some((step, command)), None) => format!(" · step {} · {command}", step + 1),
            (None, None) => String::new(),
        };
        let pulls = self.pulls.words().map_or(String::new(), |(words, _)| format!(" · {words}"));
        Some(format!("{}{place} · {}{now}{pulls}", sanitize(stage), self.elapsed(running.since)))
    }

    /// As many stages with their times as fit, the one that has run longest first.
    fn several_stages(&self, room: usize) -> String {
        let mut running: Vec<_> = self.story.running.iter().collect();
        running.sort_by_key(|(_, running)| running.since);
        let one = |(stage, running): &(&StageName, &Running)| {
            let wait = if running.paused.is_some() { " waits" } else { "" };
            format!("{} {}{wait}", sanitize(stage), self.elapsed(running.since))
        };
        let parts: Vec<String> = running.iter().map(one).collect();
        let pulls = self.pulls.words().map(|(words, _)| words);
        let all: Vec<&str> = parts.iter().chain(&pulls).map(String::as_str).collect();
        for shown in (1..=all.len()).rev() {
            let more = parts.len().saturating_sub(shown);
            let rest = if more > 0 { format!(" · +{more}") } else { String::new() };
            let words = format!("{}{rest}", all[..shown].join(" · "));
            if text::width(&words) <= room {
                return words;
            }
        }
        format!("{} stages", parts.len())
    }

    fn phase(&mut self, text: impl Into<String>, at: Timestamp) {
        self.phase = Some((text.into(), at));
    }

    fn event(&mut self, event: &Event) {
        let at = event.at;
        // An unfinished line ends as one of the stages that ran until now.
        if let Some((stage, _)) = event.kind.position() {
            self.end_line(&stage.clone().into());
        }
        self.story.event(event);
        let Palette { dim, strong, warn, .. } = self.palette;
        match &event.kind {
            EventKind::JobStarted => {
                self.outputs.clear();
                self.pulls = Pulls::default();
                self.phase("getting the source", at);
            }
            EventKind::SourceResolved { commit, branch, tag } => {
                if let Some(commit) = commit {
                    let line = tag.as_ref().or(branch.as_ref());
                    let of = line.map_or(String::new(), |line| format!(" of {}", sanitize(line)));
                    self.line(&format!("{dim}commit {}{of}{dim:#}", sanitize(text::short_commit(commit))));
                }
                self.phase("reading the manifest", at);
            }
            EventKind::Planned { image, .. } => self.phase(format!("container of {}", sanitize(image)), at),
            EventKind::Warning { message } => {
                self.line(&format!("{warn}warning:{warn:#} {}", sanitize_lines(message)));
            }
            EventKind::PullProgress { image, current, total } => {
                self.pulls.progress(image, *current, *total, at);
            }
            EventKind::SourceReady { .. } => self.phase("the source is here", at),
            EventKind::ServiceReady { service, image, took, .. } => {
                self.pulls.done(image);
                self.line(&format!("{dim}service {service} is ready after {}{dim:#}", text::duration(*took)));
            }
            EventKind::ContainerReady { stage: None, image, .. } => {
                self.pulls.done(image);
                self.phase("container is ready", at);
            }
            EventKind::ContainerReady { stage: Some(stage), image, pull, .. } => {
                self.pulls.done(image);
                self.line(&format!("{dim}{}{dim:#}", container_line(stage, image, *pull)));
            }
            EventKind::StageRetried { stage, attempt, attempts, state, pause, .. } => {
                let failed = failed_try(*attempt, *attempts, state, *pause);
                self.line(&format!("{warn}! {}: {failed}{warn:#}", sanitize(stage)));
            }
            EventKind::StageStarted { stage } => {
                self.line(&format!("{strong}▸ {}{strong:#}", sanitize(stage)));
            }
            EventKind::StepStarted { stage, command, .. } => {
                let prefix = self.prefix(&stage.clone().into());
                for (index, line) in command.trim_end().lines().enumerate() {
                    let sign = if index == 0 { '$' } else { '>' };
                    self.line(&format!("{prefix}{dim}{sign} {}{dim:#}", sanitize(line)));
                }
            }
            EventKind::StageFinished { stage, state, allowed, duration, usage, .. } => {
                let (duration, peak_memory) = (*duration, usage.peak_memory);
                self.fold(stage, Ended { state, allowed: *allowed, duration, peak_memory });
                self.phase("cleaning up", at);
            }
            EventKind::JobFinished { outcome, duration, .. } => {
                self.phase("waiting for the orchestrator's word", at);
                if self.story.headline.build.is_none() {
                    self.result(outcome, &format!(" in {}", text::duration(*duration)));
                }
            }
        }
    }

    /// The one line that a stage leaves behind.
    fn fold(&mut self, stage: &StageName, ended: Ended<'_>) {
        let dim = self.palette.dim;
        let (style, mark) = ended.mark(&self.palette);
        let name = sanitize(stage);
        self.line(&match ended.state {
            StageState::Passed => {
                format!("{style}{mark}{style:#} {name} {dim}{}{dim:#}", text::duration(ended.duration))
            }
            StageState::Skipped { .. } | StageState::NotReached { .. } => {
                format!("{style}{mark} {name} {}{style:#}", ended.words())
            }
            _ => format!("{style}{mark}{style:#} {name} {}", ended.words()),
        });
    }

    fn farm(&mut self, event: &BuildEvent) {
        match &event.kind {
            BuildEventKind::Finished(outcome) => {
                let logs: Vec<_> = self.outputs.keys().cloned().collect();
                logs.iter().for_each(|log| self.end_line(log));
                self.result(outcome, "");
            }
            BuildEventKind::Queued => {
                self.phase(format!("build {} waits for an agent", event.build), event.at)
            }
            BuildEventKind::AttemptAccepted { agent_name } => {
                self.phase(format!("agent {} begins", sanitize(agent_name)), event.at);
            }
            _ => {
                if let Some(line) = farm_line(event) {
                    self.line(&line);
                }
            }
        }
    }

    /// The end: no status any more, the result, and what helps after a failure.
    fn result(&mut self, outcome: &Outcome, took: &str) {
        self.phase = None;
        self.story.running.clear();
        let Palette { dim, good, bad, .. } = self.palette;
        let build = self.story.headline.build.map_or(String::new(), |build| format!("build {build} "));
        let what = sanitize_lines(&outcome.to_string());
        if outcome.is_success() {
            self.line(&format!("{good}✓ {build}{what}{good:#}{dim}{took}{dim:#}"));
        } else {
            self.line(&format!("{bad}✗ {build}{what}{bad:#}"));
        }
        for (label, line) in self.story.report(outcome) {
            self.line(&format!("{dim}{label:>11}{dim:#}  {line}"));
        }
        let columns = (self.columns)().saturating_sub(1);
        for line in self.story.account.lines(columns, &self.palette) {
            self.line(&line);
        }
    }
}

/// What a terminal would show of a line in which carriage returns overwrite its beginning.
fn visible(line: &[u8]) -> &[u8] {
    line.rsplit(|&byte| byte == b'\r').find(|part| !part.is_empty()).unwrap_or_default()
}

impl<O: Write> Renderer for Terminal<O> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let warn = self.palette.warn;
        match entry {
            Entry::Item(Item::Output(output)) => return self.output(output),
            Entry::Item(Item::Event(event)) => self.event(event),
            Entry::Farm(event) => self.farm(event),
            Entry::LogIncomplete { log, missing } => {
                self.end_line(log);
                self.line(&format!("{warn}warning:{warn:#} {}", incomplete_line(log, *missing)));
            }
            Entry::ConnectionLost { why } => self.line(&format!("{warn}{}{warn:#}", lost_line(why))),
            Entry::ConnectionBack => self.line(&format!("{warn}{BACK_LINE}{warn:#}")),
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        if self.scroll.is_empty() && self.status(0).is_none() && self.drawn.is_empty() {
            return Ok(());
        }
        self.draw(true)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.spin += 1;
        self.settle()
    }

    fn notice(&mut self, text: &str) -> io::Result<()> {
        self.line(text);
        self.settle()
    }
}

impl<O: Write> Drop for Terminal<O> {
    /// Leaves no status line behind, also where an error ended the command.
    fn drop(&mut self) {
        let frame = self.erasure((self.columns)().max(1));
        let _ = self.out.write_all(&frame).and_then(|()| self.out.flush());
    }
}
