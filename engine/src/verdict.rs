//! What the end of a stage means for the stage and for the job. Pure: no clock, no container.

use std::time::Duration;

use buildr_init::wire::{EndCause, StageEnd};
use buildr_manifest::{Cause, Outcome, StageName, StageState};

/// What wanted a stage to end before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// The job is being ended: canceled, or a stage failed where that ends those beside it.
    Canceled,
    /// The job's time was up, or that of stages that run after a failure.
    JobTimedOut,
    /// The stage's own time was up.
    TimedOut { limit: Duration },
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
    /// Its container ended while no process of this agent was there.
    Unattended { agent: String },
}

/// What is said of a container that ended between two engines.
pub(crate) const UNWATCHED: &str = "the build container ended while no engine watched over it";

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
    /// For the job, where this is what decides it.
    pub(crate) outcome: Option<Outcome>,
    /// What the user should know beside it.
    pub(crate) warning: Option<String>,
}

/// What a verdict has to say about the stage's setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// The most that a stage may write, in bytes.
    pub(crate) log: u64,
    /// What its container may use, in bytes, where there is a limit.
    pub(crate) memory: Option<u64>,
    /// The image's name.
    pub(crate) image: &'a str,
    /// What is unusual about the image, for messages.
    pub(crate) oddity: Option<&'a str>,
    /// What reads the script.
    pub(crate) shell: &'a str,
    /// The manifest itself names where or as whom the stage runs.
    pub(crate) placed: bool,
}

/// What the system says where another process would be over the limit.
const NO_MORE_PROCESSES: &str = "Resource temporarily unavailable";

/// Judges the end of `stage`.
pub(crate) fn judge(
    stage: &StageName,
    observed: &Observed,
    interrupt: Option<&Interrupt>,
    setting: Setting<'_>,
) -> Verdict {
    match (&observed.ending, interrupt) {
        (Ending::Reported(end), Some(interrupt)) if end.stopped => interrupted(stage, interrupt),
        (Ending::Reported(end), _) => reported(stage, end, observed.step, setting),
        (_, Some(interrupt)) => interrupted(stage, interrupt),
        (Ending::Died { oom: true }, None) => oom(stage, None, setting),
        (Ending::Died { oom: false }, None) => failed(stage, observed.step, Cause::ContainerDied),
        (Ending::Damaged { message } | Ending::Lost { message }, None) => {
            internal(stage, observed.step, message.clone())
        }
        (Ending::Unattended { agent }, None) => Verdict {
            outcome: Some(Outcome::AgentLost { agent: agent.clone() }),
            warning: Some(UNWATCHED.to_owned()),
            ..failed(stage, observed.step, Cause::ContainerDied)
        },
    }
}

fn reported(stage: &StageName, end: &StageEnd, step: Option<u32>, setting: Setting<'_>) -> Verdict {
    match &end.cause {
        EndCause::Exit(0) => Verdict { state: StageState::Passed, outcome: None, warning: None },
        EndCause::Exit(_) | EndCause::Signal(_) if end.oom_kills > 0 => oom(stage, end.peak_memory, setting),
        EndCause::Exit(code) => failed(stage, step, Cause::Exit { code: *code }),
        EndCause::Signal(signal) => failed(stage, step, Cause::Signal { signal: *signal }),
        EndCause::LogLimit => failed(stage, step, Cause::LogLimit { limit: setting.log }),
        EndCause::LogFailed { reason } => {
            internal(stage, step, format!("the log of stage {stage} cannot be written: {reason}"))
        }
        EndCause::CannotStart { reason, no_shell } => cannot_start(stage, reason, *no_shell, setting),
    }
}

fn failed(stage: &StageName, step: Option<u32>, cause: Cause) -> Verdict {
    Verdict {
        state: StageState::Failed { step, cause: cause.clone() },
        outcome: Some(Outcome::Failed { stage: stage.clone(), step, cause }),
        warning: None,
    }
}

fn oom(stage: &StageName, peak: Option<u64>, setting: Setting<'_>) -> Verdict {
    Verdict {
        state: StageState::Oom,
        outcome: Some(Outcome::Oom { stage: stage.clone(), peak, limit: setting.memory }),
        warning: None,
    }
}

fn internal(stage: &StageName, step: Option<u32>, message: String) -> Verdict {
    Verdict { outcome: Some(Outcome::Internal { message }), ..failed(stage, step, Cause::ContainerDied) }
}

/// Whoever ends the job has said what its outcome is.
fn interrupted(stage: &StageName, interrupt: &Interrupt) -> Verdict {
    let (state, outcome) = match interrupt {
        Interrupt::Canceled => (StageState::Canceled, None),
        Interrupt::JobTimedOut => (StageState::TimedOut, None),
        Interrupt::TimedOut { limit } => {
            (StageState::TimedOut, Some(Outcome::TimedOut { stage: Some(stage.clone()), limit: *limit }))
        }
    };
    Verdict { state, outcome, warning: None }
}

