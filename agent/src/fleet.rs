//! All attempts of this process, and the slots that they run in. A slot and a place in the register
//! are freed when their guards are dropped, however a job ends.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use buildr_engine::job::{RunId, Stop};
use buildr_proto::AttemptId;
use tokio::sync::watch;

use crate::{
    attempt::{Attempt, Phase},
    link::Want,
};

/// The register of attempts.
#[derive(Clone, Debug)]
pub struct Fleet {
    slots: u32,
    attempts: Arc<Mutex<BTreeMap<AttemptId, Arc<Attempt>>>>,
    load: watch::Sender<Load>,
}

/// How much is going on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Attempts that the agent has in any phase.
    pub held: u32,
    /// Slots in use.
    pub busy: u32,
    /// Nothing new is taken.
    pub draining: bool,
}

/// Why an offer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is here already.
    #[error("the attempt is here already")]
    Known,
    /// The agent leaves.
    #[error("the agent is draining")]
    Draining,
    /// No slot is free.
    #[error("all {0} slots are busy")]
    Full(u32),
}

/// A place in the register; the attempt leaves it when this is dropped.
#[derive(Debug)]
pub struct Place {
    fleet: Fleet,
    attempt: Arc<Attempt>,
}

/// A slot in use; free again when this is dropped.
#[derive(Debug)]
pub struct Slot(Fleet);

impl Fleet {
    /// One with this many slots.
    pub fn new(slots: u32) -> Self {
        Self { slots, attempts: Arc::default(), load: watch::Sender::default() }
    }

    /// How much is going on, now and later.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.load.subscribe()
    }

    /// Takes nothing new from now on.
    pub fn drain(&self) {
        self.load.send_modify(|load| load.draining = true);
    }

    /// A place and a slot for an offered attempt.
    pub fn admit(&self, id: AttemptId) -> Result<(Place, Slot), Unfit> {
        let mut attempts = self.attempts();
        let load = *self.load.borrow();
        match () {
            () if attempts.contains_key(&id) => return Err(Unfit::Known),
            () if load.draining => return Err(Unfit::Draining),
            () if load.busy >= self.slots => return Err(Unfit::Full(self.slots)),
            () => {}
        }
        self.load.send_modify(|load| load.busy += 1);
        let place = self.enter(&mut attempts, id, Phase::Offered);
        Ok((place, Slot(self.clone())))
    }

    /// A place and a slot for a job of another process that goes on in this one. It runs already, so
    /// there is always a slot for it.
    pub fn resume(&self, id: AttemptId) -> (Place, Slot) {
        let mut attempts = self.attempts();
        self.load.send_modify(|load| load.busy += 1);
        (self.enter(&mut attempts, id, Phase::Running), Slot(self.clone()))
    }

    /// A place, without a slot, for what another process left.
    pub fn adopt(&self, id: AttemptId) -> Place {
        self.enter(&mut self.attempts(), id, Phase::Reporting)
    }

    fn enter(&self, attempts: &mut BTreeMap<AttemptId, Arc<Attempt>>, id: AttemptId, phase: Phase) -> Place {
        let attempt = Arc::new(Attempt::new(id, phase));
        attempts.insert(id, attempt.clone());
        self.load.send_modify(|load| load.held += 1);
        Place { fleet: self.clone(), attempt }
    }

    /// All attempts, oldest first.
    pub fn held(&self) -> Vec<Arc<Attempt>> {
        self.attempts().values().cloned().collect()
    }

    /// The attempts that may have containers.
    pub fn live(&self) -> HashSet<RunId> {
        let live = self.held().into_iter().filter(|attempt| attempt.phase() < Phase::Reporting);
        live.map(|attempt| run_id(attempt.id)).collect()
    }

    /// Does what the orchestrator wants of an attempt; one that is not here is none of our business.
    pub fn want(&self, id: AttemptId, want: Want) {
        let attempt = self.attempts().get(&id).cloned();
        if let Some(attempt) = attempt {
            attempt.want(want);
        }
    }

    /// Ends everything that runs.
    pub fn cancel_all(&self, by: &str) {
        for attempt in self.held() {
            attempt.request(Stop::Cancel { by: by.to_owned() });
        }
    }

    fn attempts(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Arc<Attempt>>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The engine's name for an attempt.
pub fn run_id(attempt: AttemptId) -> RunId {
    RunId::new(attempt.to_string()).expect("a ULID is 26 letters and digits")
}

impl Place {
    /// The attempt.
    pub fn attempt(&self) -> &Arc<Attempt> {
        &self.attempt
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.fleet.attempts().remove(&self.attempt.id);
        self.fleet.load.send_modify(|load| load.held -= 1);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.load.send_modify(|load| load.busy -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_never_exceed_the_slots_and_no_slot_leaks() {
        let fleet = Fleet::new(2);
        let first = fleet.admit(AttemptId::new()).unwrap();
        let second = fleet.admit(AttemptId::new()).unwrap();
        assert_eq!(fleet.admit(AttemptId::new()).unwrap_err(), Unfit::Full(2));
        drop(first.1);
        let third = fleet.admit(AttemptId::new()).unwrap();
        assert_eq!(*fleet.load().borrow(), Load { held: 3, busy: 2, draining: false });
        drop((first.0, second, third));
        assert_eq!(*fleet.load().borrow(), Load::default());
    }

    #[test]
    fn an_attempt_is_taken_once() {
        let fleet = Fleet::new(2);
        let id = AttemptId::new();
        let _held = fleet.admit(id).unwrap();
        assert_eq!(fleet.admit(id).unwrap_err(), Unfit::Known);
    }

    #[test]
    fn a_draining_agent_takes_nothing() {
        let fleet = Fleet::new(2);
        fleet.drain();
        assert_eq!(fleet.admit(AttemptId::new()).unwrap_err(), Unfit::Draining);
    }

    #[test]
    fn what_only_reports_has_no_containers() {
        let fleet = Fleet::new(1);
        let _left = fleet.adopt(AttemptId::new());
        let running = fleet.admit(AttemptId::new()).unwrap();
        assert_eq!(fleet.live(), HashSet::from([run_id(running.0.attempt().id)]));
        assert_eq!(fleet.held().len(), 2);
    }
}
