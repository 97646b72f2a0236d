//! What the end of a stage means for the stage and for the job. Pure: no clock, no container.

use std::time::Duration;

use buildr_init::wire::{EndCause, StageEnd};
use buildr_manifest::{Cause, Outcome, StageName, StagePlan, StageState};

/// What wanted a job to end before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Somebody asked for it.
    Canceled { by: String },
    /// The job's time was up.
    TimedOut { limit: Duration },
}

impl Interrupt {
    /// The job's outcome; `stage` is the one that was running.
    pub(crate) fn outcome(&self, stage: Option<&StageName>) -> Outcome {
        match self {
            Self::Canceled { by } => Outcome::Canceled { by: by.clone() },
            Self::TimedOut { limit } => Outcome::TimedOut { stage: stage.cloned(), limit: *limit },
        }
    }

    fn state(&self) -> StageState {
        match self {
            Self::Canceled { .. } => StageState::Canceled,
            Self::TimedOut { .. } => StageState::TimedOut,
        }
    }
}

/// How a stage was seen to end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// Init told so.
    Reported(StageEnd),
    /// The container ended under it.
    Died {
        /// The kernel ended it for want of memory.
        oom: bool,
    },
    /// Its files in the control directory are not what init wrote.
    Damaged { message: String },
    /// The machine under it failed: Docker is gone, the container cannot be asked.
    Lost { message: String },
}

/// A stage's end as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Observed {
    pub(crate) ending: Ending,
    /// The step that was running, where one had begun.
    pub(crate) step: Option<u32>,
}

/// What the end of a stage means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// For the stage.
    pub(crate) state: StageState,
    /// For the job, where it ends here.
    pub(crate) outcome: Option<Outcome>,
}

/// Judges the end of `stage`, whose log may have `log_limit` bytes. `image_hint` is added to what is
/// said where the stage could not start in its image.
pub(crate) fn judge(
    stage: &StageName,
    observed: &Observed,
    interrupt: Option<&Interrupt>,
    limits: Limits<'_>,
) -> Verdict {
    let failed = |cause: Cause| Verdict {
        state: StageState::Failed { step: observed.step, cause: cause.clone() },
        outcome: Some(Outcome::Failed { stage: stage.clone(), step: observed.step, cause }),
    };
    let interrupted = |interrupt: &Interrupt| Verdict {
        state: interrupt.state(),
        outcome: Some(interrupt.outcome(Some(stage))),
    };
    match (&observed.ending, interrupt) {
        (Ending::Reported(end), Some(interrupt)) if end.stopped => interrupted(interrupt),
        (Ending::Reported(end), _) => match &end.cause {
            EndCause::Exit(0) => Verdict { state: StageState::Passed, outcome: None },
            EndCause::Exit(code) => failed(Cause::Exit { code: *code }),
            EndCause::Signal(signal) => failed(Cause::Signal { signal: *signal }),
            EndCause::LogLimit => failed(Cause::LogLimit { limit: limits.log }),
            EndCause::LogFailed { reason } => Verdict {
                outcome: Some(Outcome::Internal {
                    message: format!("the log of stage {stage} cannot be written: {reason}"),
                }),
                ..failed(Cause::ContainerDied)
            },
            EndCause::CannotStart { reason, no_shell } => cannot_start(reason, *no_shell, limits),
        },
        (_, Some(interrupt)) => interrupted(interrupt),
        (Ending::Died { oom: true }, None) => Verdict {
            state: StageState::Oom,
            outcome: Some(Outcome::Oom { stage: stage.clone(), peak: None, limit: None }),
        },
        (Ending::Died { oom: false }, None) => failed(Cause::ContainerDied),
        (Ending::Damaged { message } | Ending::Lost { message }, None) => Verdict {
            outcome: Some(Outcome::Internal { message: message.clone() }),
            ..failed(Cause::ContainerDied)
        },
    }
}

/// What a verdict has to say about the job's setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits<'a> {
    /// The most that a stage may write, in bytes.
    pub(crate) log: u64,
    /// The image's name.
    pub(crate) image: &'a str,
    /// What is unusual about the image, for messages.
    pub(crate) oddity: Option<&'a str>,
}

/// The codes are those of a shell that finds no program, or cannot run it.
fn cannot_start(reason: &str, no_shell: bool, limits: Limits<'_>) -> Verdict {
    let image = limits.image;
    let (code, mut message) = if no_shell {
        (127, format!("image {image} has no /bin/sh, which stages are run by: take an image that has one"))
    } else {
        (126, format!("no stage can run in image {image}: {reason}"))
    };
    if let Some(oddity) = limits.oddity {
        message = format!("{message} ({oddity})");
    }
    Verdict {
        state: StageState::Failed { step: None, cause: Cause::Exit { code } },
        outcome: Some(Outcome::ImageError { message }),
    }
}

