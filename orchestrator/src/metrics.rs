//! What can be measured of the orchestrator, for Prometheus. Every name here has a row in
//! docs/operations.md. Labels are few and their values known beforehand: never a build, a branch,
//! a repository or an agent.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use buildr_telemetry::{listener::Subject, names::Names};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::core::census::Census;

/// Bounds for what should take milliseconds, in seconds.
const FAST: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Bounds for what may take as long as people wait, in seconds.
const SLOW: [f64; 12] = [0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0];

/// Bounds for how many inputs share one commit.
const SIZES: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 32.0, 128.0, 256.0, 512.0];

/// The hub turns twice a second. After this long without it, it will not come back by itself.
const HUB_SILENT: Duration = Duration::from_secs(60);

/// One label, `outcome`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    pub(crate) outcome: &'static str,
}

/// One label, `state`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    state: &'static str,
}

/// One label, `limit`: which one was reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabel {
    pub(crate) limit: &'static str,
}

/// What was called and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct CallLabels {
    pub(crate) method: String,
    pub(crate) code: &'static str,
}

/// All that is measured. What is counted elsewhere is a handle here.
pub struct Metrics {
    registry: Registry,
    started: Instant,
    /// When the hub turned last, in milliseconds after the start.
    hub_turned: AtomicU64,
    store_works: AtomicBool,
    has_room: AtomicBool,
    stopping: AtomicBool,
    queue_jobs: Gauge,
    queue_oldest: Gauge<f64, AtomicU64>,
    attempts: Family<StateLabel, Gauge>,
    agents: Family<StateLabel, Gauge>,
    slots: Family<StateLabel, Gauge>,
    disk_free: Gauge,
    pub(crate) queue_wait: Histogram,
    pub(crate) dispatch: Histogram,
    pub(crate) submitted: Counter,
    pub(crate) finished: Family<OutcomeLabel, Counter>,
    pub(crate) attempts_lost: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) commit: Histogram,
    pub(crate) commit_inputs: Histogram,
    pub(crate) commits_failed: Counter,
    pub(crate) hub_input: Histogram,
    pub(crate) hub_waiting: Gauge,
    pub(crate) calls: Family<CallLabels, Counter>,
    pub(crate) calls_open: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) followers: Gauge,
    pub(crate) refused: Family<LimitLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut names = Names::new();
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        names.add("orchestrator", "The program that says this", version);
        Self {
            started: Instant::now(),
            hub_turned: AtomicU64::new(0),
            store_works: AtomicBool::new(true),
            has_room: AtomicBool::new(true),
            stopping: AtomicBool::new(false),
            queue_jobs: names.zero("queue_jobs", "Jobs that wait for a slot"),
            queue_oldest: names
                .zero("queue_oldest_seconds", "How long the job that waits longest has waited"),
            queue_wait: names.times("queue_wait_seconds", "From queued to accepted by an agent", SLOW),
            dispatch: names.times("dispatch_seconds", "From an offer to its committed acceptance", FAST),
            attempts: names.zero("attempts", "Attempts that are not over, by state"),
            agents: names.zero("agents", "Agents that are connected or hold an attempt, by state"),
            slots: names.zero("slots", "Slots of connected agents, by state"),
            submitted: names.zero("builds_submitted", "Builds that were accepted from clients"),
            finished: names.zero("builds_finished", "Builds that have their outcome, by outcome"),
            attempts_lost: names.zero("attempts_lost", "Attempts that ended without a result"),
            log_bytes: names.zero("log_bytes", "Bytes of logs that were taken from agents"),
            disk_free: names.zero("disk_free_bytes", "Free on the disk of the data folder"),
            commit: names.times("commit_seconds", "One commit to the store", FAST),
            commit_inputs: names.times("commit_inputs", "Inputs that shared one commit", SIZES),
            commits_failed: names.zero("commits_failed", "Commits that failed; nothing of them was answered"),
            hub_input: names.times(
                "hub_input_seconds",
                "From an input to its answer, waiting and commit included",
                FAST,
            ),
            hub_waiting: names.zero("hub_waiting", "Inputs that wait for the hub to have room"),
            calls: names.zero("grpc_calls", "Calls that have ended, by method and status"),
            calls_open: names.zero("grpc_calls_open", "Calls that have not ended"),
            connections: names.zero("grpc_connections", "Connections of agents and clients"),
            followers: names.zero("followers", "Streams of clients that follow builds and logs"),
            refused: names.zero("refused", "Connections and calls that were refused, by the limit reached"),
            registry: names.registry(),
        }
    }
}

impl Metrics {
    /// The hub lives, and has counted.
    pub(crate) fn hub_lives(&self, census: &Census, free: u64, has_room: bool) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.hub_turned.store(millis, Ordering::Relaxed);
        self.has_room.store(has_room, Ordering::Relaxed);
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let Census { queued, oldest, offered, preparing, running, .. } = *census;
        let Census { idle, busy, full, draining, silent, away, slots, free_slots, .. } = *census;
        self.disk_free.set(i64::try_from(free).unwrap_or(i64::MAX));
        self.queue_jobs.set(number(queued));
        self.queue_oldest.set(oldest.as_secs_f64());
        let set = |family: &Family<StateLabel, Gauge>, state, count| {
            family.get_or_create(&StateLabel { state }).set(number(count));
        };
        for (state, count) in [("offered", offered), ("preparing", preparing), ("running", running)] {
            set(&self.attempts, state, count);
        }
        let agents = [("idle", idle), ("busy", busy), ("full", full)];
        for (state, count) in
            agents.into_iter().chain([("draining", draining), ("silent", silent), ("away", away)])
        {
            set(&self.agents, state, count);
        }
        for (state, count) in [("free", free_slots), ("busy", slots.saturating_sub(free_slots))] {
            set(&self.slots, state, count);
        }
    }

    /// Whether the last commit worked.
    pub(crate) fn store_works(&self, works: bool) {
        self.store_works.store(works, Ordering::Relaxed);
    }

    /// Nothing new is taken from now on.
    pub(crate) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// A limit was reached.
    pub(crate) fn refuse(&self, limit: &'static str) {
        self.refused.get_or_create(&LimitLabel { limit }).inc();
    }
}

impl Subject for Metrics {
    fn metrics(&self) -> &Registry {
        &self.registry
    }

    fn dead(&self) -> Option<String> {
        let turned = Duration::from_millis(self.hub_turned.load(Ordering::Relaxed));
        let silent = self.started.elapsed().saturating_sub(turned);
        (silent > HUB_SILENT).then(|| format!("the hub has not turned for {} s", silent.as_secs()))
    }

    fn unready(&self) -> Option<String> {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let why = match () {
            () if is(&self.stopping) => "stopping",
            () if !is(&self.store_works) => "the store cannot be written",
            () if !is(&self.has_room) => "the disk has too little room for new builds (--min-free)",
            () => return None,
        };
        Some(why.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_or_cannot_store_is_not_ready() {
        let metrics = Metrics::default();
        assert_eq!(metrics.unready(), None);
        metrics.store_works(false);
        assert!(metrics.unready().is_some_and(|why| why.contains("store")));
        metrics.store_works(true);
        metrics.hub_lives(&Census::default(), 0, false);
        assert!(metrics.unready().is_some_and(|why| why.contains("disk")));
        metrics.stopping();
        assert_eq!(metrics.unready().as_deref(), Some("stopping"));
        assert_eq!(metrics.dead(), None);
    }
}
