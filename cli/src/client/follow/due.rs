//! Which of the events that wait may be given before others that came first.

use std::collections::BTreeSet;

use buildr_manifest::{EventKind, StageState};
use buildr_proto::build::{BuildEvent, BuildEventKind};

use super::{super::watch::LogKey, ends_attempt, job_event, place};

/// The logs of which an earlier event waits.
#[derive(Debug, Default)]
pub(super) struct Blocked {
    logs: BTreeSet<LogKey>,
    /// One of the waiting events is a stage's end.
    an_end: bool,
}

/// What an event has to wait for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Free,
    /// All events before it.
    AfterAll,
    /// The ends of logs.
    Ending,
    /// An event before it; this log's later events wait too.
    Behind(LogKey),
    /// The log's bytes below an offset.
    Due(LogKey, u64),
}

impl Blocked {
    /// An event of this log waits.
    pub(super) fn add(&mut self, key: LogKey, is_stage_end: bool) {
        self.logs.insert(key);
        self.an_end |= is_stage_end;
    }

    /// What the next event has to wait for, if those before it wait.
    pub(super) fn standing(&self, event: &BuildEvent) -> Standing {
        let Some((key, offset)) = place(event) else {
            return match (self.logs.is_empty(), concerns_one_thing(event)) {
                (_, true) => Standing::Free,
                (false, false) => Standing::AfterAll,
                (true, false) if ends_attempt(event) => Standing::Ending,
                (true, false) => Standing::Free,
            };
        };
        // Whether the stage waited for the one that ended is not known here.
        if self.logs.contains(&key) || (self.an_end && is_a_turn(event)) {
            return Standing::Behind(key);
        }
        Standing::Due(key, offset)
    }
}

/// A stage has its turn: it begins, or it is said that it never will.
fn is_a_turn(event: &BuildEvent) -> bool {
    match job_event(event) {
        Some(EventKind::StageStarted { .. }) => true,
        Some(EventKind::StageFinished { state, .. }) => {
            matches!(state, StageState::Skipped { .. } | StageState::NotReached { .. })
        }
        _ => false,
    }
}

/// Neither a stage nor the job as a whole: it says nothing of what was before it.
fn concerns_one_thing(event: &BuildEvent) -> bool {
    match &event.kind {
        BuildEventKind::Job(event) => matches!(
            event.kind,
            EventKind::Warning { .. }
                | EventKind::PullProgress { .. }
                | EventKind::ServiceReady { .. }
                | EventKind::ContainerReady { .. }
                | EventKind::SourceReady { .. }
        ),
        kind => matches!(kind, BuildEventKind::CancelRequested { .. }),
    }
}
