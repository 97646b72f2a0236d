//! What a job took and what its stages used up, as a table. Only what is known is shown, and only as
//! many columns as there is room for.

use std::time::Duration;

use buildr_manifest::{EventKind, StageName, StageState, Usage};
use jiff::Timestamp;

use super::{Palette, escape::sanitize, text};

/// Names of stages are cut after so many columns.
const LONGEST_NAME: usize = 24;

/// What became known so far.
#[derive(Debug, Default)]
pub struct Account {
    /// The stages that ran, in the order in which they ended.
    pub stages: Vec<StageAccount>,
    /// Where the job's time went.
    pub times: Times,
}

/// A stage that ran.
#[derive(Clone, Debug)]
pub struct StageAccount {
    /// Its name.
    pub name: StageName,
    /// How it ended.
    pub state: StageState,
    /// How long it ran.
    pub duration: Duration,
    /// The length of its log in bytes.
    pub log_bytes: u64,
    /// What it used up.
    pub usage: Usage,
}

/// Where a job's time went, as far as it is known. The parts may overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Fetching and checking out.
    pub source: Option<Duration>,
    /// Pulling the image of the build container.
    pub pull: Option<Duration>,
    /// Making and starting the build container.
    pub start: Option<Duration>,
    /// From the first stage's begin to the last one's end.
    pub run: Option<Duration>,
    began: Option<Timestamp>,
}

impl Account {
    /// Takes an event in.
    pub(super) fn event(&mut self, kind: &EventKind, at: Timestamp) {
        match kind {
            EventKind::SourceReady { took } => self.times.source = Some(*took),
            EventKind::ContainerReady { stage: None, pull, start, .. } => {
                // An image that was here before was not pulled.
                self.times.pull = Some(*pull).filter(|pull| !pull.is_zero());
                self.times.start = Some(*start);
            }
            EventKind::StageStarted { .. } => {
                self.times.began.get_or_insert(at);
            }
            EventKind::StageFinished { stage, state, log_bytes, duration, usage, .. } if ran(state) => {
                let began = self.times.began.unwrap_or(at);
                self.times.run = at.duration_since(began).try_into().ok();
                self.stages.push(StageAccount {
                    name: stage.clone(),
                    state: state.clone(),
                    duration: *duration,
                    log_bytes: *log_bytes,
                    usage: *usage,
                });
            }
            _ => {}
        }
    }

    /// The table, line by line without line breaks, on at most so many columns.
    pub fn lines(&self, columns: usize, palette: &Palette) -> Vec<String> {
        if self.stages.is_empty() {
            return Vec::new();
        }
        let mut lines = table(self.columns(), columns, palette);
        lines.extend(self.times.words().map(|words| {
            let dim = palette.dim;
            format!("{dim}{}{dim:#}", text::fit(&words, columns))
        }));
        lines
    }

    /// The columns of which anything is known: the heading, then a cell per stage.
    fn columns(&self) -> Vec<Vec<String>> {
        let column = |heading: &str, cell: fn(&StageAccount) -> Option<String>| {
            let cells: Vec<_> = self.stages.iter().map(cell).collect();
            cells.iter().any(Option::is_some).then(|| {
                let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
                std::iter::once(heading.to_owned()).chain(cells).collect()
            })
        };
        let columns = [
            column("stage", |stage| Some(text::fit(&sanitize(&stage.name), LONGEST_NAME))),
            column("state", |stage| Some(stage.state.word().replace('_', " "))),
            column("time", |stage| Some(text::duration(stage.duration))),
            column("cpu", |stage| {
                let cpu = stage.usage.user_cpu + stage.usage.system_cpu;
                (!cpu.is_zero()).then(|| text::duration(cpu))
            }),
            column("memory", |stage| memory(&stage.usage).map(text::memory)),
            column("log", |stage| (stage.log_bytes > 0).then(|| text::bytes(stage.log_bytes))),
            column("received", |stage| stage.usage.network_received.map(text::bytes)),
            column("sent", |stage| stage.usage.network_sent.map(text::bytes)),
        ];
        columns.into_iter().flatten().collect()
    }
}

impl Times {
    /// As `source 1.2s · pull 3.4s · start 0.2s · run 1m02s`.
    fn words(&self) -> Option<String> {
        let parts = [("source", self.source), ("pull", self.pull), ("start", self.start), ("run", self.run)];
        let known = parts.iter().filter_map(|(name, time)| time.map(|time| (name, time)));
        let words: Vec<_> = known.map(|(name, time)| format!("{name} {}", text::duration(time))).collect();
        (!words.is_empty()).then(|| words.join(" · "))
    }
}

/// A stage that began; the others used nothing up.
fn ran(state: &StageState) -> bool {
    !matches!(state, StageState::Skipped { .. } | StageState::NotReached { .. })
}

/// Its container's peak where that is known, else its largest process.
fn memory(usage: &Usage) -> Option<u64> {
    usage.peak_memory.or(Some(usage.max_rss).filter(|bytes| *bytes > 0))
}

/// Lines of aligned columns, texts to the left and numbers to the right. Where there is no room for
/// all, the last ones are left out.
fn table(columns: Vec<Vec<String>>, room: usize, palette: &Palette) -> Vec<String> {
    const GAP: usize = 2;
    let mut left = room + GAP;
    let mut widths = Vec::new();
    for column in &columns {
        let width = column.iter().map(|cell| text::width(cell)).max().unwrap_or(0);
        if width + GAP > left {
            break;
        }
        left -= width + GAP;
        widths.push(width);
    }
    let rows = columns.first().map_or(0, Vec::len);
    let line = |row: usize| {
        let cells = widths.iter().zip(&columns).enumerate().map(|(index, (width, column))| {
            let padding = " ".repeat(width - text::width(&column[row]));
            if index < 2 { format!("{}{padding}", column[row]) } else { format!("{padding}{}", column[row]) }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let dim = palette.dim;
    let heading = (rows > 0 && !widths.is_empty()).then(|| format!("{dim}{}{dim:#}", line(0)));
    let body = (1..rows).filter(|_| !widths.is_empty()).map(line);
    heading.into_iter().chain(body).collect()
}
