//! How stages and jobs end: one taxonomy for events, the protocol, exit codes and retry rules.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{StageName, duration, size};

/// How a job, and with it a build, ended. An infrastructure fault never looks like a red test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// At least one stage ran, and all that were to run exited 0.
    Passed,
    /// Nothing was to run.
    Skipped,
    /// A stage of the build failed by itself.
    Failed {
        /// The first stage that failed.
        stage: StageName,
        /// The step (from 0) that was running, where the stage had begun one.
        step: Option<u32>,
        /// What ended the stage.
        #[serde(flatten)]
        cause: Cause,
    },
    /// The kernel ended a stage for want of memory.
    Oom {
        /// The stage that was ended.
        stage: StageName,
        /// The most memory that its container had in use, in bytes, where it could be read.
        peak: Option<u64>,
        /// What its container may use, in bytes, where there is a limit.
        limit: Option<u64>,
    },
    /// The job ran longer than it may.
    TimedOut {
        /// The stage that was running, if one was.
        stage: Option<StageName>,
        /// The limit that was passed.
        #[serde(with = "crate::seconds")]
        limit: Duration,
    },
    /// Somebody ended it.
    Canceled {
        /// Who, as they named themselves.
        by: String,
    },
    /// A newer build took its place.
    Superseded {
        /// The number of the newer build.
        by: u64,
    },
    /// There is no manifest, or it is not a valid one.
    ManifestError {
        /// The diagnostics, rendered as plain text; may have several lines.
        message: String,
    },
    /// The project could not be brought here.
    SourceError {
        /// What went wrong, and what to do.
        message: String,
    },
    /// The image could not be pulled, or no stage can run in it.
    ImageError {
        /// What went wrong, and what to do.
        message: String,
    },
    /// A service of the job did not get ready.
    ServiceError {
        /// What went wrong, and what to do.
        message: String,
    },
    /// The agent went away in the middle.
    AgentLost {
        /// The agent's name.
        agent: String,
    },
    /// It waited in the queue longer than the operator allows.
    Expired {
        /// The queue's limit.
        #[serde(with = "crate::seconds")]
        limit: Duration,
    },
    /// A fault of buildr or of the machine under it.
    Internal {
        /// What went wrong.
        message: String,
    },
}

/// Why a stage failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// The shell exited with this code, which is not 0.
    Exit {
        /// 1 to 255.
        code: i32,
    },
    /// A signal ended the shell.
    Signal {
        /// The signal's number on Linux.
        signal: i32,
    },
    /// The stage wrote more than a stage may.
    LogLimit {
        /// The limit in bytes.
        limit: u64,
    },
    /// The container's first process or the container itself was ended from within the build.
    ContainerDied,
}

/// Where a stage stands at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StageState {
    /// It ran and exited 0.
    Passed,
    /// It ran and failed.
    Failed {
        /// The step (from 0) that was running, where one had begun.
        step: Option<u32>,
        /// What ended it.
        #[serde(flatten)]
        cause: Cause,
    },
    /// The kernel ended it for want of memory.
    Oom,
    /// It, or the job, ran longer than it may.
    TimedOut,
    /// The build was canceled while it ran.
    Canceled,
    /// Its own condition did not hold.
    Skipped {
        /// The condition and the actual value, in words.
        why: String,
    },
    /// Something that it waits for failed or was not reached.
    NotReached {
        /// The stage that stopped it, where a stage did (otherwise: a cancel, a timeout, a fault).
        because: Option<StageName>,
    },
}

impl Outcome {
    /// The word for this outcome in tables, JSON and the protocol.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "skipped",
            Self::Failed { .. } => "failed",
            Self::Oom { .. } => "oom",
            Self::TimedOut { .. } => "timed_out",
            Self::Canceled { .. } => "canceled",
            Self::Superseded { .. } => "superseded",
            Self::ManifestError { .. } => "manifest_error",
            Self::SourceError { .. } => "source_error",
            Self::ImageError { .. } => "image_error",
            Self::ServiceError { .. } => "service_error",
            Self::AgentLost { .. } => "agent_lost",
            Self::Expired { .. } => "expired",
            Self::Internal { .. } => "internal",
        }
    }

    /// The exit code of a program that waited for this outcome.
    ///
    /// 0 passed or skipped, 1 failed or oom, 2 manifest error, 3 canceled or superseded, 5 timed
    /// out, 4 infrastructure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Passed | Self::Skipped => 0,
            Self::Failed { .. } | Self::Oom { .. } => 1,
            Self::ManifestError { .. } => 2,
            Self::Canceled { .. } | Self::Superseded { .. } => 3,
            Self::TimedOut { .. } => 5,
            Self::SourceError { .. }
            | Self::ImageError { .. }
            | Self::ServiceError { .. }
            | Self::AgentLost { .. }
            | Self::Expired { .. }
            | Self::Internal { .. } => 4,
        }
    }

    /// True where a red build is the build's own doing or wish, false for faults of the machinery.
    pub fn is_success(&self) -> bool {
        self.exit_code() == 0
    }
}

impl StageState {
    /// The word for this state in tables, JSON and the protocol.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "failed",
            Self::Oom => "oom",
            Self::TimedOut => "timed_out",
            Self::Canceled => "canceled",
            Self::Skipped { .. } => "skipped",
            Self::NotReached { .. } => "not_reached",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit { code } => write!(f, "exit code {code}"),
            Self::Signal { signal } => write!(f, "ended by signal {signal}"),
            Self::LogLimit { limit } => write!(f, "wrote more than the limit of {limit} bytes"),
            Self::ContainerDied => f.write_str("its container was ended from within"),
        }
    }
}

impl fmt::Display for Outcome {
    /// One clause that says what happened, without a full stop: `failed in stage test, step 2: exit code 1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Skipped => f.write_str("skipped: nothing was to run"),
            Self::Failed { stage, step, cause } => {
                write!(f, "failed in stage {stage}")?;
                if let Some(step) = step {
                    write!(f, ", step {}", step + 1)?;
                }
                write!(f, ": {cause}")
            }
            Self::Oom { stage, peak, limit } => {
                write!(f, "out of memory in stage {stage}")?;
                match (peak, limit) {
                    (Some(peak), Some(limit)) => {
                        write!(f, ": {} in use of {}", size::words(*peak), size::words(*limit))
                    }
                    (Some(peak), None) => write!(f, ": {} in use", size::words(*peak)),
                    (None, Some(limit)) => write!(f, ": it may use {}", size::words(*limit)),
                    (None, None) => Ok(()),
                }
            }
            Self::TimedOut { stage, limit } => {
                write!(f, "timed out after {}", duration::words(*limit))?;
                stage.as_ref().map_or(Ok(()), |stage| write!(f, " in stage {stage}"))
            }
            Self::Canceled { by } => write!(f, "canceled by {by}"),
            Self::Superseded { by } => write!(f, "superseded by build {by}"),
            Self::ManifestError { message } => {
                // Diagnostics have pictures: they begin on a line of their own.
                let gap = if message.contains('\n') { '\n' } else { ' ' };
                write!(f, "manifest error:{gap}{message}")
            }
            Self::SourceError { message } => write!(f, "source error: {message}"),
            Self::ImageError { message } => write!(f, "image error: {message}"),
            Self::ServiceError { message } => write!(f, "service error: {message}"),
            Self::AgentLost { agent } => write!(f, "agent {agent} was lost"),
            Self::Expired { limit } => {
                write!(f, "expired: no agent took it within {}", duration::words(*limit))
            }
            Self::Internal { message } => write!(f, "internal error: {message}"),
        }
    }
}
