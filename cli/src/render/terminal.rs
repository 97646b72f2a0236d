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
    escape::{Colours, Filter, sanitize, sanitize_lines},
    plain::{BACK_LINE, farm_line, incomplete_line, lost_line},
    story::{Story, stage_end},
    text,
};
use crate::client::follow::{Entry, is_failure};

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
        if self.story.running.len() > 1 || log.service().is_some() {
            let dim = self.palette.dim;
            self.scroll
                .extend_from_slice(format!("{dim}[{}]{dim:#} ", sanitize(&log.to_string())).as_bytes());
        }
        let line = visible(line);
        match str::from_utf8(line) {
            Ok(_) => self.scroll.extend_from_slice(line),
            Err(_) => self.scroll.extend_from_slice(String::from_utf8_lossy(line).as_bytes()),
        }
        self.scroll.extend_from_slice(b"\r\n");
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
        let Some(status) = self.status() else { return };
        let unfinished = self
            .latest
            .as_ref()
            .and_then(|stage| self.outputs.get(stage))
            .map(|output| sanitize(&String::from_utf8_lossy(visible(&output.unfinished))))
            .filter(|line| !line.is_empty());
        // One column stays free: a terminal that has filled its last one is in doubt where its cursor is.
        let room = columns.saturating_sub(1);
        if let Some(line) = unfinished {
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

    fn status(&self) -> Option<String> {
        let spinner = SPINNER[self.spin % SPINNER.len()];
        let elapsed = |since: Timestamp| {
            let elapsed = (self.clock)().duration_since(since);
            text::duration(elapsed.try_into().unwrap_or_default())
        };
        if let Some((stage, running)) = self.story.running.iter().next() {
            let more = match self.story.running.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let place = self.story.place(stage).map_or(String::new(), |place| format!(" {place}"));
            let step = match &running.step {
                Some((step, command)) => format!(" · step {} · {command}", step + 1),
                None => String::new(),
            };
            let elapsed = elapsed(running.since);
            return Some(format!("{spinner} {}{place}{more} · {elapsed}{step}", sanitize(stage)));
        }
        let (phase, since) = self.phase.as_ref()?;
        Some(format!("{spinner} {phase} · {}", elapsed(*since)))
    }

    fn phase(&mut self, text: impl Into<String>, at: Timestamp) {
        self.phase = Some((text.into(), at));
    }

    fn event(&mut self, event: &Event) {
        let at = event.at;
        self.story.event(&event.kind, at);
        let Palette { dim, strong, warn, .. } = self.palette;
        match &event.kind {
            EventKind::JobStarted => {
                self.outputs.clear();
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
            EventKind::PullProgress { image, current, total } => self.pulling(image, *current, *total, at),
            EventKind::SourceReady { .. } => self.phase("the source is here", at),
            EventKind::ServiceReady { service, .. } => {
                self.phase(format!("service {} is ready", sanitize(service)), at);
            }
            EventKind::ContainerReady { .. } => self.phase("container is ready", at),
            EventKind::StageRetried { stage, attempt, attempts, .. } => {
                self.end_line(&stage.clone().into());
                let tries = format!("try {attempt} of {attempts} failed, another one follows");
                self.line(&format!("{warn}{}: {tries}{warn:#}", sanitize(stage)));
            }
            EventKind::StageStarted { stage } => {
                self.line(&format!("{strong}▸ {}{strong:#}", sanitize(stage)));
            }
            EventKind::StepStarted { stage, command, .. } => {
                self.end_line(&stage.clone().into());
                for (index, line) in command.trim_end().lines().enumerate() {
                    let sign = if index == 0 { '$' } else { '>' };
                    self.line(&format!("{dim}{sign} {}{dim:#}", sanitize(line)));
                }
            }
            EventKind::StageFinished { stage, state, duration, .. } => {
                self.end_line(&stage.clone().into());
                self.fold(stage, state, *duration);
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

    fn pulling(&mut self, image: &str, current: u64, total: u64, at: Timestamp) {
        let so_far = match total {
            0 => text::bytes(current),
            total => format!("{} of {}", text::bytes(current), text::bytes(total)),
        };
        let what = format!("pulling image {}, {so_far}", sanitize(image));
        let since = match &self.phase {
            Some((phase, since)) if phase.starts_with("pulling") => *since,
            _ => at,
        };
        self.phase = Some((what, since));
    }

    /// The one line that a stage leaves behind.
    fn fold(&mut self, stage: &StageName, state: &StageState, duration: std::time::Duration) {
        let Palette { dim, good, bad, .. } = self.palette;
        let name = sanitize(stage);
        let line = match state {
            StageState::Passed => format!("{good}✓{good:#} {name} {dim}{}{dim:#}", text::duration(duration)),
            state if is_failure(state) => format!("{bad}✗{bad:#} {name} {}", stage_end(state, duration)),
            state => format!("{dim}- {name} {}{dim:#}", stage_end(state, duration)),
        };
        self.line(&line);
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
        if self.scroll.is_empty() && self.status().is_none() && self.drawn.is_empty() {
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
