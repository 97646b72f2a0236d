//! Where a job's time went, as its events tell.

use std::time::Duration;

use buildr_manifest::{Event, EventKind, StageState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a job's time went, as far as it is known. The parts may overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTimes {
    /// Fetching and checking out.
    #[serde(with = "buildr_manifest::seconds::option")]
    pub source: Option<Duration>,
    /// Pulling the image of the build container; none where it was there.
    #[serde(with = "buildr_manifest::seconds::option")]
    pub pull: Option<Duration>,
    /// Making and starting the build container.
    #[serde(with = "buildr_manifest::seconds::option")]
    pub start: Option<Duration>,
    /// From the first stage's begin to the end of the last one that has ended.
    #[serde(with = "buildr_manifest::seconds::option")]
    pub run: Option<Duration>,
}

/// Takes the events of one attempt in, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    times: JobTimes,
    began: Option<Timestamp>,
}

impl Stopwatch {
    /// What is known by now.
    pub fn times(&self) -> JobTimes {
        self.times
    }

    /// Takes the next event in.
    pub fn event(&mut self, event: &Event) {
        match &event.kind {
            EventKind::SourceReady { took } => self.times.source = Some(*took),
            EventKind::ContainerReady { stage: None, pull, start, .. } => {
                // An image that was there before was not pulled.
                self.times.pull = Some(*pull).filter(|pull| !pull.is_zero());
                self.times.start = Some(*start);
            }
            EventKind::StageStarted { .. } => {
                self.began.get_or_insert(event.at);
            }
            EventKind::StageFinished { state, .. } if ran(state) => {
                let began = self.began.unwrap_or(event.at);
                self.times.run = event.at.duration_since(began).try_into().ok();
            }
            _ => {}
        }
    }
}

/// A stage that began; the others took no time.
fn ran(state: &StageState) -> bool {
    !matches!(state, StageState::Skipped { .. } | StageState::NotReached { .. })
}