/// The codes are those of a shell that finds no program, or cannot run it. A place or user that the
/// manifest names and the build has not is the build's own failure, all else the image's.
fn cannot_start(stage: &StageName, reason: &str, no_shell: bool, setting: Setting<'_>) -> Verdict {
    let Setting { image, shell, oddity, placed, .. } = setting;
    if reason.contains(NO_MORE_PROCESSES) {
        let warning = format!(
            "stage {stage} cannot start: its container has as many processes as it may, some of them left by \
             earlier stages; end those, or allow more with `resources: {{pids: N}}`"
        );
        return Verdict { warning: Some(warning), ..failed(stage, None, Cause::Exit { code: 126 }) };
    }
    if placed && !no_shell {
        let warning = Some(format!("stage {stage} cannot start: {reason}"));
        return Verdict { warning, ..failed(stage, None, Cause::Exit { code: 126 }) };
    }
    let (code, mut message) = if no_shell {
        (
            127,
            format!(
                "image {image} has no {shell}, which stage {stage} is run by: take an image that has one"
            ),
        )
    } else {
        (126, format!("no stage can run in image {image}: {reason}"))
    };
    if let Some(oddity) = oddity {
        message = format!("{message} ({oddity})");
    }
    Verdict { outcome: Some(Outcome::ImageError { message }), ..failed(stage, None, Cause::Exit { code }) }
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

    const SETTING: Setting<'_> = Setting {
        log: 10,
        memory: Some(1 << 20),
        image: "alpine:3",
        oddity: None,
        shell: "/bin/sh",
        placed: false,
    };

    fn check(observed: &Observed, interrupt: Option<Interrupt>) -> (String, Option<String>) {
        let verdict = judge(&stage(), observed, interrupt.as_ref(), SETTING);
        (verdict.state.word().to_owned(), verdict.outcome.map(|outcome| outcome.to_string()))
    }

    #[test]
    fn a_container_that_is_full_of_processes_is_the_build_s_own_failure() {
        let reason = "start a process: Resource temporarily unavailable (os error 11)".to_owned();
        let end = reported(EndCause::CannotStart { reason, no_shell: false }, false);
        let verdict = judge(&stage(), &end, None, SETTING);
        let cause = Cause::Exit { code: 126 };
        assert_eq!(verdict.outcome, Some(Outcome::Failed { stage: stage(), step: None, cause }));
        assert!(verdict.warning.unwrap().ends_with("allow more with `resources: {pids: N}`"));
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
        assert_eq!(check(&reported(EndCause::Exit(0), false), Some(Interrupt::Canceled)).0, "passed");
        assert_eq!(check(&reported(EndCause::Exit(1), false), Some(Interrupt::Canceled)).0, "failed");
    }

    #[test]
    fn a_stage_that_was_stopped_is_canceled_or_timed_out_whatever_its_exit_code() {
        let stopped = reported(EndCause::Exit(0), true);
        assert_eq!(check(&stopped, Some(Interrupt::Canceled)), ("canceled".into(), None));
        assert_eq!(check(&stopped, Some(Interrupt::JobTimedOut)), ("timed_out".into(), None));
        let own = Some(Interrupt::TimedOut { limit: Duration::from_secs(5) });
        let outcome = Some("timed out after 5s in stage test".to_owned());
        assert_eq!(check(&reported(EndCause::Signal(15), true), own), ("timed_out".into(), outcome));
    }

    #[test]
    fn a_container_that_died_fails_the_stage_unless_we_ended_it() {
        let died = |oom| Observed { ending: Ending::Died { oom }, step: None };
        assert_eq!(check(&died(false), None).0, "failed");
        assert_eq!(check(&died(true), None).0, "oom");
        assert_eq!(check(&died(false), Some(Interrupt::Canceled)).0, "canceled");
    }

    #[test]
    fn what_the_kernel_ended_for_want_of_memory_says_how_much_there_was() {
        for cause in [EndCause::Signal(9), EndCause::Exit(137), EndCause::Exit(1)] {
            let mut observed = reported(cause, false);
            let Ending::Reported(end) = &mut observed.ending else { unreachable!() };
            (end.oom_kills, end.peak_memory) = (1, Some(1 << 20));
            let outcome = Some("out of memory in stage test: 1 MiB in use of 1 MiB".to_owned());
            assert_eq!(check(&observed, None), ("oom".into(), outcome));
        }
        let mut coped_with = reported(EndCause::Exit(0), false);
        let Ending::Reported(end) = &mut coped_with.ending else { unreachable!() };
        end.oom_kills = 1;
        assert_eq!(check(&coped_with, None).0, "passed");
    }

    #[test]
    fn a_fault_of_the_machine_is_internal() {
        let lost = Observed { ending: Ending::Lost { message: "gone".into() }, step: None };
        assert_eq!(check(&lost, None).1.as_deref(), Some("internal error: gone"));
    }

    #[test]
    fn a_container_that_ended_while_its_agent_was_away_is_the_agents_loss() {
        let lost = Observed { ending: Ending::Unattended { agent: "ant".into() }, step: None };
        let verdict = judge(&StageName::new("a").unwrap(), &lost, None, SETTING);
        assert_eq!(verdict.outcome, Some(Outcome::AgentLost { agent: "ant".into() }));
        assert!(verdict.warning.is_some());
    }

    #[test]
    fn an_image_without_a_shell_is_an_error_of_the_image() {
        let cause = EndCause::CannotStart { reason: "no such file".into(), no_shell: true };
        let (_, outcome) = check(&reported(cause, false), None);
        assert!(outcome.unwrap().starts_with("image error: image alpine:3 has no /bin/sh"));
    }

    #[test]
    fn a_user_that_the_manifest_names_and_nobody_knows_is_the_builds_own_failure() {
        let cause = EndCause::CannotStart { reason: "no user \"x\"".into(), no_shell: false };
        let setting = Setting { placed: true, ..SETTING };
        let verdict = judge(&stage(), &reported(cause, false), None, setting);
        assert!(matches!(verdict.outcome, Some(Outcome::Failed { .. })));
        assert_eq!(verdict.warning.as_deref(), Some("stage test cannot start: no user \"x\""));
    }
}
