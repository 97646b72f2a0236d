//! What the hub shares with the services: who listens to what, and which attempts are current. It
//! changes only after a commit, and nothing in it decides anything that is written.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use buildr_proto::{AgentId, AttemptId, BuildId, InstanceId, JobId, build::BuildEvent};
use bytesize::ByteSize;
use tokio::sync::{broadcast, mpsc};

use crate::{
    core::{
        State,
        input::{Claim, Desired, Offer, SessionId, Signal},
    },
    error::Error,
};

/// How many notices a slow watcher may be behind; then it reads from the store, as always.
const NOTICES: usize = 64;

/// Something for an agent's session.
#[derive(Debug)]
pub enum Push {
    /// A job to take.
    Offer(Box<Offer>),
    /// What is wanted of an attempt.
    Desired(Desired),
}

/// Something for whoever watches a build.
#[derive(Clone, Debug)]
pub enum Notice {
    /// There is something new in the store.
    Changed,
    /// An event that is shown and not stored.
    Live(Arc<BuildEvent>),
}

/// Tells whether there is enough space for new work.
#[derive(Debug)]
pub struct SpaceGuard {
    folder: PathBuf,
    least: ByteSize,
    low: AtomicBool,
    free: AtomicU64,
}

impl SpaceGuard {
    /// Guards the disk of a folder, of which this must be free.
    pub fn new(folder: PathBuf, least: ByteSize) -> Self {
        let guard = Self { folder, least, low: AtomicBool::new(false), free: AtomicU64::new(0) };
        guard.measure();
        guard
    }

    fn measure(&self) {
        let free = rustix::fs::statvfs(&self.folder).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if let Ok(free) = free {
            self.free.store(free, Ordering::Relaxed);
        }
        let low = free.is_ok_and(|free| free < self.least.as_u64());
        if low != self.low.swap(low, Ordering::Relaxed) {
            tracing::warn!(low, least = %self.least, "free space for the data folder has changed");
        }
    }

    /// What was free when it was measured last, in bytes.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// An error where there is not enough.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.low.load(Ordering::Relaxed) { Err(Error::LowSpace(self.least)) } else { Ok(()) }
    }
}

/// Who listens, and what is current.
pub(super) struct Shared {
    pub(super) space: SpaceGuard,
    sessions: Mutex<HashMap<SessionId, mpsc::Sender<Push>>>,
    watchers: Mutex<HashMap<BuildId, broadcast::Sender<Notice>>>,
    current: RwLock<HashMap<AttemptId, (AgentId, InstanceId, JobId)>>,
}

impl Shared {
    pub(super) fn new(space: SpaceGuard) -> Self {
        Self { space, sessions: Mutex::default(), watchers: Mutex::default(), current: RwLock::default() }
    }

    /// Begins anew with a loaded state: every session has to come again.
    pub(super) fn reset(&self, state: &State) {
        lock(&self.sessions).clear();
        let attempts = state.accepted_jobs();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = attempts
            .map(|(job, attempt)| (attempt.id, (attempt.agent.clone(), attempt.instance, job)))
            .collect();
    }

    pub(super) fn housekeeping(&self) {
        self.space.measure();
        lock(&self.watchers).retain(|_, watchers| watchers.receiver_count() > 0);
    }

    pub(super) fn deliver(&self, signal: Signal) {
        match signal {
            Signal::Offer(session, offer) => self.push(session, Push::Offer(offer)),
            Signal::Desired(session, desired) => self.push(session, Push::Desired(desired)),
            Signal::Close(session) => self.disconnect(session),
            Signal::Changed(build) => self.notify(build, Notice::Changed),
            Signal::Live(event) => self.notify(event.build, Notice::Live(Arc::new(event))),
            Signal::Current(Claim { attempt, agent, instance }, job) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                current.insert(attempt, (agent, instance, job));
            }
            Signal::Over(attempt) => {
                self.current.write().unwrap_or_else(PoisonError::into_inner).remove(&attempt);
            }
        }
    }

    /// Hands something to a session. One that does not keep up is ended: its agent comes again.
    fn push(&self, session: SessionId, push: Push) {
        let sent = lock(&self.sessions).get(&session).is_none_or(|sender| sender.try_send(push).is_ok());
        if !sent {
            self.disconnect(session);
        }
    }

    fn notify(&self, build: BuildId, notice: Notice) {
        if let Some(watchers) = lock(&self.watchers).get(&build) {
            // Nobody may be listening any more.
            drop(watchers.send(notice));
        }
    }

    pub(super) fn connect(&self, session: SessionId, sender: mpsc::Sender<Push>) {
        lock(&self.sessions).insert(session, sender);
    }

    pub(super) fn disconnect(&self, session: SessionId) {
        lock(&self.sessions).remove(&session);
    }

    pub(super) fn watch(&self, build: BuildId) -> broadcast::Receiver<Notice> {
        lock(&self.watchers).entry(build).or_insert_with(|| broadcast::channel(NOTICES).0).subscribe()
    }

    /// The agent and process that may write for an attempt now.
    pub(super) fn may_write(&self, claim: &Claim) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current
            .get(&claim.attempt)
            .is_some_and(|(agent, instance, _)| *agent == claim.agent && *instance == claim.instance)
    }

    /// Whether an attempt was accepted and is not over.
    pub(super) fn is_current(&self, attempt: AttemptId) -> bool {
        self.current.read().unwrap_or_else(PoisonError::into_inner).contains_key(&attempt)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
