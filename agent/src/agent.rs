//! The agent as a whole: takes up what an earlier process left, keeps the session, reaps, and ends
//! when it is told to.

use std::{collections::HashSet, sync::Arc, time::Duration};

use buildr_engine::Reaped;
use buildr_proto::AttemptId;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, spawn_blocking},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    fleet::{Fleet, Load},
    identity::Identity,
    job::Shop,
    lifeline::Lifeline,
    link::Link,
    metrics::{Metrics, Sight},
    runner::Runner,
    session::{Connection, Introduction, Refused, Session},
    spool::{self, Spool},
};

/// How often it is checked whether the orchestrator has been silent for too long.
const FENCE_CHECK: Duration = Duration::from_secs(1);

/// How long a refused agent waits for its jobs to be ended and cleaned up.
const REFUSED_PATIENCE: Duration = Duration::from_secs(60);

/// How long an agent that detaches waits until its spool has what the engine told.
const DETACH_PATIENCE: Duration = Duration::from_millis(500);

/// What is wanted of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Go on.
    #[default]
    No,
    /// Take nothing new, finish, deliver, end.
    Drain,
    /// Cancel what runs, clean up, deliver what can be delivered soon, end.
    Cancel,
    /// End at once and leave what runs to the next process of this agent.
    Detach,
}

/// Why an agent ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The orchestrator does not want it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its spool cannot be used.
    #[error("the agent's spool cannot be used")]
    Spool(#[from] spool::Error),
    /// The address or the token cannot be sent at all.
    #[error("the orchestrator's address {0} or the token cannot be used")]
    Link(String),
    /// A part of it failed in a way that it must not.
    #[error("a part of the agent failed: this is a bug of buildr")]
    Bug,
}

/// What ended the agent's work.
enum Ended {
    /// It was told to end, and has.
    Down,
    /// It was told to leave its jobs to the next process.
    Detached,
    /// The session ended by itself.
    Refused(Result<Result<(), Refused>, Error>),
}

/// An agent that is about to run.
pub struct Agent<R> {
    config: Config,
    identity: Identity,
    fleet: Fleet,
    shop: Arc<Shop<R>>,
    connection: watch::Sender<Connection>,
}

impl<R: Runner> Agent<R> {
    /// Puts an agent together. Nothing is connected yet.
    pub fn new(config: Config, identity: Identity, runner: R) -> Result<Self, Error> {
        let spool = Spool::open(identity.folder.join("spool"), config.log_limit)?;
        let link = Link::new(
            &config.orchestrator,
            config.token.as_ref(),
            &identity.credential,
            identity.instance,
            config.timing.call,
        );
        let shop = Shop {
            runner: Arc::new(runner),
            link: link.ok_or_else(|| Error::Link(config.orchestrator.clone()))?,
            spool,
            timing: config.timing,
            name: config.name.clone(),
            inheritable: config.inheritable.clone(),
            job_timeout: config.job_timeout,
            tasks: TaskTracker::new(),
            reap: Notify::new(),
            metrics: Arc::default(),
            lifeline: Lifeline::new(),
            detached: CancellationToken::new(),
        };
        let (fleet, connection) = (Fleet::new(config.slots), watch::Sender::default());
        shop.metrics.see(Sight {
            fleet: fleet.clone(),
            slots: config.slots,
            connection: connection.subscribe(),
            folder: identity.folder.clone(),
        });
        Ok(Self { config, identity, fleet, shop: Arc::new(shop), connection })
    }

