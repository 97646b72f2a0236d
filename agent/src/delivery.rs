//! Brings an attempt's events and logs to the orchestrator, however long that takes, from the spool
//! alone: it neither knows nor cares whether the job still runs.

mod events;
mod logs;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{oneshot, watch};

use crate::{
    attempt::Attempt,
    backoff::{self, Backoff},
    config::Timing,
    link::{CallError, Link},
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
