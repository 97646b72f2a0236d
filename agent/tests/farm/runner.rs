//! An engine without containers: each job that it is given to run is handed to the test.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use buildr_agent::runner::{Ready, Runner};
use buildr_engine::Reaped;
use buildr_engine::job::{Finished, Heard, Item, JobRequest, NotAdopted, Output, RunId, Stop};
use buildr_manifest::{Event, EventKind, Outcome, StageName, StageState, Usage};
use buildr_proto::plan::{BuildPlan, PlannedJob};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) struct FakeRunner {
    pub(crate) jobs: mpsc::UnboundedSender<Job>,
    pub(crate) reaps: watch::Sender<usize>,
    pub(crate) runs: Runs,
}

/// The runs that have begun and are not over: what is on the machine, whichever process looks at it.
pub(crate) type Runs = Arc<Mutex<HashMap<RunId, JobRequest>>>;

/// A job in the hands of a test.
pub(crate) struct Job {
    pub(crate) request: JobRequest,
    pub(crate) stop: watch::Receiver<Stop>,
    /// What an earlier process had kept of it.
    pub(crate) heard: Heard,
    /// How soon it ends when nobody goes on with it.
    pub(crate) unattended: Option<Duration>,
    items: mpsc::Sender<Item>,
    done: oneshot::Sender<Finished>,
    written: u64,
}

fn event(kind: EventKind) -> Item {
    Item::Event(Event { at: Timestamp::now(), kind })
}

pub(crate) fn stage(name: &str) -> StageName {
    StageName::new(name).unwrap()
}

impl Job {
    pub(crate) async fn tell(&self, kind: EventKind) {
        self.items.send(event(kind)).await.unwrap();
    }

    pub(crate) async fn begin(&mut self, name: &str) {
        self.written = 0;
        self.tell(EventKind::StageStarted { stage: stage(name) }).await;
    }

    pub(crate) async fn write(&mut self, name: &str, data: impl Into<Bytes>) {
        let (data, offset) = (data.into(), self.written);
        self.written += data.len() as u64;
        let times = vec![(offset, Timestamp::now())];
        self.items.send(Item::Output(Output { log: stage(name).into(), offset, data, times })).await.unwrap();
    }

    pub(crate) async fn end(&mut self, name: &str) {
        self.tell(EventKind::StageFinished {
            stage: stage(name),
            state: StageState::Passed,
            allowed: false,
            log_bytes: self.written,
            duration: Duration::ZERO,
            usage: Usage::default(),
        })
        .await;
    }

    pub(crate) async fn finish(self, outcome: Outcome) {
        let finished = outcome.clone();
        self.tell(EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 1 }).await;
        self.done.send(Finished { outcome: finished }).unwrap();
    }

    /// A job of one stage from here to its end.
    pub(crate) async fn pass(mut self, log: &'static [u8]) {
        self.begin("build").await;
        self.write("build", log).await;
        self.end("build").await;
        self.finish(Outcome::Passed).await;
    }

    /// The job has its end, and the engine still clears up: it is done when the answer is used.
    pub(crate) async fn end_and_clear(mut self) -> oneshot::Sender<Finished> {
        self.begin("build").await;
        self.end("build").await;
        let outcome = Outcome::Passed;
        self.tell(EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 1 }).await;
        self.done
    }

    /// The engine dies in the middle: it tells no end.
    pub(crate) fn vanish(self) {}

    pub(crate) async fn stopped(&mut self) -> Stop {
        self.stop.wait_for(|stop| *stop != Stop::No).await.unwrap().clone()
    }
}

impl FakeRunner {
    /// Hands a run to the test until it is over.
    async fn hand_over(
        &self,
        request: JobRequest,
        (heard, unattended): (Heard, Option<Duration>),
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        let (done, end) = oneshot::channel();
        let (run, written) = (request.run.clone(), heard.logs.values().sum());
        let (items, stop) = (items.clone(), stop.clone());
        let job = Job { request, stop, heard, unattended, items, done, written };
        if self.jobs.send(job).is_err() {
            return std::future::pending().await;
        }
        let finished = end.await.unwrap();
        self.runs.lock().unwrap().remove(&run);
        finished
    }
}

impl Runner for FakeRunner {
    type Prepared = JobRequest;
    type Estate = JobRequest;

    async fn prepare(
        &self,
        request: JobRequest,
        items: &mpsc::Sender<Item>,
        _stop: &watch::Receiver<Stop>,
    ) -> Result<Ready<JobRequest>, Finished> {
        let job = PlannedJob { image: "i:1".into(), stages: vec![stage("build")], ..PlannedJob::default() };
        let (image, stages) = (job.image.clone(), job.stages.clone());
        let commit = Some("c0ffee".repeat(7)[..40].to_owned());
        let plan = Ok(BuildPlan { commit, jobs: vec![job], ..BuildPlan::default() });
        items.send(event(EventKind::JobStarted)).await.unwrap();
        items.send(event(EventKind::Planned { image, stages, services: Vec::new() })).await.unwrap();
        Ok(Ready { plan, prepared: request })
    }

    async fn run(
        &self,
        request: JobRequest,
        unattended: Option<Duration>,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        self.runs.lock().unwrap().insert(request.run.clone(), request.clone());
        self.hand_over(request, (Heard::default(), unattended), items, stop).await
    }

    async fn take_over(&self, run: &RunId) -> Result<JobRequest, NotAdopted> {
        self.runs.lock().unwrap().get(run).cloned().ok_or(NotAdopted::NotBegun)
    }

    async fn go_on(
        &self,
        request: JobRequest,
        heard: Heard,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        self.hand_over(request, (heard, None), items, stop).await
    }

    async fn reap(&self, _live: &HashSet<RunId>) -> Result<Reaped, Box<dyn std::error::Error + Send + Sync>> {
        self.reaps.send_modify(|reaps| *reaps += 1);
        Ok(Reaped::default())
    }
}
