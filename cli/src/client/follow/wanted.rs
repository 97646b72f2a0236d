//! Which events of a build a reader wants to have, and when it has had all that it wants.

use std::collections::{BTreeMap, BTreeSet};

use buildr_manifest::{EventKind, LogName, ServiceName, StageName};
use buildr_proto::build::{Build, BuildEvent, StageProgress};

use super::{super::watch::LogKey, is_failure, job_event};

/// Which stages are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stages {
    /// All.
    #[default]
    All,
    /// These.
    Named(BTreeSet<StageName>),
    /// Those that failed; each is given when it has.
    Failed,
}

impl Stages {
    /// True for a stage that is wanted as it stands.
    pub fn want(&self, name: &StageName, progress: &StageProgress) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
            Self::Failed => matches!(progress, StageProgress::Finished(state) if is_failure(state)),
        }
    }
}

/// Lets through what is wanted.
pub(super) struct Selection {
    stages: Stages,
    services: BTreeSet<ServiceName>,
    /// Where to begin in some logs; the others from byte 0.
    begin: BTreeMap<LogName, u64>,
    /// With [`Stages::Failed`]: the events of stages that have not ended yet.
    stash: BTreeMap<LogKey, Vec<BuildEvent>>,
}

impl Selection {
    pub(super) fn new(
        stages: Stages,
        services: BTreeSet<ServiceName>,
        begin: BTreeMap<LogName, u64>,
    ) -> Self {
        Self { stages, services, begin, stash: BTreeMap::new() }
    }

    /// Where to begin in a log.
    pub(super) fn begin(&self, log: &LogName) -> u64 {
        self.begin.get(log).copied().unwrap_or(0)
    }

    /// True for a service whose output is wanted.
    pub(super) fn wants_service(&self, name: &ServiceName) -> bool {
        self.services.contains(name)
    }

    /// The events to be given because of this one, in order.
    pub(super) fn admit(&mut self, event: BuildEvent) -> Vec<BuildEvent> {
        let stage = job_event(&event).and_then(EventKind::position).map(|(stage, _)| stage.clone());
        let Some(stage) = stage else { return vec![event] };
        let mut events = match &self.stages {
            Stages::All => vec![event],
            Stages::Named(names) if names.contains(&stage) => vec![event],
            Stages::Named(_) => Vec::new(),
            Stages::Failed => self.stash(event, stage),
        };
        events.retain(|event| !self.is_before_begin(event));
        events
    }

    /// Keeps the events of a stage until it is known whether it failed.
    fn stash(&mut self, event: BuildEvent, stage: StageName) -> Vec<BuildEvent> {
        let key = LogKey { job: event.job, attempt: event.attempt, log: stage.into() };
        let Some(EventKind::StageFinished { state, .. }) = job_event(&event) else {
            self.stash.entry(key).or_default().push(event);
            return Vec::new();
        };
        let failed = is_failure(state);
        let mut events = self.stash.remove(&key).unwrap_or_default();
        events.push(event);
        if failed { events } else { Vec::new() }
    }

    /// A step above the place where the reader wants to begin.
    fn is_before_begin(&self, event: &BuildEvent) -> bool {
        match job_event(event) {
            Some(EventKind::StepStarted { stage, offset, .. }) => *offset < self.begin(&stage.clone().into()),
            _ => false,
        }
    }
}

/// What was there when the stream began and was not given yet.
pub(super) struct Remaining(BTreeMap<LogName, Upto>);

/// How much was there of a stage.
#[derive(Clone, Copy, Debug)]
enum Upto {
    /// It had ended: up to its last event.
    End,
    /// It ran: its log up to here.
    Offset(u64),
}

impl Remaining {
    /// All that is wanted of a build as it stands.
    pub(super) fn of(build: &Build, wanted: &Stages) -> Self {
        let stages = build.jobs.iter().flat_map(|job| &job.stages);
        let wanted = stages.filter(|stage| wanted.want(&stage.name, &stage.progress));
        let there = wanted.filter_map(|stage| match stage.progress {
            StageProgress::Waiting => None,
            StageProgress::Running => Some((stage.name.clone().into(), Upto::Offset(stage.log_bytes))),
            StageProgress::Finished(_) => Some((stage.name.clone().into(), Upto::End)),
        });
        Self(there.collect())
    }

    /// A log was given up to here.
    pub(super) fn shown(&mut self, log: &LogName, offset: u64) {
        if matches!(self.0.get(log), Some(Upto::Offset(wanted)) if offset >= *wanted) {
            self.0.remove(log);
        }
    }

    /// A stage was given up to its last event.
    pub(super) fn ended(&mut self, log: &LogName) {
        self.0.remove(log);
    }

    /// True if nothing remains.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
