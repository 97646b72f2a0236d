//! What can be measured of the agent, for Prometheus. Every name here has a row in
//! docs/operations.md. Labels are few and their values known beforehand.

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::AtomicU64},
};

use buildr_engine::Reaped;
use buildr_manifest::EventKind;
use buildr_telemetry::{listener::Subject, names::Names};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use tokio::sync::watch;

use crate::{fleet::Fleet, session::Connection};

/// Bounds for the phases of a job, in seconds.
const TIMES: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0, 1800.0, 7200.0];

/// One label, `phase`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabel {
    phase: &'static str,
}

/// One label, `outcome`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// One label, `state`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// One label, `what`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

/// All that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Where to look when somebody asks.
    sight: OnceLock<Sight>,
    slots: Family<StateLabel, Gauge>,
    attempts: Gauge,
    connected: Gauge,
    spool: Gauge<u64, AtomicU64>,
    undelivered: Gauge<u64, AtomicU64>,
    disk_free: Gauge<u64, AtomicU64>,
    phases: Family<PhaseLabel, Histogram, fn() -> Histogram>,
    finished: Family<OutcomeLabel, Counter>,
    reaped: Family<WhatLabel, Counter>,
}

/// What is looked at when somebody asks.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) fleet: Fleet,
    pub(crate) slots: u32,
    pub(crate) connection: watch::Receiver<Connection>,
    pub(crate) folder: PathBuf,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut names = Names::new();
        names.add("agent", "The program that says this", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let phases = Family::new_with_constructor((|| Histogram::new(TIMES)) as fn() -> Histogram);
        names.add("agent_phase_seconds", "How long a phase of a job took", phases.clone());
        Self {
            sight: OnceLock::new(),
            slots: names.zero("agent_slots", "Slots, by state"),
            attempts: names.zero("agent_attempts", "Attempts in any phase, delivery included"),
            connected: names.zero("agent_connected", "1 while the orchestrator has let the agent in"),
            spool: names.zero("agent_spool_bytes", "Bytes of logs in the spool"),
            undelivered: names.zero("agent_undelivered_bytes", "Bytes of logs that are not acknowledged"),
            disk_free: names.zero("agent_disk_free_bytes", "Free on the disk of the data folder"),
            phases,
            finished: names.zero("agent_jobs_finished", "Jobs that ended here, by outcome"),
            reaped: names.zero("agent_reaped", "What nobody owned and was removed"),
            registry: names.registry(),
        }
    }
}

impl Metrics {
    /// From now on it knows what there is. Only the first time counts.
    pub(crate) fn see(&self, sight: Sight) {
        let _first_time = self.sight.set(sight);
    }

    /// Something happened to a job.
    pub(crate) fn observe(&self, event: &EventKind) {
        let phase = |phase, took: std::time::Duration| {
            self.phases.get_or_create(&PhaseLabel { phase }).observe(took.as_secs_f64());
        };
        match event {
            EventKind::SourceReady { took } => phase("source", *took),
            EventKind::ContainerReady { pull, start, .. } => {
                phase("pull", *pull);
                phase("start", *start);
            }
            EventKind::ServiceReady { took, .. } => phase("service", *took),
            EventKind::StageFinished { duration, .. } if !duration.is_zero() => phase("stage", *duration),
            EventKind::JobFinished { outcome, duration, .. } => {
                phase("job", *duration);
                self.finished.get_or_create(&OutcomeLabel { outcome: outcome.word() }).inc();
            }
            _ => {}
        }
    }

    /// The reaper has worked.
    pub(crate) fn reaped(&self, reaped: &Reaped) {
        let Reaped { containers, networks, volumes, folders } = *reaped;
        let all =
            [("containers", containers), ("networks", networks), ("volumes", volumes), ("folders", folders)];
        for (what, count) in all {
            self.reaped.get_or_create(&WhatLabel { what }).inc_by(u64::from(count));
        }
    }

