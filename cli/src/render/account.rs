//! What a job took and what its stages used up, as a table. Only what is known is shown, and only as
//! many columns as there is room for.

use std::time::Duration;

use buildr_manifest::{Event, EventKind, StageName, StageState, Usage};
use buildr_proto::{
    build::{Job, Stage, StageProgress},
    times::{JobTimes, Stopwatch},
};

use super::{Palette, escape::sanitize, text};

/// Names of stages are cut after so many columns.
const LONGEST_NAME: usize = 24;

/// What became known so far.
#[derive(Debug, Default)]
pub struct Account {
    /// The stages that ran, in the order in which they ended.
    pub stages: Vec<StageAccount>,
    /// Where the job's time went.
    pub times: JobTimes,
    watch: Stopwatch,
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

impl Account {
    /// That of a job as it stands.
    pub fn of(job: &Job) -> Self {
        let ended = |stage: &Stage| match &stage.progress {
            StageProgress::Finished(state) if ran(state) => Some(StageAccount {
                name: stage.name.clone(),
                state: state.clone(),
                duration: stage.duration,
                log_bytes: stage.log_bytes,
                usage: stage.usage,
            }),
            _ => None,
        };
        let stages = job.stages.iter().filter_map(ended).collect();
        Self { stages, times: job.times, watch: Stopwatch::default() }
    }

    /// Takes an event in.
    pub(super) fn event(&mut self, event: &Event) {
        self.watch.event(event);
        self.times = self.watch.times();
        if let EventKind::StageFinished { stage, state, log_bytes, duration, usage, .. } = &event.kind
            && ran(state)
        {
            self.stages.push(StageAccount {
                name: stage.clone(),
                state: state.clone(),
                duration: *duration,
                log_bytes: *log_bytes,
                usage: *usage,
            });
        }
    }

    /// The table, line by line without line breaks, on at most so many columns.
    pub fn lines(&self, columns: usize, palette: &Palette) -> Vec<String> {
        if self.stages.is_empty() {
            return Vec::new();
        }
        let mut lines = table(self.columns(), columns, palette);
        lines.extend(words(&self.times).map(|words| {
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

/// As `source 1.2s · pull 3.4s · start 0.2s · run 1m02s`.
fn words(times: &JobTimes) -> Option<String> {
    let parts = [("source", times.source), ("pull", times.pull), ("start", times.start), ("run", times.run)];
    let known = parts.iter().filter_map(|(name, time)| time.map(|time| (name, time)));
    let words: Vec<_> = known.map(|(name, time)| format!("{name} {}", text::duration(time))).collect();
    (!words.is_empty()).then(|| words.join(" · "))
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
