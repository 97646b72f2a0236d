//! How much of what comes up from a container is believed: a build with root can write reports of
//! its own, and none of them may cost more than an honest one.

use buildr_init::wire::{EndCause, StageStatus};

/// The longest explanation, in characters.
const MAX_REASON: usize = 1000;

/// The most complaints about files; init sends no more.
const MAX_COMPLAINTS: usize = 10;

/// What a job's stages can truly have.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    /// The number of steps of each stage.
    pub(crate) steps: Vec<usize>,
    /// The longest log of a stage, in bytes.
    pub(crate) log: u64,
}

impl Bounds {
    /// Cuts a report down to what can be; none where there is no such stage.
    pub(super) fn stage(&self, mut news: StageStatus) -> Option<StageStatus> {
        let steps = *self.steps.get(usize::try_from(news.stage).ok()?)?;
        news.steps.truncate(steps);
        news.steps.shrink_to_fit();
        news.log_bytes = news.log_bytes.min(self.log);
        if let Some(EndCause::LogFailed { reason } | EndCause::CannotStart { reason, .. }) =
            news.end.as_mut().map(|end| &mut end.cause)
        {
            *reason = one_line(reason);
        }
        Some(news)
    }
}

/// Cuts what is said of files down.
pub(super) fn complaints(errors: Vec<String>) -> Vec<String> {
    errors.iter().take(MAX_COMPLAINTS).map(|error| one_line(error)).collect()
}

fn one_line(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