    fn look(&self, sight: &Sight) {
        let load = *sight.fleet.load().borrow();
        let free = sight.slots.saturating_sub(load.busy);
        for (state, count) in [("busy", load.busy), ("free", free)] {
            self.slots.get_or_create(&StateLabel { state }).set(i64::from(count));
        }
        self.attempts.set(i64::from(load.held));
        self.connected.set(i64::from(matches!(*sight.connection.borrow(), Connection::Up(_))));
        let (mut written, mut undelivered) = (0, 0);
        for attempt in sight.fleet.held() {
            let here: u64 = attempt.progress().logs.iter().map(|log| log.written).sum();
            written += here;
            undelivered += here.saturating_sub(attempt.delivered());
        }
        self.spool.set(written);
        self.undelivered.set(undelivered);
        if let Ok(disk) = rustix::fs::statvfs(&sight.folder) {
            self.disk_free.set(disk.f_bavail.saturating_mul(disk.f_frsize));
        }
    }
}

/// An agent as those see it who watch.
pub struct Watched(pub Arc<Metrics>);

impl Subject for Watched {
    fn metrics(&self) -> &Registry {
        if let Some(sight) = self.0.sight.get() {
            self.0.look(sight);
        }
        &self.0.registry
    }

    fn dead(&self) -> Option<String> {
        // It answers: its threads work. Work goes on without an orchestrator, so that is no reason.
        None
    }

    fn unready(&self) -> Option<String> {
        let sight = self.0.sight.get()?;
        let draining = sight.fleet.load().borrow().draining;
        let connected = matches!(*sight.connection.borrow(), Connection::Up(_));
        match () {
            () if draining => Some("draining".to_owned()),
            () if !connected => Some("no session with the orchestrator".to_owned()),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use buildr_manifest::Outcome;

    use super::*;

    fn watched(connection: &watch::Sender<Connection>, fleet: &Fleet) -> Watched {
        let metrics = Arc::<Metrics>::default();
        let folder = std::env::temp_dir();
        metrics.see(Sight { fleet: fleet.clone(), slots: 2, connection: connection.subscribe(), folder });
        Watched(metrics)
    }

    /// Every name of a scrape as its samples have it.
    fn scraped(subject: &impl Subject) -> (String, BTreeSet<String>) {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, subject.metrics()).unwrap();
        let names = text.lines().filter_map(|line| {
            let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
            Some(match kind {
                "counter" => format!("{name}_total"),
                "info" => format!("{name}_info"),
                _ => name.to_owned(),
            })
        });
        let names = names.collect();
        (text, names)
    }

    #[test]
    fn what_happens_is_measured_and_every_metric_is_documented() {
        let subject = watched(&watch::Sender::default(), &Fleet::new(2));
        let second = Duration::from_secs(1);
        subject.0.observe(&EventKind::SourceReady { took: second });
        let (outcome, containers_removed) = (Outcome::Passed, 1);
        subject.0.observe(&EventKind::JobFinished { outcome, duration: second, containers_removed });
        subject.0.reaped(&Reaped { containers: 3, ..Reaped::default() });
        let (text, names) = scraped(&subject);
        for sample in [
            "buildr_agent_phase_seconds_sum{phase=\"source\"} 1.0",
            "buildr_agent_jobs_finished_total{outcome=\"passed\"} 1",
            "buildr_agent_reaped_total{what=\"containers\"} 3",
            "buildr_agent_slots{state=\"free\"} 2",
            "buildr_agent_connected 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "no {sample} in\n{text}");
        }
        let documented: BTreeSet<String> = include_str!("../../docs/operations.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `buildr_agent_")?.split(['`', '{']).next())
            .map(|name| format!("buildr_agent_{name}"))
            .collect();
        assert_eq!(names, documented, "docs/operations.md has other names");
    }

    #[test]
    fn an_agent_is_ready_while_it_is_connected_and_takes_work() {
        let (connection, fleet) = (watch::Sender::default(), Fleet::new(2));
        let subject = watched(&connection, &fleet);
        assert!(subject.unready().is_some_and(|why| why.contains("session")));
        connection.send_replace(Connection::Up(buildr_proto::AgentId::from_digest(&[7; 32])));
        assert_eq!(subject.unready(), None);
        fleet.drain();
        assert_eq!(subject.unready().as_deref(), Some("draining"));
        assert_eq!(subject.dead(), None);
    }
}
