//! What the hub counts: read off what was committed and what leaves, so that the state machine
//! knows nothing of it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use buildr_proto::{AttemptId, build::BuildEventKind};

use crate::{
    core::{input::Signal, record::Batch},
    metrics::{Metrics, OutcomeLabel},
};

/// Offers are void long before.
const FORGOTTEN: Duration = Duration::from_secs(60);

pub(super) struct Observer {
    pub(super) metrics: Arc<Metrics>,
    /// When the offers were made that are not answered yet.
    offered: HashMap<AttemptId, Instant>,
}

/// What a batch says, kept until it is committed.
#[derive(Default)]
pub(super) struct Seen {
    submitted: u64,
    lost: u64,
    waits: Vec<f64>,
    outcomes: Vec<&'static str>,
}

impl Seen {
    pub(super) fn of(batch: &Batch) -> Self {
        let mut seen = Self { submitted: batch.new_builds.len() as u64, ..Self::default() };
        for event in &batch.events {
            match &event.kind {
                BuildEventKind::AttemptAccepted { .. } => {
                    if let Some(job) = batch.jobs.get(&(event.build, event.job)) {
                        seen.waits.push(event.at.duration_since(job.queued_at).as_secs_f64().max(0.0));
                    }
                }
                BuildEventKind::AttemptLost { .. } => seen.lost += 1,
                BuildEventKind::Finished(outcome) => seen.outcomes.push(outcome.word()),
                _ => {}
            }
        }
        seen
    }
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, offered: HashMap::new() }
    }

    /// A batch of so many inputs was committed in this time.
    pub(super) fn committed(&mut self, seen: &Seen, inputs: usize, took: Duration) {
        let metrics = &self.metrics;
        metrics.store_works(true);
        metrics.commit.observe(took.as_secs_f64());
        metrics.commit_inputs.observe(inputs as f64);
        metrics.submitted.inc_by(seen.submitted);
        metrics.attempts_lost.inc_by(seen.lost);
        seen.waits.iter().for_each(|wait| metrics.queue_wait.observe(*wait));
        for outcome in &seen.outcomes {
            metrics.finished.get_or_create(&OutcomeLabel { outcome }).inc();
        }
    }

    /// Nothing was committed.
    pub(super) fn failed(&self) {
        self.metrics.store_works(false);
        self.metrics.commits_failed.inc();
    }

    /// This leaves now.
    pub(super) fn leaves(&mut self, signal: &Signal) {
        match signal {
            Signal::Offer(_, offer) => drop(self.offered.insert(offer.attempt, Instant::now())),
            Signal::Current(claim, _) => {
                if let Some(offered) = self.offered.remove(&claim.attempt) {
                    self.metrics.dispatch.observe(offered.elapsed().as_secs_f64());
                }
            }
            _ => {}
        }
    }

    /// Time passes.
    pub(super) fn ticked(&mut self) {
        self.offered.retain(|_, at| at.elapsed() < FORGOTTEN);
    }
}
