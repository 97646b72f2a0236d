//! The second half of a job: containers, stages, cleanup. What a stage's end means is decided in
//! `verdict`, what follows from it in `state`; here it is carried out.

mod adopt;
mod boot;
mod conductor;
mod finish;
mod stage;
mod workspace;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use buildr_manifest::{EventKind, LogName, Outcome, ServiceName, StageName};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Finished,
    engine::{Inner, Lifetime},
    feed::{Feed, StopSignal},
    job::{Afterwards, FailedIn, Item, Prepared},
    journal::Record,
    network,
    past::Past,
    prepare::source_error,
    run_folder::RunFolder,
    services::{self, Place, ServiceError, Services},
    source::Pinned,
    state::State,
    texts::{self, Texts},
};
pub(crate) use adopt::adopt;
use boot::Booted;
use conductor::Conductor;
use workspace::Workspace;

/// One run, for as long as it lasts.
pub(crate) struct Run<'a> {
    engine: &'a Arc<Inner>,
    prepared: &'a Prepared,
    texts: Texts,
    feed: &'a Feed,
    stop: &'a StopSignal,
    workspace: Workspace,
    /// What an earlier engine came to, where this one took the job over.
    past: Option<Past>,
    /// The length of each log that the listener had when the job was taken over.
    told: BTreeMap<LogName, u64>,
    /// The services that run.
    services: Option<Services>,
    /// Where the stage ran that failed first, where that is kept.
    failed: OnceLock<FailedIn>,
    /// What is being made for the stages is of no use any more.
    given_up: CancellationToken,
    limit: Duration,
    deadline: Instant,
}

/// Carries out a job that was prepared.
pub(crate) async fn run(
    engine: &Arc<Inner>,
    mut prepared: Prepared,
    items: &mpsc::Sender<Item>,
    stop: StopSignal,
) -> Finished {
    let feed = Feed::new(items.clone(), prepared.claim.journal.clone());
    feed.record(&Record::Begun(prepared.claim.begun.clone()));
    let pinned = prepared.claim.pinned.take();
    let state = State::new(&prepared.plan);
    let run = Run::new(engine, &prepared, (&feed, &stop), None);
    run.carry_out(state, pinned).await
}

/// Why the stages cannot begin, and the container that is owed its orderly end.
struct SetUpError {
    booted: Option<Booted>,
    outcome: Outcome,
}

impl From<Outcome> for SetUpError {
    fn from(outcome: Outcome) -> Self {
        Self { booted: None, outcome }
    }
}

