//! The one way by which a job tells what happens, and the one by which it hears that it shall end.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use buildr_manifest::{Event, EventKind, StageName, StageState, Usage};

use crate::{
    job::{Item, Output, Stop},
    journal::{Journal, Record},
};

/// The sending end of a job's stream. Where nobody listens any more, the job goes on unheard.
///
/// Events are written to the run's journal before they are told, where it has one: so an engine that
/// takes the job over knows what was told. What a listener may miss is not.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    items: mpsc::Sender<Item>,
    journal: Option<Arc<Keeper>>,
}

/// Who writes a journal.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// None after an error.
    journal: Mutex<Option<Journal>>,
    trouble: watch::Sender<Option<String>>,
}

impl Feed {
    /// Without a journal nobody can take the job over.
    pub(crate) fn new(items: mpsc::Sender<Item>, journal: Option<Arc<Keeper>>) -> Self {
        Self { items, journal }
    }

    /// Writes a record, where there is a journal. What cannot be written ends the job: see
    /// [`Feed::trouble`].
    pub(crate) fn record(&self, record: &Record) {
        if let Some(keeper) = &self.journal {
            keeper.write(record);
        }
    }

    /// Comes back when the journal cannot be written, with the reason.
    pub(crate) async fn trouble(&self) -> String {
        let mut trouble = self.journal.as_ref().map(|keeper| keeper.trouble.subscribe());
        let reason = match &mut trouble {
            Some(trouble) => trouble.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone()),
            None => None,
        };
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Tells an event, with the time of now; waits while the listener is behind.
    pub(crate) async fn event(&self, kind: EventKind) {
        let event = Event { at: Timestamp::now(), kind };
        if self.journal.is_some() {
            self.record(&Record::Told { event: event.clone() });
        }
        self.again(event).await;
    }

    /// Tells an event that is in the journal already.
    pub(crate) async fn again(&self, event: Event) {
        let _unheard = self.items.send(Item::Event(event)).await;
    }

    /// Tells an event that may be lost where the listener is behind.
    pub(crate) fn ephemeral(&self, kind: EventKind) {
        let _lost = self.items.try_send(Item::Event(Event { at: Timestamp::now(), kind }));
    }

    /// Tells a warning.
    pub(crate) async fn warning(&self, message: impl Into<String>) {
        self.event(EventKind::Warning { message: message.into() }).await;
    }

    /// Tells how a stage ended that never ran.
    pub(crate) async fn never_ran(&self, stage: &StageName, state: StageState) {
        self.event(EventKind::StageFinished {
            stage: stage.clone(),
            state,
            allowed: false,
            log_bytes: 0,
            duration: Duration::ZERO,
            usage: Usage::default(),
        })
        .await;
    }

    /// Passes a piece of output on; waits while the listener is behind.
    pub(crate) async fn output(&self, output: Output) {
        let _unheard = self.items.send(Item::Output(output)).await;
    }
}

impl Keeper {
    /// The keeper of an open journal.
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal: Mutex::new(Some(journal)), trouble: watch::Sender::new(None) }
    }

    fn write(&self, record: &Record) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let written: io::Result<()> = journal.as_mut().map_or(Ok(()), |journal| journal.write(record));
        if let Err(error) = written {
            *journal = None;
            self.trouble.send_replace(Some(format!("the run's journal cannot be written: {error}")));
        }
    }
}

/// The wish that a job may end, as its owner sets it.
#[derive(Clone, Debug)]
pub(crate) struct StopSignal {
    wish: watch::Receiver<Stop>,
}

impl StopSignal {
    pub(crate) fn new(wish: &watch::Receiver<Stop>) -> Self {
        Self { wish: wish.clone() }
    }

    /// Who wants the job to end by now, if somebody does.
    pub(crate) fn by(&self) -> Option<String> {
        match &*self.wish.borrow() {
            Stop::No => None,
            Stop::Cancel { by } | Stop::Kill { by } => Some(by.clone()),
        }
    }

    /// True where it shall end at once.
    pub(crate) fn is_kill(&self) -> bool {
        matches!(&*self.wish.borrow(), Stop::Kill { .. })
    }

    /// Comes back when somebody wants the job to end, with their name.
    pub(crate) async fn requested(&self) -> String {
        self.wait(|stop| *stop != Stop::No).await
    }

    /// Comes back when somebody wants the job to end at once, with their name.
    pub(crate) async fn killed(&self) -> String {
        self.wait(|stop| matches!(stop, Stop::Kill { .. })).await
    }

    async fn wait(&self, wanted: impl FnMut(&Stop) -> bool) -> String {
        let mut wish = self.wish.clone();
        let by = match wish.wait_for(wanted).await.as_deref() {
            Ok(Stop::Cancel { by } | Stop::Kill { by }) => Some(by.clone()),
            // Who could have asked is gone: nobody ever will.
            Ok(Stop::No) | Err(_) => None,
        };
        match by {
            Some(by) => by,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cancel_is_not_yet_a_kill() {
        let (wish, heard) = watch::channel(Stop::No);
        let stop = StopSignal::new(&heard);
        assert_eq!(stop.by(), None);
        wish.send(Stop::Cancel { by: "ann".into() }).unwrap();
        assert_eq!(stop.requested().await, "ann");
        assert!(!stop.is_kill());
        wish.send(Stop::Kill { by: "bob".into() }).unwrap();
        assert_eq!(stop.killed().await, "bob");
    }

    #[tokio::test]
    async fn an_owner_that_went_away_stops_nothing() {
        let (wish, heard) = watch::channel(Stop::No);
        let stop = StopSignal::new(&heard);
        drop(wish);
        tokio::select! {
            biased;
            by = stop.requested() => panic!("{by}"),
            () = tokio::task::yield_now() => {}
        }
    }
}
