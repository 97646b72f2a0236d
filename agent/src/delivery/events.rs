//! Reports an attempt's events in order, and at the end what its logs must be. The job's end waits
//! for the logs: the orchestrator gets both in one call.

use buildr_manifest::EventKind;
use buildr_proto::limits::{MAX_EVENT_BYTES, MAX_EVENTS};
use tokio::sync::{oneshot, watch};

use super::{Delivery, Fenced, Tries, report_fault};
use crate::{
    link::{CallError, LogSummary, Report, encode},
    spool::Progress,
};

/// Room for what surrounds the events in a message.
const BATCH_BYTES: usize = MAX_EVENT_BYTES - (64 << 10);

pub(super) struct Reporter<'a> {
    delivery: &'a Delivery,
    progress: watch::Receiver<Progress>,
    acked: u64,
    logs: Option<Vec<LogSummary>>,
}

/// What to do next.
enum Next {
    Send(Report),
    Wait,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(delivery: &'a Delivery) -> Self {
        Self { delivery, progress: delivery.progress.clone(), acked: 0, logs: None }
    }

    /// Reports until the final report is committed. `logs` says when the logs are delivered.
    pub(super) async fn run(mut self, mut logs: oneshot::Receiver<Vec<LogSummary>>) -> Result<(), Fenced> {
        let mut tries = Tries::new("events", self.delivery.timing.reconnect);
        loop {
            if self.logs.is_none() {
                self.logs = logs.try_recv().ok();
            }
            match self.next() {
                Next::Send(report) => {
                    if self.send(report, &mut tries).await? {
                        return Ok(());
                    }
                }
                Next::Wait => self.wait(&mut logs).await?,
            }
        }
    }

    /// Waits for something to send.
    async fn wait(&mut self, logs: &mut oneshot::Receiver<Vec<LogSummary>>) -> Result<(), Fenced> {
        tokio::select! {
            changed = self.progress.changed(), if !self.progress.borrow().closed => {
                // A writer that went without closing its spool is a job that was dropped.
                changed.map_err(|_| Fenced)
            }
            summary = logs, if self.logs.is_none() => {
                self.logs = Some(summary.map_err(|_| Fenced)?);
                Ok(())
            }
        }
    }

    /// The next batch. The job's end goes only with the logs' summary.
    fn next(&mut self) -> Next {
        let (recorded, closed) = {
            let progress = self.progress.borrow_and_update();
            (progress.events, progress.closed)
        };
        let mut events = Vec::new();
        let mut size = 0;
        let most = usize::try_from(recorded.saturating_sub(self.acked)).unwrap_or(MAX_EVENTS).min(MAX_EVENTS);
        for event in self.delivery.outbox.after(self.acked, most) {
            if self.logs.is_none() && matches!(event.kind, EventKind::JobFinished { .. }) {
                break;
            }
            let (event, bytes) = encode(event);
            if size + bytes > BATCH_BYTES && !events.is_empty() {
                break;
            }
            size += bytes;
            events.push(event);
        }
        let all = self.acked + events.len() as u64 == recorded;
        let logs = self.logs.clone().filter(|_| all && closed);
        if events.is_empty() && logs.is_none() {
            return Next::Wait;
        }
        Next::Send(Report { first_seq: self.acked + 1, events, logs })
    }

    /// One call; true when it was the last.
    async fn send(&mut self, report: Report, tries: &mut Tries) -> Result<bool, Fenced> {
        let last = report.logs.is_some();
        let sent = report.first_seq - 1 + report.events.len() as u64;
        let attempt = &self.delivery.attempt;
        match self.delivery.link.report(attempt.id, report).await {
            Ok(reported) => {
                tries.worked();
                self.acked = reported.acked.min(sent);
                self.delivery.outbox.set_acked(self.acked);
                attempt.want(reported.want);
                Ok(last && self.acked == sent)
            }
            Err(CallError::Fenced(why)) => {
                tracing::warn!(attempt = %attempt.id, why, "the attempt is not ours any more; it is dropped");
                Err(Fenced)
            }
            Err(CallError::Rejected(why)) => {
                self.give_up(&why).await;
                Err(Fenced)
            }
            Err(error) => {
                if matches!(error, CallError::Gap(_)) {
                    self.acked = 0;
                }
                tries.failed(attempt, error).await;
                Ok(false)
            }
        }
    }
    /// Ends the job where the orchestrator refuses its events: sending them again changes nothing, and
    /// a build must not wait for that for ever.
    async fn give_up(&self, why: &str) {
        let Delivery { attempt, link, timing, .. } = self.delivery;
        tracing::error!(attempt = %attempt.id, why, "the orchestrator refuses the job's events; the job is ended");
        let message = format!("the orchestrator refused what the agent reported of the job: {why}");
        report_fault(attempt, link, timing.reconnect, self.acked + 1, message).await;
    }
}