/// A limit may be longer than a clock is.
fn far(now: Instant, limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + limit.min(YEAR)
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a Arc<Inner>,
        prepared: &'a Prepared,
        (feed, stop): (&'a Feed, &'a StopSignal),
        past: Option<Past>,
    ) -> Self {
        let planned = prepared.plan.manifest.timeout;
        let limit = prepared.request.timeout.map_or(planned, |cap| cap.min(planned));
        Self {
            engine,
            prepared,
            texts: Texts::default(),
            feed,
            stop,
            workspace: Workspace::default(),
            past,
            told: BTreeMap::new(),
            services: None,
            failed: OnceLock::new(),
            given_up: CancellationToken::new(),
            limit,
            deadline: far(prepared.claim.since, limit),
        }
    }

    /// From here to the end.
    async fn carry_out(mut self, mut state: State, pinned: Option<Pinned>) -> Finished {
        let booted = match Box::pin(self.set_up(pinned)).await {
            Ok(booted) => {
                state = Box::pin(Conductor::new(&self, &booted, state).conduct()).await;
                Some(booted)
            }
            Err(SetUpError { booted, outcome }) => {
                state.decided(outcome);
                booted
            }
        };
        if let Some(services) = self.services.take() {
            services.stop().await;
        }
        let outcome = state.outcome();
        self.finish(booted, &state, self.prepared.claim.since).await;
        Finished { outcome }
    }

    /// Makes all that stages run in. The files come while the image is pulled and the container made,
    /// unless they decide which image that is.
    async fn set_up(&mut self, pinned: Option<Pinned>) -> Result<Booted, SetUpError> {
        let mut pinned = pinned;
        if texts::waits(&self.prepared.plan).files {
            self.check_out(pinned.take()).await?;
        }
        self.texts = match self.past.as_ref().and_then(|past| past.texts.clone()) {
            Some(texts) => texts,
            None => self.resolve_texts().await?,
        };
        self.feed.record(&Record::Texts(self.texts.clone()));
        // What fails first ends the others.
        let fault = OnceLock::new();
        let fails = |outcome: Outcome| {
            fault.get_or_init(|| outcome);
            self.given_up.cancel();
        };
        let files = async { self.check_out(pinned).await.map_err(fails) };
        let containers = async {
            self.make_network().await.map_err(fails)?;
            let services = async { self.start_services().await.map_err(fails) };
            let booted = async { self.enter(self.home()).await.map_err(fails) };
            let (services, booted) = tokio::join!(services, booted);
            Ok::<_, ()>((services.ok().flatten(), booted.ok()))
        };
        let (_, containers) = tokio::join!(files, containers);
        let (services, booted) = containers.unwrap_or_default();
        self.services = services;
        let settled = match (fault.into_inner(), &booted) {
            (Some(outcome), _) => Err(outcome),
            (None, Some(booted)) => self.settle_in(booted).await,
            (None, None) => Ok(()),
        };
        match (settled, booted) {
            (Ok(()), Some(booted)) => Ok(booted),
            (Err(outcome), booted) => Err(SetUpError { booted, outcome }),
            (Ok(()), None) => Err(Outcome::Internal { message: "no container".to_owned() }.into()),
        }
    }

    fn has_services(&self) -> bool {
        !self.prepared.plan.job.services.is_empty()
    }

    /// What builds know the network by: without services that is Docker's usual one, so that
    /// `docker run --network $BUILDR_NETWORK` means something in any case.
    fn network_name(&self) -> String {
        match self.has_services() {
            true => network::name_of(&self.prepared.request.run),
            false => "bridge".to_owned(),
        }
    }

    /// The network that the job's containers and services share, where there are services.
    async fn make_network(&self) -> Result<(), Outcome> {
        if !self.has_services() {
            return Ok(());
        }
        let (engine, run) = (self.engine, &self.prepared.request.run);
        let made = self.unless_killed(network::create(&engine.daemon, &engine.config.owner, run)).await?;
        made.map(drop).map_err(|error| ServiceError::Network(error).outcome())
    }

    /// Starts the services and waits until they can be used.
    async fn start_services(&self) -> Result<Option<Services>, Outcome> {
        if !self.has_services() {
            return Ok(None);
        }
        let planned = self.prepared.plan.job.services.iter().zip(&self.texts.services);
        let wanted: Vec<_> = planned.map(|(planned, image)| services::Wanted { planned, image }).collect();
        let place = Place {
            engine: self.engine,
            run: &self.prepared.request.run,
            lifetime: self.lifetime(),
            folder: self.folder().path(),
            feed: self.feed,
        };
        let heard = self.heard_of_services();
        let started = self.unless_interrupted(Services::start(&place, &wanted, &heard)).await?;
        started.map(Some).map_err(|error| error.outcome())
    }

    /// What was told of the services before this engine took the job over.
    fn heard_of_services(&self) -> BTreeMap<ServiceName, services::Heard> {
        let Some(past) = &self.past else { return BTreeMap::new() };
        let names = self.prepared.plan.job.services.iter().map(|planned| &planned.service.name);
        let heard = names.map(|name| {
            let log = self.told.get(&name.clone().into()).copied().unwrap_or(0);
            (name.clone(), services::Heard { log, ready: past.services.contains(name) })
        });
        heard.collect()
    }

    /// Brings the files of the commit.
    async fn check_out(&self, pinned: Option<Pinned>) -> Result<(), Outcome> {
        let Some(pinned) = pinned else { return Ok(()) };
        let cancel = CancellationToken::new();
        let options = &self.prepared.plan.manifest.clone;
        // On the heap, as are the larger parts of it: what is awaited deep inside takes its place on a
        // thread's stack once for each level.
        let mut checkout = Box::pin(pinned.check_out(&self.prepared.workspace, options, &cancel));
        let done = tokio::select! {
            biased;
            outcome = self.interrupted(None) => {
                cancel.cancel();
                // It ends soon, and must not go on writing while the folder is removed.
                let _ended = checkout.await;
                return Err(outcome);
            }
            done = &mut checkout => done.map_err(source_error)?,
        };
        for warning in done.warnings {
            self.feed.warning(warning).await;
        }
        self.feed.event(EventKind::SourceReady { took: done.took }).await;
        Ok(())
    }

    async fn resolve_texts(&self) -> Result<Texts, Outcome> {
        let plan = self.prepared.plan.clone();
        let waits = texts::waits(&plan);
        let platform = match waits.platform {
            true => self.engine.daemon.platform().await.map_err(|error| internal(&error))?,
            false => texts::Platform::default(),
        };
        let workspace = self.prepared.workspace.clone();
        let resolved = crate::blocking(move || Ok(texts::resolve(&plan, &platform, &workspace))).await;
        let message = |error: String| Outcome::ManifestError { message: error };
        resolved.map_err(|error| internal(&error))?.map_err(message)
    }

    fn folder(&self) -> &RunFolder {
        &self.prepared.claim.folder
    }

    /// Comes back when the job must not go on, with its outcome; `running` is a stage that runs.
    async fn interrupted(&self, running: Option<&StageName>) -> Outcome {
        tokio::select! {
            biased;
            by = self.stop.requested() => Outcome::Canceled { by },
            message = self.feed.trouble() => Outcome::Internal { message },
            () = sleep_until(self.deadline.into()) => {
                Outcome::TimedOut { stage: running.cloned(), limit: self.limit }
            }
            () = self.given_up.cancelled() => Outcome::Internal { message: "given up".to_owned() },
        }
    }

    /// The outcome of a job that must not go on, if so.
    fn interrupted_now(&self) -> Option<Outcome> {
        let timed_out = || {
            let passed = Instant::now() >= self.deadline;
            passed.then_some(Outcome::TimedOut { stage: None, limit: self.limit })
        };
        self.stop.by().map(|by| Outcome::Canceled { by }).or_else(timed_out)
    }

    /// Does what may take long, unless the job must not go on; then the work is dropped.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        tokio::select! {
            biased;
            outcome = self.interrupted(None) => Err(outcome),
            done = work => Ok(done),
        }
    }

    fn keeps(&self) -> bool {
        self.prepared.request.afterwards == Afterwards::Keep
    }

    /// True where containers do not end with this process, and have to be removed.
    fn lives_on(&self) -> bool {
        self.is_detached() || self.keeps()
    }

    fn is_detached(&self) -> bool {
        matches!(self.engine.config.lifetime, Lifetime::Detached { .. })
    }

    /// What becomes of this run's containers when the process ends.
    fn lifetime(&self) -> Lifetime {
        match self.prepared.claim.begun.unattended {
            Some(limit) => self.engine.config.lifetime.at_most(limit),
            None => self.engine.config.lifetime,
        }
    }
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::Internal { message: crate::error::chain(error) }
}
