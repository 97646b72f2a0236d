//! One attempt as all parts of the agent see it: how far it is and what is wanted of it. What
//! happens in it is the business of [`crate::job`].

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use buildr_engine::job::Stop;
use buildr_proto::AttemptId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{link::Want, spool::Progress};

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Offered and not yet accepted.
    Offered,
    /// Accepted; the source or the container are being made.
    Preparing,
    /// Stages run.
    Running,
    /// The job has its end, and its slot is free; what it made is being removed.
    Clearing,
    /// Over here; log or events are still to be delivered.
    Reporting,
}

/// An attempt that the agent has.
#[derive(Debug)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    phase: Mutex<Phase>,
    progress: Mutex<Option<watch::Receiver<Progress>>>,
    delivered: AtomicU64,
    stop: watch::Sender<Stop>,
    fence: CancellationToken,
    fence_after: Mutex<Option<Duration>>,
}

impl Attempt {
    /// One in this phase.
    pub fn new(id: AttemptId, phase: Phase) -> Self {
        Self {
            id,
            phase: Mutex::new(phase),
            progress: Mutex::default(),
            delivered: AtomicU64::new(0),
            stop: watch::Sender::new(Stop::No),
            fence: CancellationToken::new(),
            fence_after: Mutex::default(),
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is further; it never goes back.
    pub fn enter(&self, phase: Phase) {
        let mut now = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        *now = phase.max(*now);
    }

    /// Its spool is there.
    pub fn attach(&self, progress: watch::Receiver<Progress>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    /// How far its spool is; nothing before there is one.
    pub fn progress(&self) -> Progress {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.as_ref().map(|progress| progress.borrow().clone()).unwrap_or_default()
    }

    /// How many bytes of its logs are acknowledged.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// So many bytes of its logs are acknowledged now.
    pub fn deliver(&self, bytes: u64) {
        self.delivered.store(bytes, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn stop(&self) -> watch::Receiver<Stop> {
        self.stop.subscribe()
    }

    /// Asks for its end; a sharper request replaces a milder one, and never the other way.
    pub fn request(&self, stop: Stop) {
        self.stop.send_if_modified(|current| {
            let sharper = rank(&stop) > rank(current);
            if sharper {
                *current = stop;
            }
            sharper
        });
    }

    /// Does what the orchestrator wants.
    pub fn want(&self, want: Want) {
        match want {
            Want::Run => {}
            Want::Cancel { by } => self.request(Stop::Cancel { by }),
            Want::Abandon => self.abandon(),
        }
    }

    /// It is not this agent's any more: it ends at once, and nothing of it is reported.
    pub fn abandon(&self) {
        self.request(Stop::Kill { by: "the orchestrator, which gave the job to another agent".to_owned() });
        self.fence.cancel();
    }

    /// After so long a silence of the orchestrator it is not this agent's any more.
    pub fn fence_after(&self, silence: Option<Duration>) {
        *self.fence_after.lock().unwrap_or_else(PoisonError::into_inner) = silence;
    }

    /// After what silence that is, while there is something to end.
    pub fn fence_limit(&self) -> Option<Duration> {
        let limit = *self.fence_after.lock().unwrap_or_else(PoisonError::into_inner);
        limit.filter(|_| self.phase() < Phase::Reporting)
    }

    /// The orchestrator was silent for so long: ends the attempt where it may be another agent's by
    /// now. True where that is so.
    pub fn endure(&self, silence: Duration) -> bool {
        let is_over = self.fence_limit().is_some_and(|limit| silence >= limit);
        if is_over && !self.fence.is_cancelled() {
            let by = "the agent, which had no word from the orchestrator for too long".to_owned();
            self.request(Stop::Kill { by });
            self.fence.cancel();
            return true;
        }
        false
    }

    /// Set once nothing of it is to be reported.
    pub fn fence(&self) -> &CancellationToken {
        &self.fence
    }
}

fn rank(stop: &Stop) -> u8 {
    match stop {
        Stop::No => 0,
        Stop::Cancel { .. } => 1,
        Stop::Kill { .. } => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milder_request_never_replaces_a_sharper_one() {
        let attempt = Attempt::new(AttemptId::new(), Phase::Running);
        let cancel = |by: &str| Stop::Cancel { by: by.into() };
        let kill = Stop::Kill { by: "b".into() };
        attempt.request(cancel("a"));
        attempt.request(cancel("c"));
        assert_eq!(*attempt.stop().borrow(), cancel("a"));
        attempt.request(kill.clone());
        attempt.request(cancel("d"));
        assert_eq!(*attempt.stop().borrow(), kill);
    }

    #[test]
    fn a_phase_that_is_told_late_changes_nothing() {
        let attempt = Attempt::new(AttemptId::new(), Phase::Running);
        attempt.enter(Phase::Reporting);
        attempt.enter(Phase::Clearing);
        assert_eq!(attempt.phase(), Phase::Reporting);
    }

    #[test]
    fn an_abandoned_attempt_is_killed_and_reports_nothing() {
        let attempt = Attempt::new(AttemptId::new(), Phase::Running);
        attempt.want(Want::Run);
        assert_eq!(*attempt.stop().borrow(), Stop::No);
        attempt.want(Want::Abandon);
        assert!(matches!(*attempt.stop().borrow(), Stop::Kill { .. }));
        assert!(attempt.fence().is_cancelled());
    }

    #[test]
    fn a_job_that_may_go_elsewhere_ends_by_itself_once_the_orchestrator_was_silent_for_too_long() {
        let limit = Duration::from_secs(50);
        let attempt = Attempt::new(AttemptId::new(), Phase::Running);
        assert!(!attempt.endure(10 * limit), "without a limit it works on");
        attempt.fence_after(Some(limit));
        assert!(!attempt.endure(limit - Duration::from_secs(1)));
        assert!(attempt.endure(limit));
        assert!(attempt.fence().is_cancelled());
        assert!(matches!(*attempt.stop().borrow(), Stop::Kill { .. }));
        assert!(!attempt.endure(2 * limit), "once is enough");
    }
}
