//! What the agent wants of an engine. The seam is there so that the agent can be tested, and put
//! under load, without Docker.

mod engine;
mod plan;

use std::{collections::HashSet, future::Future, time::Duration};

use buildr_engine::{
    Reaped,
    job::{Finished, Heard, Item, JobRequest, NotAdopted, RunId, Stop},
};
use tokio::sync::{mpsc, watch};

use buildr_manifest::Outcome;
use buildr_proto::plan::BuildPlan;

/// Runs jobs.
///
/// `prepare`, `run` and `go_on` tell everything through `items`, in order, and end with the job's end as the
/// last item; only a prepare that went well does not end the job. They return after everything that
/// they made is gone, or is left to `reap`. A stop is obeyed at any time.
pub trait Runner: Send + Sync + 'static {
    /// A job that is ready to run. Dropping it leaves what it made to `reap`.
    type Prepared: Send + 'static;
    /// A job of an earlier process that can be gone on with.
    type Estate: Send + 'static;

    /// Brings the project here and reads its manifest.
    fn prepare(
        &self,
        request: JobRequest,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> impl Future<Output = Result<Ready<Self::Prepared>, Finished>> + Send;

    /// Runs it. Without a process that goes on with it, it ends by itself after `unattended`, where
    /// that is said.
    fn run(
        &self,
        prepared: Self::Prepared,
        unattended: Option<Duration>,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> impl Future<Output = Finished> + Send;

    /// Takes hold of a job that an earlier process of this agent ran.
    fn take_over(&self, run: &RunId) -> impl Future<Output = Result<Self::Estate, NotAdopted>> + Send;

    /// Goes on with it, for a listener that has heard so much of it; otherwise as `run`.
    fn go_on(
        &self,
        estate: Self::Estate,
        heard: Heard,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> impl Future<Output = Finished> + Send;

    /// Removes what belongs to this agent and to none of the live runs; tells how much. A run that begins while this works is not in `live`, and must be left alone too.
    fn reap(
        &self,
        live: &HashSet<RunId>,
    ) -> impl Future<Output = Result<Reaped, Box<dyn std::error::Error + Send + Sync>>> + Send;
}

/// A prepared job and what the orchestrator is told of it.
#[derive(Debug)]
pub struct Ready<P> {
    /// All jobs of the manifest, this one among them; or how the job ends, because no farm can do
    /// what the manifest wants.
    pub plan: Result<BuildPlan, Outcome>,
    /// The job.
    pub prepared: P,
}
