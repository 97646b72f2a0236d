//! What a renderer has to remember of a build: where it stands, and what is to be said at its end.
//! Bounded, however long the build is.

use std::collections::BTreeMap;

use buildr_manifest::{Event, EventKind, LogName, Outcome, StageName, StageState};
use jiff::Timestamp;

use super::{
    Headline,
    account::Account,
    text::{self, quote},
};
use crate::{client::follow::is_failure, render::escape::sanitize};

/// So much of the end of a step's output is kept.
const TAIL_BYTES: usize = 16 << 10;

/// So many lines of it are shown once more after a failure.
const TAIL_LINES: usize = 15;

/// A line of the repeated output is cut after so many characters.
const TAIL_COLUMNS: usize = 500;

/// The memory of one build.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// What was known beforehand.
    pub(super) headline: Headline,
    /// All stages, once they are known.
    pub(super) planned: Vec<StageName>,
    /// The stages that run now.
    pub(super) running: BTreeMap<StageName, Running>,
    /// What was used up so far.
    pub(super) account: Account,
    failures: Vec<Failure>,
    commit: Option<String>,
}

/// A stage that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// By the clock of its machine.
    pub(super) since: Timestamp,
    /// The step's index and its command, in one clean line.
    pub(super) step: Option<(u32, String)>,
    /// It waits until then to be tried again.
    pub(super) paused: Option<Timestamp>,
    tail: Vec<u8>,
}

#[derive(Debug)]
struct Failure {
    stage: StageName,
    command: Option<String>,
    tail: Vec<u8>,
}

impl Story {
    pub(super) fn new(headline: Headline) -> Self {
        Self { headline, ..Self::default() }
    }

    /// Takes an event in.
    pub(super) fn event(&mut self, event: &Event) {
        let at = event.at;
        match &event.kind {
            // Another attempt begins anew.
            EventKind::JobStarted => {
                *self = Self::new(std::mem::take(&mut self.headline));
            }
            EventKind::SourceResolved { commit, .. } => self.commit.clone_from(commit),
            EventKind::Planned { stages, .. } => self.planned.clone_from(stages),
            EventKind::StageStarted { stage } => {
                let running = Running { since: at, step: None, paused: None, tail: Vec::new() };
                self.running.insert(stage.clone(), running);
            }
            EventKind::StepStarted { stage, step, command, .. } => {
                if let Some(running) = self.running.get_mut(stage) {
                    running.step = Some((*step, command_line(command)));
                    running.paused = None;
                    running.tail.clear();
                }
            }
            EventKind::StageRetried { stage, pause, .. } => {
                if let Some(running) = self.running.get_mut(stage) {
                    running.paused = Some(at + *pause);
                }
            }
            EventKind::StageFinished { stage, state, .. } => self.stage_finished(stage, state),
            _ => {}
        }
        self.account.event(event);
    }

    fn stage_finished(&mut self, stage: &StageName, state: &StageState) {
        let Some(running) = self.running.remove(stage) else { return };
        if is_failure(state) {
            let command = running.step.map(|(_, command)| command);
            self.failures.push(Failure { stage: stage.clone(), command, tail: running.tail });
        }
    }

    /// Takes clean output in, to have its end at hand.
    pub(super) fn output(&mut self, log: &LogName, clean: &[u8]) {
        let Some(running) = log.stage().and_then(|stage| self.running.get_mut(stage)) else { return };
        let keep = TAIL_BYTES.saturating_sub(clean.len());
        let drop = running.tail.len().saturating_sub(keep);
        // In bulk output the old tail is dropped as a whole; in small pieces it may grow a little first.
        if keep == 0 || drop > TAIL_BYTES / 2 {
            running.tail.drain(..drop);
        }
        running.tail.extend_from_slice(&clean[clean.len().saturating_sub(TAIL_BYTES)..]);
    }

    /// The place of a log's owner in the plan, from 0; services come after the stages.
    pub(super) fn index(&self, log: &LogName) -> usize {
        let place = self.planned.iter().position(|planned| log.is_of(planned));
        place.unwrap_or(self.planned.len())
    }

    /// True where lines must say whose they are, as several stages run or it is no stage's.
    pub(super) fn must_name(&self, log: &LogName) -> bool {
        self.running.len() > 1 || log.service().is_some()
    }

    /// The place of a stage in the plan, as `2/5`.
    pub(super) fn place(&self, stage: &StageName) -> Option<String> {
        let index = self.planned.iter().position(|planned| planned == stage)?;
        Some(format!("{}/{}", index + 1, self.planned.len()))
    }

    /// What is to be said below the result of a failed build: label and text, line by line.
    pub(super) fn report(&self, outcome: &Outcome) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if outcome.is_success() {
            return lines;
        }
        let stage = match outcome {
            Outcome::Failed { stage, .. } | Outcome::Oom { stage, .. } => Some(stage),
            Outcome::TimedOut { stage, .. } => stage.as_ref(),
            _ => None,
        };
        if let Some(failure) = self.failures.iter().find(|failure| Some(&failure.stage) == stage) {
            if let Some(command) = &failure.command {
                lines.push(("command", command.clone()));
            }
            let mut label = "output";
            for line in last_lines(&failure.tail) {
                lines.push((std::mem::take(&mut label), line));
            }
        }
        if let (Some(command), Some(_)) = (&self.headline.reproduce, stage) {
            lines.push(("reproduce", self.reproduce(command)));
            lines.extend(stage.and_then(|stage| self.narrower(command, stage)).map(|text| ("", text)));
        }
        lines
    }

    /// What does it without the stages before it, where there are any that could be left out.
    fn narrower(&self, command: &str, stage: &StageName) -> Option<String> {
        let narrowed = ["--stage ", "--from "].iter().any(|flag| command.contains(flag));
        let mut before = self.planned.iter().take_while(|planned| *planned != stage);
        let leaves_out = before.any(|planned| &**planned != StageName::PREPARE);
        (leaves_out && !narrowed)
            .then(|| format!("with --stage {} that stage alone", quote(&sanitize(stage))))
    }

    /// A local run was of what lies in the folder; a farm's was of a commit.
    fn reproduce(&self, command: &str) -> String {
        match (&self.commit, self.headline.build) {
            (Some(commit), Some(_)) => {
                format!("git checkout {} && {command}", quote(&sanitize(text::short_commit(commit))))
            }
            _ => command.to_owned(),
        }
    }
}

/// The first line of a command, clean, with a mark where there are more.
fn command_line(command: &str) -> String {
    let mut lines = command.trim_end().lines();
    let first = sanitize(lines.next().unwrap_or_default());
    if lines.next().is_some() { format!("{first} …") } else { first }
}

fn last_lines(tail: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<_> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines[from..]
        .iter()
        .map(|line| line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or_default())
        .map(|line| text::fit(&sanitize(line), TAIL_COLUMNS))
        .collect()
}
