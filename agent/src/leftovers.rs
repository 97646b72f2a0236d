//! What an earlier process of this agent left, however that one ended: builds that still run are
//! adopted, results are delivered, and what had not begun is given back. All of it is taken up before
//! the first hello, because the orchestrator is told there what this process has.

use std::sync::Arc;

use buildr_engine::NotAdopted;
use buildr_manifest::Outcome;
use buildr_proto::AttemptId;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use crate::{
    delivery::{Delivery, Fenced},
    fleet::{Fleet, Place, Slot, run_id},
    job::{ITEMS, Shop, Work},
    lifeline,
    runner::Runner,
    session::Connection,
    spool::{self, Found, Writer},
};

/// Something that was left and is this process's now.
pub enum Leftover<E> {
    /// The job is over, or nothing can go on with it: what there is of it is to be delivered.
    Over {
        /// Its spool.
        writer: Writer,
        /// The attempt.
        place: Place,
    },
    /// The job goes on.
    Alive(Alive<E>),
}

/// A job that is gone on with.
pub struct Alive<E> {
    writer: Writer,
    place: Place,
    slot: Slot,
    estate: E,
}

impl<R: Runner> Shop<R> {
    /// Takes up what was left.
    pub async fn take_up(&self, fleet: &Fleet) -> Result<Vec<Leftover<R::Estate>>, spool::Error> {
        let spool = self.spool.clone();
        // A panic in there is a spool that cannot be read: nothing of it is named.
        let found = spawn_blocking(move || spool.leftovers()).await.unwrap_or_else(|_| Ok(Vec::new()))?;
        let mut leftovers = Vec::new();
        for found in found {
            leftovers.extend(self.take_up_one(found, fleet).await);
        }
        Ok(leftovers)
    }

    async fn take_up_one(&self, found: Found, fleet: &Fleet) -> Option<Leftover<R::Estate>> {
        let Found { attempt: id, writer, fence } = found;
        if writer.is_finished() {
            tracing::info!(attempt = %id, "an earlier process of this agent left results to deliver");
            return Some(over(id, writer, fleet));
        }
        let estate = match self.runner.take_over(&run_id(id)).await {
            Ok(estate) => estate,
            Err(why) if writer.has_begun() => {
                tracing::warn!(attempt = %id, ?why, "an earlier process of this agent left a job with which nobody can go on");
                return Some(over(id, writer, fleet));
            }
            Err(NotAdopted::NotBegun | NotAdopted::NotHere) => {
                tracing::info!(attempt = %id, "an earlier process ended before the job began; it goes back to the queue");
                self.drop_spool(id).await;
                return None;
            }
        };
        tracing::info!(attempt = %id, "a job of an earlier process of this agent is adopted");
        let (place, slot) = fleet.resume(id);
        place.attempt().attach(writer.progress());
        if let Some(fence) = fence {
            place.attempt().fence_after(Some(fence.after));
            // After a restart of the machine nothing of the job runs, and its clock began anew.
            if lifeline::boot().is_some_and(|boot| boot == fence.boot) {
                self.lifeline.silent_since(fence.answered);
            }
        }
        Some(Leftover::Alive(Alive { writer, place, slot, estate }))
    }

    /// Brings what was left to its end.
    pub async fn settle(
        self: Arc<Self>,
        leftover: Leftover<R::Estate>,
        connection: watch::Receiver<Connection>,
    ) {
        match leftover {
            Leftover::Over { writer, place } => {
                if is_up(connection).await {
                    self.deliver_leftover(writer, place).await;
                }
            }
            Leftover::Alive(alive) => self.resume(alive, connection).await,
        }
    }

    /// Goes on with a job, whether or not the orchestrator is there; it is delivered to once it has
    /// bound the attempt to this process.
    async fn resume(self: Arc<Self>, alive: Alive<R::Estate>, connection: watch::Receiver<Connection>) {
        let Alive { writer, place, slot, estate } = alive;
        let (attempt, heard) = (place.attempt().clone(), writer.heard());
        let mut delivery = Delivery::new(attempt.clone(), self.link.clone(), self.timing, &writer);
        delivery.resumed = true;
        let fence = attempt.fence().clone();
        let deliver = async move {
            tokio::select! {
                true = is_up(connection) => delivery.run().await,
                () = fence.cancelled() => Err(Fenced),
            }
        };
        let (items, queue) = mpsc::channel(ITEMS);
        let shop = self.clone();
        let work = async move {
            shop.runner.go_on(estate, heard, &items, &attempt.stop()).await;
            Work::Told
        };
        self.carry_through((writer, queue), place, slot, deliver, work).await;
    }

    /// Delivers what an earlier process left. The orchestrator has let this one in.
    async fn deliver_leftover(&self, mut writer: Writer, place: Place) {
        let (attempt, agent) = (place.attempt().clone(), self.name.clone());
        let closed = spawn_blocking(move || {
            writer.close(Outcome::AgentLost { agent });
            writer
        });
        if let Ok(writer) = closed.await {
            let mut delivery = Delivery::new(attempt.clone(), self.link.clone(), self.timing, &writer);
            delivery.resumed = true;
            let delivered = delivery.run().await;
            tracing::info!(attempt = %attempt.id, delivered = delivered.is_ok(), "what an earlier process left is dealt with");
        }
        self.forget(place).await;
    }
}

fn over<E>(id: AttemptId, writer: Writer, fleet: &Fleet) -> Leftover<E> {
    let place = fleet.adopt(id);
    place.attempt().attach(writer.progress());
    Leftover::Over { writer, place }
}

/// Comes back once the orchestrator has let this process in; false where it never can any more.
async fn is_up(mut connection: watch::Receiver<Connection>) -> bool {
    connection.wait_for(|now| matches!(now, Connection::Up(_))).await.is_ok()
}
