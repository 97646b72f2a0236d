//! The one task that owns the state machine.
//!
//! Inputs come through a bounded channel and are taken in batches: all that wait become one commit.
//! Nothing leaves before that commit, neither replies nor signals. If a commit fails, the memory is
//! thrown away and loaded again from the store, and all agents are told to connect again.

mod handle;
mod observer;
mod shared;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use buildr_proto::{AttemptId, BuildId};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

pub use self::{
    handle::Hub,
    shared::{Notice, Push, SpaceGuard},
};
use self::{
    observer::{Observer, Seen},
    shared::Shared,
};
use crate::{
    core::{
        Limits, State,
        input::{Effects, Input, Reply, Signal, Submit},
        record::Batch,
    },
    error::{Error, chain},
    metrics::Metrics,
    store::Store,
};

/// How many inputs may wait, and how many become one commit at most.
const WAITING: usize = 512;

/// How often time passes for the state machine. Its shortest limit is 5 seconds.
const TICK: Duration = Duration::from_millis(500);

/// How many offers one step makes; a batch has as many steps as it needs.
const OFFERS: usize = 64;

/// How long to wait before the store is tried again after it failed.
const RETRY: Duration = Duration::from_secs(1);

/// An input and who waits for its reply.
pub(crate) struct Message {
    input: Input,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

/// A reply that waits for the commit.
type Waiting = (oneshot::Sender<Result<Reply, Error>>, Result<Reply, Error>);

/// The owner of the state.
pub struct HubTask {
    state: State,
    limits: Limits,
    store: Arc<dyn Store>,
    inputs: mpsc::Receiver<Message>,
    shared: Arc<Shared>,
    clock: Clock,
    observer: Observer,
}

/// Wall-clock time that never jumps: read once, then counted on.
#[derive(Clone, Copy)]
struct Clock {
    started: Timestamp,
    at: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        self.started + self.at.elapsed()
    }
}

