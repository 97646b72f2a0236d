//! The real engine as a [`Runner`].

use std::collections::HashSet;

use buildr_engine::{
    Engine, Reaped,
    job::{Finished, Item, JobRequest, Prepared, RunId, Stop},
};
use tokio::sync::{mpsc, watch};

use super::{Ready, Runner, plan::plan_of};

impl Runner for Engine {
    type Prepared = Prepared;

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
        prepared: Prepared,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        Engine::run(self, prepared, items, stop).await
    }

    async fn reap(&self, live: &HashSet<RunId>) -> Result<Reaped, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Engine::reap(self, live).await?)
    }
}
