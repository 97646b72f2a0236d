//! The real engine as a [`Runner`].

use std::{collections::HashSet, time::Duration};

use buildr_engine::{
    Engine, Estate, Reaped,
    job::{Finished, Heard, Item, JobRequest, NotAdopted, Prepared, RunId, Stop},
};
use tokio::sync::{mpsc, watch};

use super::{Ready, Runner, plan::plan_of};

impl Runner for Engine {
    type Prepared = Prepared;
    type Estate = Estate;

    async fn prepare(
        &self,
        request: JobRequest,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Ready<Prepared>, Finished> {
        let prepared = Engine::prepare(self, request, items, stop).await?;
        let plan = plan_of(&prepared);
        Ok(Ready { plan, prepared })
    }

    async fn run(
        &self,
        mut prepared: Prepared,
        unattended: Option<Duration>,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        if let Some(limit) = unattended {
            prepared.end_unattended_after(limit);
        }
        Engine::run(self, prepared, items, stop).await
    }

    async fn take_over(&self, run: &RunId) -> Result<Estate, NotAdopted> {
        Engine::take_over(self, run).await
    }

    async fn go_on(
        &self,
        estate: Estate,
        heard: Heard,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        Engine::go_on(self, estate, heard, items, stop).await
    }

    async fn reap(&self, live: &HashSet<RunId>) -> Result<Reaped, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Engine::reap(self, live).await?)
    }
}