impl HubTask {
    /// Loads what is not finished, and gives the task and its handle.
    pub async fn load(
        store: Arc<dyn Store>,
        limits: Limits,
        space: SpaceGuard,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Hub), Error> {
        let (sender, inputs) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared::new(space));
        let clock = Clock { started: Timestamp::now(), at: Instant::now() };
        let mut task = Self {
            state: State::new(limits, 1),
            limits,
            store: store.clone(),
            inputs,
            shared: shared.clone(),
            clock,
            observer: Observer::new(metrics.clone()),
        };
        task.reload().await?;
        task.count();
        Ok((task, Hub::new(sender, store, shared, metrics)))
    }

    /// Runs until all handles are gone.
    pub async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(WAITING);
        loop {
            let ticked = tokio::select! {
                count = self.inputs.recv_many(&mut batch, WAITING) => {
                    if count == 0 {
                        return;
                    }
                    false
                }
                _ = tick.tick() => true,
            };
            if ticked {
                self.shared.housekeeping();
                self.observer.ticked();
            }
            self.turn(std::mem::take(&mut batch), ticked).await;
            if ticked {
                self.count();
            }
        }
    }

    /// Tells who watches what there is.
    fn count(&self) {
        let space = &self.shared.space;
        let census = self.state.census(self.clock.now());
        self.observer.metrics.hub_lives(&census, space.free(), space.check().is_ok());
    }

    /// One batch: steps, one commit, then everything that leaves.
    async fn turn(&mut self, batch: Vec<Message>, ticked: bool) {
        let known = match self.known_keys(&batch).await {
            Ok(known) => known,
            Err(error) => return refuse(batch.into_iter().map(|message| message.reply), &error),
        };
        let now = self.clock.now();
        let mut writes = Batch::default();
        let mut signals = Vec::new();
        let mut waiting: Vec<Waiting> = Vec::with_capacity(batch.len());
        let mut take = |effects: Effects| {
            writes.absorb(effects.writes);
            signals.extend(effects.signals);
            effects.reply
        };
        for Message { input, reply } in batch {
            let result = match self.refused_or_known(&input, &known) {
                Some(result) => result,
                None => take(self.state.step(input, now)).map_err(Error::from),
            };
            waiting.push((reply, result));
        }
        if ticked {
            drop(take(self.state.step(Input::Tick, now)));
        }
        loop {
            let ids = (0..OFFERS).map(|_| AttemptId::new()).collect();
            let made = take(self.state.step(Input::Dispatch { ids }, now));
            if !matches!(made, Ok(Reply::Dispatched(OFFERS))) {
                break;
            }
        }
        self.finish(writes, signals, waiting).await;
    }

    /// The answer to a submit that needs no step: its key was used before, or the disk is full.
    fn refused_or_known(&self, input: &Input, known: &[(String, BuildId)]) -> Option<Result<Reply, Error>> {
        let Input::Submit(Submit { key, .. }) = input else { return None };
        if let Some((_, build)) = known.iter().find(|(used, _)| used == key) {
            return Some(Ok(Reply::Submitted(*build)));
        }
        let is_new = self.state.build_of_key(key).is_none();
        is_new.then(|| self.shared.space.check().err()).flatten().map(Err)
    }

    async fn commit(&mut self, writes: Batch, inputs: usize) -> Result<(), Error> {
        if writes.is_empty() {
            return Ok(());
        }
        let (seen, began) = (Seen::of(&writes), Instant::now());
        match self.store.commit(writes).await {
            Ok(()) => self.observer.committed(&seen, inputs, began.elapsed()),
            Err(error) => {
                self.observer.failed();
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn finish(&mut self, writes: Batch, signals: Vec<Signal>, waiting: Vec<Waiting>) {
        if let Err(error) = self.commit(writes, waiting.len()).await {
            tracing::error!(error = %chain(&error), "a commit failed; loading the state again");
            refuse(waiting.into_iter().map(|(reply, _)| reply), &error);
            return self.recover().await;
        }
        // Watchers last: what they find when they wake must be what the others were told.
        let (changes, others): (Vec<Signal>, Vec<Signal>) =
            signals.into_iter().partition(|signal| matches!(signal, Signal::Changed(_)));
        let mut changed = BTreeSet::new();
        for signal in others {
            self.observer.leaves(&signal);
            self.shared.deliver(signal);
        }
        for signal in changes {
            if let Signal::Changed(build) = signal
                && changed.insert(build)
            {
                self.shared.deliver(signal);
            }
        }
        for (reply, result) in waiting {
            // Who asked may have gone; what was decided stands.
            drop(reply.send(result));
        }
    }

    /// The keys of this batch's submits that were used before.
    async fn known_keys(&self, batch: &[Message]) -> Result<Vec<(String, BuildId)>, Error> {
        let keys: Vec<String> = batch
            .iter()
            .filter_map(|message| match &message.input {
                Input::Submit(submit) if self.state.build_of_key(&submit.key).is_none() => {
                    Some(submit.key.clone())
                }
                _ => None,
            })
            .collect();
        if keys.is_empty() { Ok(Vec::new()) } else { Ok(self.store.builds_of_keys(keys).await?) }
    }

    async fn reload(&mut self) -> Result<(), Error> {
        let loaded = self.store.load().await?;
        let now = self.clock.now();
        let mut state = State::new(self.limits, loaded.next_build);
        for (key, build) in loaded.builds {
            state.restore(key, build, now);
        }
        state.restore_farm(loaded.drained, loaded.timetables);
        self.shared.reset(&state);
        self.state = state;
        Ok(())
    }

    async fn recover(&mut self) {
        while let Err(error) = self.reload().await {
            if self.inputs.is_closed() {
                return;
            }
            self.count();
            tracing::error!(error = %chain(&error), "the store cannot be read; trying again");
            sleep(RETRY).await;
        }
    }
}

/// Answers with an error that changed nothing.
fn refuse(replies: impl Iterator<Item = oneshot::Sender<Result<Reply, Error>>>, error: &Error) {
    let reason = chain(error);
    for reply in replies {
        drop(reply.send(Err(Error::NotCommitted(reason.clone()))));
    }
}