    /// What is measured of it.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shop.metrics.clone()
    }

    /// Whether the orchestrator is there, now and later.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    /// How much is going on, now and later.
    pub fn load(&self) -> watch::Receiver<Load> {
        self.fleet.load()
    }

    /// Works until it is told to end, and until it has ended what it began.
    pub async fn run(self, shutdown: watch::Receiver<Shutdown>) -> Result<(), Error> {
        let stop = CancellationToken::new();
        let leftovers = self.shop.take_up(&self.fleet).await?;
        let reaper = tokio::spawn(reap_for_ever(self.shop.clone(), self.fleet.clone(), stop.clone()));
        let fences = tokio::spawn(fence_for_ever(self.shop.clone(), self.fleet.clone(), stop.clone()));
        let mut session = tokio::spawn(self.session().run(stop.clone()));
        let settle = |leftover| tokio::spawn(self.shop.clone().settle(leftover, self.connection()));
        let settling: Vec<_> = leftovers.into_iter().map(settle).collect();
        let mut detach = shutdown.clone();
        let ended = tokio::select! {
            biased;
            true = is_so(&mut detach, |wanted| *wanted == Shutdown::Detach) => Ended::Detached,
            refused = &mut session => Ended::Refused(refused.map_err(|_| Error::Bug)),
            () = self.wind_down(shutdown) => Ended::Down,
        };
        let result = match ended {
            Ended::Down => {
                stop.cancel();
                session.await.map_err(|_| Error::Bug)?.map_err(Error::from)
            }
            Ended::Refused(end) => {
                self.end_refused().await;
                end?.map_err(Error::from)
            }
            Ended::Detached => {
                self.detach().await;
                // Neither is waited for: whatever they are at is done by the next process.
                session.abort();
                reaper.abort();
                Ok(())
            }
        };
        stop.cancel();
        settling.iter().for_each(JoinHandle::abort);
        join(reaper).await;
        join(fences).await;
        result
    }

    fn session(&self) -> Session<R> {
        Session {
            orchestrator: self.config.orchestrator.clone(),
            introduction: Introduction {
                name: self.config.name.clone(),
                instance: self.identity.instance,
                version: env!("CARGO_PKG_VERSION"),
                slots: self.config.slots,
                labels: self.config.labels.clone(),
            },
            fleet: self.fleet.clone(),
            lifeline: self.shop.lifeline.clone(),
            shop: self.shop.clone(),
            disk: self.identity.folder.clone(),
            min_free: self.config.min_free,
            connection: self.connection.clone(),
        }
    }

    /// Lets go of what runs, without ending it.
    async fn detach(&self) {
        self.fleet.drain();
        self.shop.detached.cancel();
        let mut load = self.fleet.load();
        // What is not in the spool by then is told again by the engine of the next process.
        let _ = tokio::time::timeout(DETACH_PATIENCE, is_so(&mut load, |load| load.busy == 0)).await;
        tracing::info!("detached: what runs is left to the next process of this agent");
    }

    /// Returns when the agent has been told to end and nothing more is to be waited for.
    async fn wind_down(&self, mut shutdown: watch::Receiver<Shutdown>) {
        let mut load = self.fleet.load();
        tokio::select! {
            true = is_so(&mut shutdown, |wanted| *wanted >= Shutdown::Drain) => {
                tracing::info!("draining: nothing new is taken, what runs is finished");
            }
            true = is_so(&mut load, |load| load.draining) => {}
        }
        self.fleet.drain();
        tokio::select! {
            () = self.drained(self.config.timing.drain_patience) => {}
            true = is_so(&mut shutdown, |wanted| *wanted >= Shutdown::Cancel) => {
                tracing::info!("canceling what runs");
                self.fleet.cancel_all(&format!("agent {}, which was stopped", self.config.name));
                self.drained(self.config.timing.cancel_patience).await;
            }
        }
        match self.fleet.load().borrow().held {
            0 => tracing::info!("drained"),
            held => tracing::warn!(
                held,
                "the orchestrator is not there: results stay on this machine and are delivered at the next start"
            ),
        }
    }

    /// Returns when nothing is held, or nothing runs and the orchestrator has been away too long.
    async fn drained(&self, patience: Duration) {
        let mut load = self.fleet.load();
        let mut idle = self.fleet.load();
        let away = async {
            is_so(&mut idle, |load| load.busy == 0).await;
            let mut connection = self.connection();
            loop {
                is_so(&mut connection, |now| !matches!(now, Connection::Up(_))).await;
                tokio::select! {
                    () = tokio::time::sleep(patience) => return,
                    _ = is_so(&mut connection, |now| matches!(now, Connection::Up(_))) => {}
                }
            }
        };
        tokio::select! {
            _ = is_so(&mut load, |load| load.held == 0) => {}
            () = away => {}
        }
    }

    /// The orchestrator takes nothing from this agent: what runs is ended, results stay here.
    async fn end_refused(&self) {
        self.fleet.drain();
        self.fleet.cancel_all("the orchestrator, which refused the agent");
        let mut load = self.fleet.load();
        // Whatever is left after that is the reaper's at the next start.
        let _ = tokio::time::timeout(REFUSED_PATIENCE, is_so(&mut load, |load| load.busy == 0)).await;
    }
}

/// Waits until something is so; false where it can never be, because nobody changes it any more.
async fn is_so<T>(what: &mut watch::Receiver<T>, is: impl FnMut(&T) -> bool) -> bool {
    what.wait_for(is).await.is_ok()
}

async fn join(task: JoinHandle<()>) {
    if task.await.is_err_and(|error| error.is_panic()) {
        tracing::error!("a task of the agent failed: this is a bug of buildr");
    }
}

/// Ends attempts that may be another agent's by now, because the orchestrator has been silent.
async fn fence_for_ever<R: Runner>(shop: Arc<Shop<R>>, fleet: Fleet, stop: CancellationToken) {
    let mut interval = tokio::time::interval(FENCE_CHECK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = stop.cancelled() => return,
        }
        let silence = shop.lifeline.silence();
        for attempt in fleet.held() {
            // An older one that is kept only ends the attempt sooner.
            let _older = shop.keep_fence(&attempt).await;
            if !attempt.endure(silence) {
                continue;
            }
            tracing::warn!(attempt = %attempt.id, ?silence, "the orchestrator is silent: the job is ended, because another agent may be given it");
        }
    }
}

/// Removes what no live attempt owns: at the start, at an interval, and after each attempt.
async fn reap_for_ever<R: Runner>(shop: Arc<Shop<R>>, fleet: Fleet, stop: CancellationToken) {
    let mut interval = tokio::time::interval(shop.timing.reap);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shop.reap.notified() => {}
            () = stop.cancelled() => return,
        }
        let failed = reap(&shop, &fleet).await.err();
        if let Some(error) = failed.as_ref().filter(|error| last.as_ref() != Some(*error)) {
            tracing::warn!(error, "what nobody owns could not be removed; the agent keeps trying");
        }
        last = failed;
    }
}

async fn reap<R: Runner>(shop: &Shop<R>, fleet: &Fleet) -> Result<(), String> {
    let live = fleet.live();
    let reaped = shop.runner.reap(&live).await.map_err(|error| error.to_string())?;
    shop.metrics.reaped(&reaped);
    let Reaped { containers, networks, volumes, folders } = reaped;
    if containers + networks + volumes + folders > 0 {
        tracing::info!(containers, networks, volumes, folders, "removed what no live attempt owned");
    }
    let (spool, fleet) = (shop.spool.clone(), fleet.clone());
    let held = move || -> HashSet<AttemptId> { fleet.held().iter().map(|attempt| attempt.id).collect() };
    match spawn_blocking(move || spool.sweep(held)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the spool's sweep failed".to_owned()),
    }
}
