//! Brings an attempt's events and logs to the orchestrator, however long that takes, from the spool
//! alone: it neither knows nor cares whether the job still runs.

mod events;
mod logs;

use std::{path::PathBuf, sync::Arc, time::Duration};

use buildr_manifest::{Event, EventKind, Outcome};
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::{
    attempt::Attempt,
    backoff::{self, Backoff},
    config::Timing,
    link::{CallError, Link, Report, encode},
    spool::{Outbox, Progress, Writer},
};

/// All that delivering an attempt needs.
#[derive(Clone)]
pub struct Delivery {
    /// The attempt.
    pub attempt: Arc<Attempt>,
    /// The way to the orchestrator.
    pub link: Link,
    /// How long to wait for what.
    pub timing: Timing,
    /// Its events.
    pub outbox: Arc<Outbox>,
    /// Where its logs are.
    pub folder: PathBuf,
    /// How far its spool is.
    pub progress: watch::Receiver<Progress>,
    /// The orchestrator may have a part of it already: ask before sending.
    pub resumed: bool,
}

/// The attempt is not this process's any more: nothing of it can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced;

impl Delivery {
    /// For an attempt that begins now.
    pub fn new(attempt: Arc<Attempt>, link: Link, timing: Timing, spool: &Writer) -> Self {
        let (outbox, folder, progress) = (spool.outbox(), spool.folder().to_owned(), spool.progress());
        Self { attempt, link, timing, outbox, folder, progress, resumed: false }
    }

    /// Delivers all of it. Returns when the final report is committed, or the attempt is fenced; a
    /// fenced attempt is told so, so that its job ends.
    pub async fn run(self) -> Result<(), Fenced> {
        let fence = self.attempt.fence().clone();
        let (shipped, logs_done) = oneshot::channel();
        let ship = async {
            let summary = logs::Shipper::new(&self).run().await?;
            // The reporter is gone only where the attempt is fenced.
            let _ = shipped.send(summary);
            Ok(())
        };
        let report = events::Reporter::new(&self).run(logs_done);
        let both = async { tokio::try_join!(ship, report).map(|_| ()) };
        let end = tokio::select! {
            end = both => end,
            () = fence.cancelled() => Err(Fenced),
        };
        if end.is_err() {
            self.attempt.abandon();
        }
        end
    }
}

/// Ends an attempt of which nothing more can be told, in place of its events from this number on.
/// Tries until the orchestrator has an answer to it.
pub async fn report_fault(
    attempt: &Attempt,
    link: &Link,
    limits: backoff::Limits,
    first_seq: u64,
    message: String,
) {
    let (outcome, duration) = (Outcome::Internal { message }, Duration::ZERO);
    let kind = EventKind::JobFinished { outcome, duration, containers_removed: 0 };
    let events = vec![encode(Event { at: Timestamp::now(), kind }).0];
    let report = Report { first_seq, events, logs: Some(Vec::new()) };
    let mut tries = Tries::new("fault", limits);
    while let Err(error @ (CallError::Unreachable(_) | CallError::Failed(_))) =
        link.report(attempt.id, report.clone()).await
    {
        tries.failed(attempt, error).await;
    }
}

/// Tries of one thing: says what is wrong once per cause, and how long to wait.
#[derive(Debug)]
struct Tries {
    what: &'static str,
    backoff: Backoff,
    last: Option<CallError>,
}

impl Tries {
    fn new(what: &'static str, limits: backoff::Limits) -> Self {
        Self { what, backoff: Backoff::new(limits), last: None }
    }

    /// Waits before the next try.
    async fn failed(&mut self, attempt: &Attempt, error: CallError) {
        if self.last.as_ref() != Some(&error) {
            tracing::warn!(attempt = %attempt.id, what = self.what, error = %error, "delivery is held up; it goes on by itself");
            self.last = Some(error);
        }
        tokio::time::sleep(self.backoff.pause()).await;
    }

    fn worked(&mut self) {
        self.backoff.reset();
        self.last = None;
    }
}
