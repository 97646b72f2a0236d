//! An agent in this process, between an orchestrator and an engine that the test drives.

use std::{collections::BTreeMap, time::Duration};

use buildr_agent::{
    Agent, Config, Shutdown, agent,
    backoff::Limits,
    config::{DockerSocket, Pull, Timing},
    fleet::Load,
    identity::Identity,
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use crate::{
    orchestrator::Orchestrator,
    proxy::Proxy,
    runner::{FakeRunner, Job, Runs},
};

const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Farm {
    pub(crate) orchestrator: Orchestrator,
    pub(crate) proxy: Proxy,
    pub(crate) data: TempDir,
    pub(crate) slots: u32,
    pub(crate) min_free: u64,
    pub(crate) timing: Timing,
    pub(crate) runs: Runs,
}

/// A running agent, in a runtime of its own: that ends as a process does, with all that is in it.
pub(crate) struct Running {
    pub(crate) shutdown: watch::Sender<Shutdown>,
    pub(crate) load: watch::Receiver<Load>,
    reaps: watch::Receiver<usize>,
    jobs: mpsc::UnboundedReceiver<Job>,
    task: Option<JoinHandle<Result<(), agent::Error>>>,
    runtime: Option<Runtime>,
}

impl Farm {
    pub(crate) async fn new() -> Self {
        let orchestrator = Orchestrator::start().await;
        let proxy = Proxy::to(orchestrator.address).await;
        let timing = Timing {
            reconnect: Limits { first: Duration::from_millis(5), most: Duration::from_millis(50) },
            log_patience: Duration::from_millis(200),
            drain_patience: Duration::from_millis(100),
            cancel_patience: Duration::from_millis(100),
            ..Timing::default()
        };
        let data = tempfile::tempdir().unwrap();
        Self { orchestrator, proxy, data, slots: 1, min_free: 0, timing, runs: Runs::default() }
    }

    fn config(&self) -> Config {
        Config {
            orchestrator: format!("http://{}", self.proxy.address),
            token: None,
            name: "test".into(),
            slots: self.slots,
            labels: BTreeMap::from([("gpu".into(), "true".into())]),
            data: self.data.path().join("agent"),
            inheritable: BTreeMap::from([("HTTP_PROXY".into(), "p".into())]),
            docker_socket: DockerSocket::None,
            pull: Pull::Never,
            allow_file_urls: false,
            log_limit: 1 << 30,
            pids_limit: buildr_engine::Config::PIDS_LIMIT,
            job_timeout: Duration::from_secs(60),
            min_free: self.min_free,
            metrics: None,
            timing: self.timing,
        }
    }

    pub(crate) fn start(&self) -> Running {
        let config = self.config();
        let identity = Identity::open(&config.data).unwrap();
        let (jobs, queue) = mpsc::unbounded_channel();
        let (reaps, reaped) = watch::channel(0);
        let runner = FakeRunner { jobs, reaps, runs: self.runs.clone() };
        let (shutdown, wanted) = watch::channel(Shutdown::No);
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let agent = Agent::new(config, identity, runner).unwrap();
        drop(entered);
        let load = agent.load();
        let task = Some(runtime.spawn(agent.run(wanted)));
        Running { shutdown, load, reaps: reaped, jobs: queue, task, runtime: Some(runtime) }
    }

    /// Starts an agent and waits until the orchestrator knows it.
    pub(crate) async fn join(&self) -> Running {
        let running = self.start();
        self.orchestrator.until("a hello", |facts| !facts.hellos.is_empty()).await;
        running
    }

    pub(crate) fn spool(&self) -> std::path::PathBuf {
        self.data.path().join("agent/spool")
    }
}

impl Running {
    /// The next job that the engine is given to run.
    pub(crate) async fn job(&mut self) -> Job {
        timeout(DEADLINE, self.jobs.recv()).await.expect("a job is run").expect("the agent lives")
    }

    pub(crate) async fn until(&mut self, what: &str, mut is: impl FnMut(&Load) -> bool) {
        let now = self.load.clone();
        let waited = timeout(DEADLINE, self.load.wait_for(|load| is(load))).await;
        assert!(waited.is_ok(), "not within {DEADLINE:?}: {what}; the load is {:?}", now.borrow());
    }

    /// Waits until the reaper has worked this often.
    pub(crate) async fn reaped(&mut self, times: usize) {
        let waited = timeout(DEADLINE, self.reaps.wait_for(|reaps| *reaps >= times)).await;
        waited.expect("the reaper works").expect("the agent lives");
    }

    pub(crate) fn tell(&self, shutdown: Shutdown) {
        self.shutdown.send_replace(shutdown);
    }

    pub(crate) async fn ended(mut self) -> Result<(), agent::Error> {
        let task = self.task.take().unwrap();
        let ended = timeout(DEADLINE, task).await.expect("the agent ends").unwrap();
        self.kill().await;
        ended
    }

    /// Ends the process without asking it.
    pub(crate) async fn kill(mut self) {
        let runtime = self.runtime.take().unwrap();
        spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
