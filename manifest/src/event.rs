//! What a running job reports, in order. The terminal and the farm show only what is in this
//! stream and in the stages' logs.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Outcome, ServiceName, StageName, StageState};

/// One thing that happened to a job, with the time at which the engine saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the clock of the machine that runs the engine. For display only.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened. The order is: `JobStarted`, `SourceResolved`, `Planned`, then `SourceReady`,
/// `ServiceReady` and `ContainerReady` of the build container in any order, then per stage
/// `StageStarted`, `StepStarted`..., `StageFinished`, at last `JobFinished`. Stages that run side by
/// side have their events mixed. A stage that is tried again has a `StageRetried` between its tries,
/// and goes on in the same log. A job that cannot go on jumps to `JobFinished`; stages that never ran
/// have a `StageFinished` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The engine took the job up.
    JobStarted,
    /// The project is here, at this commit.
    SourceResolved {
        /// The full commit id; none for a folder that is not a git repository.
        commit: Option<String>,
        /// The branch, where there is one.
        branch: Option<String>,
        /// The tag, where there is one.
        tag: Option<String>,
    },
    /// All files of the commit are here. Not told for a folder that was here before.
    SourceReady {
        /// How long fetching and checking out took, waits for others left out.
        #[serde(with = "crate::seconds")]
        took: Duration,
    },
    /// The manifest was read and is valid: this is what will run.
    Planned {
        /// The image of the build container.
        image: String,
        /// All stages in order, `prepare` first.
        stages: Vec<StageName>,
        /// The names of the services that run beside the stages.
        #[serde(default)]
        services: Vec<ServiceName>,
    },
    /// Something that the user should know and that stops nothing.
    Warning {
        /// The text, maybe of several lines.
        message: String,
    },
    /// An image is being pulled. Ephemeral: shown live, never stored.
    PullProgress {
        /// The image.
        image: String,
        /// Bytes had so far, over all layers known.
        current: u64,
        /// Bytes in all, over all layers known; 0 while unknown.
        total: u64,
    },
    /// A container is up and waits for stages.
    ContainerReady {
        /// The stage that it is for, which has an image of its own; none: the build container.
        stage: Option<StageName>,
        /// The image as the manifest names it.
        image: String,
        /// The id of the image that was really used (`sha256:...`).
        image_id: String,
        /// How long the image was pulled; zero where it was here.
        #[serde(with = "crate::seconds")]
        pull: Duration,
        /// From the image's being here to the container's being up.
        #[serde(with = "crate::seconds")]
        start: Duration,
    },
    /// A service can be used.
    ServiceReady {
        /// Its name.
        service: ServiceName,
        /// Its image as the manifest names it.
        image: String,
        /// The id of the image that was really used (`sha256:...`).
        image_id: String,
        /// From the image's being here to its being ready.
        #[serde(with = "crate::seconds")]
        took: Duration,
    },
    /// A stage began.
    StageStarted {
        /// Which.
        stage: StageName,
    },
    /// A step of a stage began; all output of the steps before it is in the log below `offset`.
    StepStarted {
        /// Which stage.
        stage: StageName,
        /// The step's index, from 0.
        step: u32,
        /// The entry of the script, as the manifest has it.
        command: String,
        /// Where in the stage's log the step's output begins, in bytes.
        offset: u64,
    },
    /// A try of a stage failed, and there will be another one. Its output goes on in the same log.
    StageRetried {
        /// Which.
        stage: StageName,
        /// Which try it was, from 1.
        attempt: u32,
        /// How many there may be in all.
        attempts: u32,
        /// How it ended.
        #[serde(flatten)]
        state: StageState,
        /// The length of the stage's log so far in bytes.
        log_bytes: u64,
        /// How long there is nothing to be seen now.
        #[serde(with = "crate::seconds")]
        pause: Duration,
    },
    /// A stage ended, or will never run.
    StageFinished {
        /// Which.
        stage: StageName,
        /// How.
        #[serde(flatten)]
        state: StageState,
        /// It failed as the manifest allows, so it counts as passed for those that need it.
        #[serde(default)]
        allowed: bool,
        /// The length of the stage's log in bytes; 0 for one that never ran.
        log_bytes: u64,
        /// Wall-clock time from its start to its end; zero for one that never ran.
        #[serde(with = "crate::seconds")]
        duration: Duration,
        /// What it used up.
        usage: Usage,
    },
    /// The job's end. Nothing follows.
    JobFinished {
        /// How it ended.
        #[serde(flatten)]
        outcome: Outcome,
        /// Wall-clock time since `JobStarted`.
        #[serde(with = "crate::seconds")]
        duration: Duration,
        /// How many containers were removed, or left to the daemon to remove.
        containers_removed: u32,
    },
}

