//! How stages and jobs end.

use buildr_manifest::{Cause, Outcome, StageState};

use super::{Field, Invalid, Message, duration_from_pb, duration_to_pb, outgoing};
use crate::{
    limits::MAX_TEXT,
    pb::{self, cause, outcome, stage_state},
};

impl From<Cause> for pb::Cause {
    fn from(cause: Cause) -> Self {
        let cause = match cause {
            Cause::Exit { code } => cause::Cause::ExitCode(code),
            Cause::Signal { signal } => cause::Cause::Signal(signal),
            Cause::LogLimit { limit } => cause::Cause::LogLimit(limit),
            Cause::ContainerDied => cause::Cause::ContainerDied(true),
        };
        Self { cause: Some(cause) }
    }
}

impl TryFrom<pb::Cause> for Cause {
    type Error = Invalid;
    fn try_from(cause: pb::Cause) -> Result<Self, Invalid> {
        const CAUSE: Message = Message("Cause");
        let pb::Cause { cause } = cause;
        match CAUSE.field("cause").require(cause)? {
            cause::Cause::ExitCode(code @ 1..=255) => Ok(Self::Exit { code }),
            cause::Cause::ExitCode(code) => {
                Err(CAUSE.field("exit_code").wrong(format!("{code} is not 1 to 255")))
            }
            cause::Cause::Signal(signal @ 1..=64) => Ok(Self::Signal { signal }),
            cause::Cause::Signal(signal) => {
                Err(CAUSE.field("signal").wrong(format!("{signal} is not 1 to 64")))
            }
            cause::Cause::LogLimit(limit) => Ok(Self::LogLimit { limit }),
            cause::Cause::ContainerDied(true) => Ok(Self::ContainerDied),
            cause::Cause::ContainerDied(false) => Err(CAUSE.field("container_died").wrong("it is false")),
        }
    }
}

impl From<Outcome> for pb::Outcome {
    fn from(outcome: Outcome) -> Self {
        use outcome::{AgentLost, Canceled, Expired, Failed, Fault, Oom, Plain, Superseded, TimedOut};
        let fault = |message| Fault { message: outgoing(message) };
        let outcome = match outcome {
            Outcome::Passed => outcome::Outcome::Passed(Plain {}),
            Outcome::Skipped => outcome::Outcome::Skipped(Plain {}),
            Outcome::Failed { stage, step, cause } => {
                outcome::Outcome::Failed(Failed { stage: stage.into(), step, cause: Some(cause.into()) })
            }
            Outcome::Oom { stage, peak, limit } => {
                outcome::Outcome::Oom(Oom { stage: stage.into(), peak, limit })
            }
            Outcome::TimedOut { stage, limit } => outcome::Outcome::TimedOut(TimedOut {
                stage: stage.map(String::from).unwrap_or_default(),
                limit: Some(duration_to_pb(limit)),
            }),
            Outcome::Canceled { by } => outcome::Outcome::Canceled(Canceled { by: outgoing(by) }),
            Outcome::Superseded { by } => outcome::Outcome::Superseded(Superseded { by }),
            Outcome::ManifestError { message } => outcome::Outcome::ManifestError(fault(message)),
            Outcome::SourceError { message } => outcome::Outcome::SourceError(fault(message)),
            Outcome::ImageError { message } => outcome::Outcome::ImageError(fault(message)),
            Outcome::ServiceError { message } => outcome::Outcome::ServiceError(fault(message)),
            Outcome::AgentLost { agent } => outcome::Outcome::AgentLost(AgentLost { agent: outgoing(agent) }),
            Outcome::Expired { limit } => {
                outcome::Outcome::Expired(Expired { limit: Some(duration_to_pb(limit)) })
            }
            Outcome::Internal { message } => outcome::Outcome::Internal(fault(message)),
        };
        Self { outcome: Some(outcome) }
    }
}

