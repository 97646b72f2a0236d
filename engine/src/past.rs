//! What a journal says of a job: its plan, how far it is, and what was told. Pure but for the time that
//! it takes to plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use buildr_manifest::{Event, EventKind, JobPlan, Manifest, Outcome, ServiceName, StageName};

use crate::{
    job::SourceSpec,
    journal::{Begun, ContainerRecord, Record, Try},
    state::State,
    texts::Texts,
};

/// A job whose engine is no more.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) begun: Box<Begun>,
    pub(crate) plan: JobPlan,
    pub(crate) state: State,
    /// All that was told, in order.
    pub(crate) events: Vec<Event>,
    pub(crate) texts: Option<Texts>,
    /// The containers that were to be made, by the stage that each is for alone.
    pub(crate) containers: BTreeMap<Option<usize>, ContainerRecord>,
    /// Those of them that were told to be ready.
    pub(crate) ready: BTreeSet<Option<usize>>,
    /// The files of the commit are here, or were always.
    pub(crate) has_files: bool,
    /// The commit, where there is one.
    pub(crate) commit: Option<String>,
    /// The services that were told to be ready.
    pub(crate) services: BTreeSet<ServiceName>,
    /// What each stage that began has been through.
    pub(crate) stages: BTreeMap<usize, StagePast>,
    /// When the end of the job began, since the machine was started.
    pub(crate) ending: Option<Duration>,
    /// The last word was said.
    pub(crate) finished: Option<Outcome>,
}

/// What a stage has been through.
#[derive(Clone, Debug, Default)]
pub(crate) struct StagePast {
    /// Its beginning was told.
    pub(crate) started: bool,
    /// Its tries, in order.
    pub(crate) tries: Vec<Try>,
    /// How many steps of its last try were told.
    pub(crate) steps: usize,
    /// The last retry that was told: the try that follows, and where in the log it begins.
    pub(crate) next: Option<(u32, u64)>,
}

impl Past {
    /// Puts a journal together; none where no code of the build can have run yet.
    pub(crate) fn read(records: Vec<Record>) -> Result<Option<Self>, String> {
        let begun = records.iter().find_map(|record| match record {
            Record::Begun(begun) => Some(begun.clone()),
            _ => None,
        });
        let Some(begun) = begun else { return Ok(None) };
        let plan = plan(&begun)?;
        let mut past = Self {
            state: State::new(&plan),
            has_files: matches!(begun.request.source, SourceSpec::Folder(_)),
            commit: begun.context.commit.clone(),
            plan,
            begun,
            events: Vec::new(),
            texts: None,
            containers: BTreeMap::new(),
            ready: BTreeSet::new(),
            services: BTreeSet::new(),
            stages: BTreeMap::new(),
            ending: None,
            finished: None,
        };
        records.into_iter().for_each(|record| past.add(record));
        Ok(Some(past))
    }

    fn add(&mut self, record: Record) {
        match record {
            Record::Begun(_) => {}
            Record::Texts(texts) => self.texts = Some(texts),
            Record::Container(container) => {
                self.ready.remove(&container.stage);
                self.containers.insert(container.stage, container);
            }
            Record::Try(one) => {
                let stage = self.stages.entry(one.stage).or_default();
                stage.steps = 0;
                // One that was recorded twice began once: its start was never sent before.
                stage.tries.retain(|other| other.attempt != one.attempt);
                stage.tries.push(one);
            }
            Record::HandedOver { values, .. } => self.state.handed_over(values),
            Record::Decided { outcome } => self.state.decided(outcome),
            Record::Ending { outcome, at } => {
                self.state.ending(outcome);
                self.ending = Some(at);
            }
            Record::Told { event } => self.told(event),
        }
    }

    fn told(&mut self, event: Event) {
        match &event.kind {
            EventKind::SourceReady { .. } => self.has_files = true,
            EventKind::ContainerReady { stage, .. } => {
                let stage = stage.as_ref().and_then(|stage| self.at(stage));
                self.ready.insert(stage);
            }
            EventKind::ServiceReady { service, .. } => {
                self.services.insert(service.clone());
            }
            EventKind::StageStarted { stage } => {
                if let Some(at) = self.at(stage) {
                    self.state.started(at);
                    self.stages.entry(at).or_default().started = true;
                }
            }
            EventKind::StepStarted { stage, .. } => {
                if let Some(at) = self.at(stage) {
                    self.stages.entry(at).or_default().steps += 1;
                }
            }
            EventKind::StageRetried { stage, attempt, log_bytes, .. } => {
                if let Some(at) = self.at(stage) {
                    self.stages.entry(at).or_default().next = Some((attempt + 1, *log_bytes));
                }
            }
            EventKind::StageFinished { stage, state, allowed, .. } => {
                if let Some(at) = self.at(stage) {
                    self.state.ended(&self.plan, at, state, *allowed);
                }
            }
            EventKind::JobFinished { outcome, .. } => self.finished = Some(outcome.clone()),
            _ => {}
        }
        self.events.push(event);
    }

    /// The place of a stage in the plan.
    pub(crate) fn at(&self, name: &StageName) -> Option<usize> {
        self.plan.job.stages.iter().position(|stage| stage.stage.name == *name)
    }
}

/// The same plan again.
fn plan(begun: &Begun) -> Result<JobPlan, String> {
    let (manifest, _) =
        Manifest::parse(begun.manifest.as_bytes(), &begun.name).map_err(|problems| problems.render(false))?;
    let plan = manifest.plan(&begun.context).and_then(|plan| plan.narrowed(&begun.request.part));
    let plan = plan.map_err(|problems| problems.render(false))?;
    plan.supported_job(&begun.request.pick).map_err(|problems| problems.render(false))
}