/// The state of a stage that never ran: its own condition did not hold, or `stopper` is the stage that
/// ended last before it, with its state.
pub(crate) fn never_runs(stage: &StagePlan, stopper: Option<(&StageName, &StageState)>) -> StageState {
    match &stage.skip {
        Some(why) => StageState::Skipped { why: why.clone() },
        None => not_reached(stopper),
    }
}

fn not_reached(stopper: Option<(&StageName, &StageState)>) -> StageState {
    let because = match stopper {
        Some((stage, StageState::Failed { .. } | StageState::Oom)) => Some(stage.clone()),
        _ => None,
    };
    StageState::NotReached { because }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> StageName {
        StageName::new("test").unwrap()
    }

    fn reported(cause: EndCause, stopped: bool) -> Observed {
        let end = StageEnd {
            cause,
            stopped,
            duration: Duration::ZERO,
            user_cpu: Duration::ZERO,
            system_cpu: Duration::ZERO,
            max_rss: 0,
            oom_kills: 0,
            peak_memory: None,
            network: None,
        };
        Observed { ending: Ending::Reported(end), step: Some(1) }
    }

    fn check(observed: &Observed, interrupt: Option<Interrupt>) -> (String, Option<String>) {
        let limits = Limits { log: 10, image: "alpine:3", oddity: None };
        let verdict = judge(&stage(), observed, interrupt.as_ref(), limits);
        (verdict.state.word().to_owned(), verdict.outcome.map(|outcome| outcome.to_string()))
    }

    fn canceled() -> Option<Interrupt> {
        Some(Interrupt::Canceled { by: "ann".into() })
    }

    #[test]
    fn exit_code_zero_passes_and_the_job_goes_on() {
        assert_eq!(check(&reported(EndCause::Exit(0), false), None), ("passed".into(), None));
    }

    #[test]
    fn every_other_end_names_the_stage_the_step_and_the_cause() {
        for (cause, text) in [
            (EndCause::Exit(3), "failed in stage test, step 2: exit code 3"),
            (EndCause::Signal(11), "failed in stage test, step 2: ended by signal 11"),
            (EndCause::LogLimit, "failed in stage test, step 2: wrote more than the limit of 10 bytes"),
        ] {
            assert_eq!(check(&reported(cause, false), None), ("failed".into(), Some(text.into())));
        }
    }

    #[test]
    fn a_stage_that_ended_by_itself_before_the_stop_keeps_its_own_end() {
        assert_eq!(check(&reported(EndCause::Exit(0), false), canceled()).0, "passed");
        assert_eq!(check(&reported(EndCause::Exit(1), false), canceled()).0, "failed");
    }

    #[test]
    fn a_stage_that_was_stopped_is_canceled_or_timed_out_whatever_its_exit_code() {
        let (state, outcome) = check(&reported(EndCause::Exit(0), true), canceled());
        assert_eq!((state.as_str(), outcome.as_deref()), ("canceled", Some("canceled by ann")));
        let limit = Interrupt::TimedOut { limit: Duration::from_secs(5) };
        let (state, outcome) = check(&reported(EndCause::Signal(15), true), Some(limit));
        assert_eq!(
            (state.as_str(), outcome.as_deref()),
            ("timed_out", Some("timed out after 5s in stage test"))
        );
    }

    #[test]
    fn a_container_that_died_fails_the_stage_unless_we_ended_it() {
        let died = |oom| Observed { ending: Ending::Died { oom }, step: None };
        assert_eq!(check(&died(false), None).0, "failed");
        assert_eq!(check(&died(true), None).0, "oom");
        assert_eq!(check(&died(false), canceled()).0, "canceled");
    }

    #[test]
    fn a_fault_of_the_machine_is_internal() {
        let lost = Observed { ending: Ending::Lost { message: "gone".into() }, step: None };
        assert_eq!(check(&lost, None).1.as_deref(), Some("internal error: gone"));
    }

    #[test]
    fn an_image_without_a_shell_is_an_error_of_the_image() {
        let cause = EndCause::CannotStart { reason: "no such file".into(), no_shell: true };
        let (_, outcome) = check(&reported(cause, false), None);
        assert!(outcome.unwrap().starts_with("image error: image alpine:3 has no /bin/sh"));
    }

    #[test]
    fn a_stage_that_was_not_reached_names_who_failed_but_no_cancel() {
        let failed = StageState::Failed { step: None, cause: Cause::Exit { code: 1 } };
        assert_eq!(not_reached(Some((&stage(), &failed))), StageState::NotReached { because: Some(stage()) });
        assert_eq!(
            not_reached(Some((&stage(), &StageState::Canceled))),
            StageState::NotReached { because: None }
        );
        assert_eq!(not_reached(None), StageState::NotReached { because: None });
    }
}
