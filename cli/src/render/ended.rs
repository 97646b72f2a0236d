//! How a stage, or a try of it, ended: one sentence and one mark, the same wherever it is shown.

use std::time::Duration;

use anstyle::Style;
use buildr_manifest::StageState;

use super::{Palette, escape::sanitize, text};
use crate::client::follow::is_failure;

/// The end of a stage.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// How.
    pub state: &'a StageState,
    /// It failed as the manifest allows.
    pub allowed: bool,
    /// How long it ran.
    pub duration: Duration,
    /// The most memory that its container had in use, where that is known.
    pub peak_memory: Option<u64>,
}

impl Ended<'_> {
    /// As `passed in 1m02s`.
    pub fn words(&self) -> String {
        let took = text::duration(self.duration);
        let words = match self.state {
            StageState::Passed => format!("passed in {took}"),
            StageState::Failed { step, cause } => match step {
                Some(step) => format!("failed in {took} at step {}: {cause}", step + 1),
                None => format!("failed in {took}: {cause}"),
            },
            StageState::Oom => match self.peak_memory {
                Some(peak) => format!("out of memory after {took}, with {} in use", text::memory(peak)),
                None => format!("out of memory after {took}"),
            },
            StageState::TimedOut => format!("timed out after {took}"),
            StageState::Canceled => format!("canceled after {took}"),
            StageState::Skipped { why } => format!("skipped: {}", sanitize(why)),
            StageState::NotReached { because: Some(stage) } => {
                format!("not reached: stage {} did not pass", sanitize(stage))
            }
            StageState::NotReached { because: None } => "not reached".to_owned(),
        };
        if self.is_allowed_failure() { format!("{words}; it is allowed to fail") } else { words }
    }

    /// The mark of its line, and the style of that.
    pub fn mark(&self, palette: &Palette) -> (Style, char) {
        match self.state {
            StageState::Passed => (palette.good, '✓'),
            _ if self.is_allowed_failure() => (palette.warn, '!'),
            state if is_failure(state) => (palette.bad, '✗'),
            _ => (palette.dim, '-'),
        }
    }

    fn is_allowed_failure(&self) -> bool {
        self.allowed && is_failure(self.state)
    }
}

/// A try that failed, of which the next one follows: `try 1 of 3 failed: exit code 42; next in 5s`.
pub(super) fn failed_try(attempt: u32, attempts: u32, state: &StageState, pause: Duration) -> String {
    let why = match state {
        StageState::Failed { cause, .. } => cause.to_string(),
        StageState::Oom => "out of memory".to_owned(),
        StageState::TimedOut => "timed out".to_owned(),
        state => state.word().replace('_', " "),
    };
    let next = if pause.is_zero() { "at once".to_owned() } else { format!("in {}", text::duration(pause)) };
    format!("try {attempt} of {attempts} failed: {why}; next {next}")
}