/// What the processes of a stage used up, as far as it could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode.
    #[serde(with = "crate::seconds")]
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    #[serde(with = "crate::seconds")]
    pub system_cpu: Duration,
    /// The largest resident set of any one process, in bytes.
    pub max_rss: u64,
    /// The most memory that its container had in use while it ran, in bytes, page cache included;
    /// where stages run side by side it is of all of them.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// Bytes that its container received over the network while it ran.
    #[serde(default)]
    pub network_received: Option<u64>,
    /// Bytes that its container sent over the network while it ran.
    #[serde(default)]
    pub network_sent: Option<u64>,
}

impl EventKind {
    /// The stage that it concerns and the offset in that stage's log before which all output must
    /// have been shown for a reader to see things in their order. None where no stage is concerned.
    pub fn position(&self) -> Option<(&StageName, u64)> {
        match self {
            Self::StageStarted { stage } => Some((stage, 0)),
            Self::StepStarted { stage, offset, .. } => Some((stage, *offset)),
            Self::StageRetried { stage, log_bytes, .. } | Self::StageFinished { stage, log_bytes, .. } => {
                Some((stage, *log_bytes))
            }
            _ => None,
        }
    }

    /// True for what is shown live and never stored.
    pub fn is_ephemeral(&self) -> bool {
        matches!(self, Self::PullProgress { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cause;

    #[test]
    fn events_are_flat_objects_and_come_back_as_they_were() {
        let stage = StageName::new("test").unwrap();
        let cause = Cause::Exit { code: 3 };
        let at = Timestamp::UNIX_EPOCH;
        let usage = Usage { user_cpu: Duration::from_millis(1500), ..Usage::default() };
        let duration = Duration::from_secs(2);
        for (kind, expected) in [
            (
                EventKind::StageFinished {
                    stage: stage.clone(),
                    state: StageState::Failed { step: Some(1), cause: cause.clone() },
                    allowed: false,
                    log_bytes: 7,
                    duration,
                    usage,
                },
                r#"{"at":"1970-01-01T00:00:00Z","event":"stage_finished","stage":"test","state":"failed","step":1,"cause":"exit","code":3,"allowed":false,"log_bytes":7,"duration":2.0,"usage":{"user_cpu":1.5,"system_cpu":0.0,"max_rss":0,"peak_memory":null,"network_received":null,"network_sent":null}}"#,
            ),
            (
                EventKind::JobFinished {
                    outcome: Outcome::TimedOut { stage: Some(stage.clone()), limit: Duration::from_secs(60) },
                    duration,
                    containers_removed: 1,
                },
                r#"{"at":"1970-01-01T00:00:00Z","event":"job_finished","outcome":"timed_out","stage":"test","limit":60.0,"duration":2.0,"containers_removed":1}"#,
            ),
        ] {
            let event = Event { at, kind };
            assert_eq!(serde_json::to_string(&event).unwrap(), expected);
            assert_eq!(serde_json::from_str::<Event>(expected).unwrap(), event);
        }
    }
}