impl TryFrom<pb::Outcome> for Outcome {
    type Error = Invalid;
    fn try_from(outcome: pb::Outcome) -> Result<Self, Invalid> {
        let pb::Outcome { outcome } = outcome;
        Ok(match Message("Outcome").field("outcome").require(outcome)? {
            outcome::Outcome::Passed(outcome::Plain {}) => Self::Passed,
            outcome::Outcome::Skipped(outcome::Plain {}) => Self::Skipped,
            outcome::Outcome::Failed(failed) => failed_from_pb(failed)?,
            outcome::Outcome::Oom(outcome::Oom { stage, peak, limit }) => {
                Self::Oom { stage: Message("Outcome.Oom").field("stage").stage(stage)?, peak, limit }
            }
            outcome::Outcome::TimedOut(timed_out) => timed_out_from_pb(timed_out)?,
            outcome::Outcome::Canceled(outcome::Canceled { by }) => {
                Self::Canceled { by: text(Message("Outcome.Canceled").field("by"), by)? }
            }
            outcome::Outcome::Superseded(outcome::Superseded { by }) => Self::Superseded { by },
            outcome::Outcome::ManifestError(fault) => Self::ManifestError { message: fault_from_pb(fault)? },
            outcome::Outcome::SourceError(fault) => Self::SourceError { message: fault_from_pb(fault)? },
            outcome::Outcome::ImageError(fault) => Self::ImageError { message: fault_from_pb(fault)? },
            outcome::Outcome::ServiceError(fault) => Self::ServiceError { message: fault_from_pb(fault)? },
            outcome::Outcome::AgentLost(outcome::AgentLost { agent }) => {
                Self::AgentLost { agent: text(Message("Outcome.AgentLost").field("agent"), agent)? }
            }
            outcome::Outcome::Expired(outcome::Expired { limit }) => {
                Self::Expired { limit: duration_from_pb(Message("Outcome.Expired").field("limit"), limit)? }
            }
            outcome::Outcome::Internal(fault) => Self::Internal { message: fault_from_pb(fault)? },
        })
    }
}

fn text(field: Field, text: String) -> Result<String, Invalid> {
    field.text(text, MAX_TEXT)
}

fn fault_from_pb(fault: outcome::Fault) -> Result<String, Invalid> {
    let outcome::Fault { message } = fault;
    text(Message("Outcome.Fault").field("message"), message)
}

fn failed_from_pb(failed: outcome::Failed) -> Result<Outcome, Invalid> {
    const FAILED: Message = Message("Outcome.Failed");
    let outcome::Failed { stage, step, cause } = failed;
    Ok(Outcome::Failed {
        stage: FAILED.field("stage").stage(stage)?,
        step,
        cause: FAILED.field("cause").require(cause)?.try_into()?,
    })
}

fn timed_out_from_pb(timed_out: outcome::TimedOut) -> Result<Outcome, Invalid> {
    const TIMED_OUT: Message = Message("Outcome.TimedOut");
    let outcome::TimedOut { stage, limit } = timed_out;
    Ok(Outcome::TimedOut {
        stage: TIMED_OUT.field("stage").optional_stage(stage)?,
        limit: duration_from_pb(TIMED_OUT.field("limit"), limit)?,
    })
}

impl From<StageState> for pb::StageState {
    fn from(state: StageState) -> Self {
        use stage_state::{Failed, NotReached, Plain, Skipped, State};
        let state = match state {
            StageState::Passed => State::Passed(Plain {}),
            StageState::Failed { step, cause } => State::Failed(Failed { step, cause: Some(cause.into()) }),
            StageState::Oom => State::Oom(Plain {}),
            StageState::TimedOut => State::TimedOut(Plain {}),
            StageState::Canceled => State::Canceled(Plain {}),
            StageState::Skipped { why } => State::Skipped(Skipped { why: outgoing(why) }),
            StageState::NotReached { because } => {
                State::NotReached(NotReached { because: because.map(String::from).unwrap_or_default() })
            }
        };
        Self { state: Some(state) }
    }
}

impl TryFrom<pb::StageState> for StageState {
    type Error = Invalid;
    fn try_from(state: pb::StageState) -> Result<Self, Invalid> {
        use stage_state::{Failed, NotReached, Plain, Skipped, State};
        let pb::StageState { state } = state;
        Ok(match Message("StageState").field("state").require(state)? {
            State::Passed(Plain {}) => Self::Passed,
            State::Failed(Failed { step, cause }) => Self::Failed {
                step,
                cause: Message("StageState.Failed").field("cause").require(cause)?.try_into()?,
            },
            State::Oom(Plain {}) => Self::Oom,
            State::TimedOut(Plain {}) => Self::TimedOut,
            State::Canceled(Plain {}) => Self::Canceled,
            State::Skipped(Skipped { why }) => {
                Self::Skipped { why: text(Message("StageState.Skipped").field("why"), why)? }
            }
            State::NotReached(NotReached { because }) => Self::NotReached {
                because: Message("StageState.NotReached").field("because").optional_stage(because)?,
            },
        })
    }
}
