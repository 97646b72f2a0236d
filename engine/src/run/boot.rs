//! From a plan to a container whose init waits for stages.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use buildr_init::wire::{HandBack, Owner, Settings};
use buildr_manifest::{EventKind, Outcome, Resources};
use tokio::{task::JoinSet, time::timeout};

use super::{Run, internal, workspace::is_root};
use crate::{
    Error,
    container::{Container, Fate, Input, Network, NoReconnect, Reconnect, Spec},
    control::ControlFolder,
    docker,
    engine::DockerSocket,
    environment::{Environment, WORKSPACE},
    error::chain,
    image::{self, Image},
    init_program,
    journal::{ContainerRecord, Record},
    link::{Bounds, Connection, Link},
    network, run_folder,
};

/// How long a container that was started may take until its init speaks.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Init hears from us several times in a dead man's time, so that one that was late does no harm.
const SIGNS_PER_LEASE: u32 = 4;

/// How long Docker may take to notice that a container has ended whose connection has.
const FATE_LIMIT: Duration = Duration::from_secs(3);

/// Between two looks.
const FATE_POLL: Duration = Duration::from_millis(50);

/// More numbers than a stage may have tries: each try of a stage has one of its own in its container.
pub(super) const NUMBERS_PER_STAGE: u32 = 16;

/// A container that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The stage that it is for alone; none: the build container.
    pub(super) stage: Option<usize>,
    /// The image's name.
    pub(super) image: &'a str,
    /// What it may use.
    pub(super) resources: &'a Resources,
    /// Whether the manifest wants Docker's socket in it.
    pub(super) docker: Docker,
}

/// What a manifest wants of Docker in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Docker {
    /// What the operator gives.
    Given,
    /// Nothing.
    Declined,
}

/// Whether a container was there when it was attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was.
    There,
    /// It had ended while no engine watched over it.
    EndedUnseen,
}

/// A container that waits for stages.
pub(super) struct Booted {
    pub(super) container: Container,
    pub(super) link: Link,
    pub(super) control: Arc<ControlFolder>,
    pub(super) environment: Environment,
    pub(super) image: Image,
    /// The image as the manifest names it.
    pub(super) image_name: String,
    /// What it may use of memory, in bytes, where there is a limit.
    pub(super) memory: Option<u64>,
    /// To whom the workspace is to be given back at the end.
    pub(super) hand_back: Option<Owner>,
    /// Whether it was there when it was attached to.
    pub(super) presence: Presence,
    /// From the image's being here to its being up.
    pub(super) start: Duration,
    /// Docker's own answer to the start comes later than init's.
    starting: JoinSet<Result<(), Error>>,
}

impl Docker {
    /// As a manifest's `docker` has it.
    fn of(wanted: bool) -> Self {
        if wanted { Self::Given } else { Self::Declined }
    }
}

impl Run<'_> {
    /// The build container.
    pub(super) fn home(&self) -> Wanted<'_> {
        let manifest = &self.prepared.plan.manifest;
        Wanted {
            stage: None,
            image: &self.texts.image,
            resources: &manifest.resources,
            docker: Docker::of(manifest.docker),
        }
    }

    /// The container of a stage that has one of its own.
    pub(super) fn own_container(&self, at: usize) -> Option<Wanted<'_>> {
        let image = self.texts.stages[at].image.as_deref()?;
        let manifest = &self.prepared.plan.manifest;
        let stage = &self.prepared.plan.job.stages[at].stage;
        Some(Wanted {
            stage: Some(at),
            image,
            resources: stage.resources.as_ref().unwrap_or(&manifest.resources),
            docker: Docker::of(manifest.docker && stage.docker.unwrap_or(true)),
        })
    }

    /// Makes a container, or goes back to the one that an earlier engine made; tells that it is ready
    /// where that was not told.
    pub(super) async fn enter(&self, wanted: Wanted<'_>) -> Result<Booted, Outcome> {
        let booted = match self.find(&wanted).await? {
            Some(booted) => booted,
            None => self.boot(wanted).await?,
        };
        if !self.past.as_ref().is_some_and(|past| past.ready.contains(&wanted.stage)) {
            let stage = wanted.stage.map(|at| self.prepared.plan.job.stages[at].stage.name.clone());
            let (image, image_id) = (wanted.image.to_owned(), booted.image.id.clone());
            let (pull, start) = (booted.image.pull, booted.start);
            self.feed.event(EventKind::ContainerReady { stage, image, image_id, pull, start }).await;
        }
        Ok(booted)
    }

    /// Gets the image, makes the container and waits for its init.
    async fn boot(&self, wanted: Wanted<'_>) -> Result<Booted, Outcome> {
        let data_dir = self.engine.config.data_dir.clone();
        let init = crate::blocking(move || Ok(init_program::install(&data_dir)));
        let image = self.unless_interrupted(image::get(self.engine, wanted.image, self.feed));
        let (image, init) = tokio::join!(image, init);
        let image = image?.map_err(|error| Outcome::ImageError { message: chain(&error) })?;
        let init = init.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        let here = Instant::now();
        let hand_back = match wanted.stage {
            None => self.hand_back(&image).await,
            // The build container does it for all.
            Some(_) => None,
        };
        let (container, control) = self.create(&wanted, &image, &init, hand_back).await?;
        let attached = self.unless_interrupted(container.attach()).await?;
        let connection = attached.map_err(|error| internal(&error))?;
        let record = ContainerRecord {
            stage: wanted.stage,
            name: self.container_name(wanted.stage),
            image,
            hand_back,
        };
        let mut booted = self.booted((container, connection), control, &wanted, record);
        let started = booted.container.clone();
        booted.starting.spawn(async move { started.start().await });
        match self.unless_interrupted(booted.ready()).await? {
            Ok(()) => Ok(Booted { start: here.elapsed(), ..booted }),
            Err(error) => Err(start_outcome(&error, wanted.image, &booted.image)),
        }
    }

    pub(super) fn container_name(&self, stage: Option<usize>) -> String {
        let run = &self.prepared.request.run;
        match stage {
            None => format!("buildr-{run}"),
            Some(at) => format!("buildr-{run}-{at}"),
        }
    }

    /// A container that was attached to. Attach goes before start, so nothing that init says is missed;
    /// init is heard before Docker says that it was started.
    pub(super) fn booted(
        &self,
        (container, connection): (Container, Connection),
        control: ControlFolder,
        wanted: &Wanted<'_>,
        record: ContainerRecord,
    ) -> Booted {
        let sign_of_life = self.dead_man().map(|lease| lease / SIGNS_PER_LEASE);
        let bounds = self.bounds();
        let link = if self.is_detached() {
            Link::open(connection, Reconnect(container.clone()), bounds, sign_of_life)
        } else {
            Link::open(connection, NoReconnect, bounds, sign_of_life)
        };
        let ContainerRecord { image, hand_back, .. } = record;
        Booted {
            container,
            link,
            control: Arc::new(control),
            environment: Environment::new(&image.environment, self.prepared),
            image,
            image_name: wanted.image.to_owned(),
            memory: wanted.resources.memory.map(|memory| memory.bytes()),
            hand_back,
            presence: Presence::There,
            start: Duration::ZERO,
            starting: JoinSet::new(),
        }
    }

    /// To whom the workspace is to be given back at the end; none where nobody could miss it.
    async fn hand_back(&self, image: &Image) -> Option<Owner> {
        let workspace = self.prepared.workspace.clone();
        let owner = crate::blocking(move || run_folder::owner_of(&workspace)).await.ok()?;
        let own = self.prepared.workspace.starts_with(self.folder().path());
        // Root can remove a workspace of its own whomever its files belong to, and what root makes
        // in a tree of root's is where it belongs.
        let stages = &self.prepared.plan.job.stages;
        let only_root = is_root(&image.user)
            && stages.iter().all(|s| s.image.is_none() && s.stage.user.as_deref().is_none_or(is_root));
        let needed = owner.uid != 0 || !(own || only_root);
        needed.then_some(owner)
    }

    fn settings(&self, hand_back: Option<Owner>) -> Settings {
        Settings {
            exit_on_eof: !self.lives_on(),
            dead_man: self.dead_man(),
            hand_back: hand_back.map(|to| HandBack { path: WORKSPACE.to_owned(), to }),
        }
    }

    fn dead_man(&self) -> Option<Duration> {
        self.lifetime().dead_man()
    }

    /// Interrupted by a kill alone: it takes milliseconds, and who goes away in the middle leaves a
    /// container that may come after all to the reaper.
    async fn create(
        &self,
        wanted: &Wanted<'_>,
        image: &Image,
        init: &std::path::Path,
        hand_back: Option<Owner>,
    ) -> Result<(Container, ControlFolder), Outcome> {
        let (daemon, config) = (&self.engine.daemon, &self.engine.config);
        let run = &self.prepared.request.run;
        let name = self.container_name(wanted.stage);
        let control = self.folder().control(wanted.stage).map_err(|error| internal(&error))?;
        let record =
            ContainerRecord { stage: wanted.stage, name: name.clone(), image: image.clone(), hand_back };
        self.folder().note_image(&image.id).map_err(|error| internal(&error))?;
        self.feed.record(&Record::Container(record));
        let folder = ControlFolder::open(&control).map_err(|error| internal(&error))?;
        let network = self.has_services().then(|| network::name_of(run));
        let raw = config.docker_socket == DockerSocket::Raw && wanted.docker == Docker::Given;
        let spec = Spec {
            run,
            owner: &config.owner,
            name: &name,
            image: &image.id,
            init,
            settings: &self.settings(hand_back),
            control,
            workspace: Some(&self.prepared.workspace),
            socket: raw.then_some(&*daemon.socket),
            resources: wanted.resources,
            pids_limit: config.pids_limit,
            network: match &network {
                Some(name) => Network::Own { name, service: None },
                None => Network::Default,
            },
            input: if self.lives_on() { Input::Open } else { Input::Once },
        };
        let created = self.unless_killed(Container::create(daemon, &spec)).await?;
        let container = created.map_err(|error| start_outcome(&error, wanted.image, image))?;
        Ok((container, folder))
    }

    /// What init may truly say of this job's stages.
    pub(super) fn bounds(&self) -> Bounds {
        let stages = self.prepared.plan.job.stages.iter();
        let per_stage = usize::try_from(NUMBERS_PER_STAGE).unwrap_or(usize::MAX);
        let steps = stages.flat_map(|stage| std::iter::repeat_n(stage.stage.script.len(), per_stage));
        Bounds { steps: steps.collect(), log: self.engine.config.log_limit }
    }

    /// Makes all ready for the first stage. A part of it may be done where this fails, so the
    /// container is still owed its orderly end.
    pub(super) async fn settle_in(&self, booted: &Booted) -> Result<(), Outcome> {
        self.give_workspace(booted, &booted.image.user).await
    }
}

/// What it means that there is no container.
fn start_outcome(error: &Error, name: &str, image: &Image) -> Outcome {
    let text = error.chain();
    let absent = matches!(error, Error::Docker { source, .. } if docker::is_absent(source));
    let misfit = ["exec format error", "no matching manifest", "No such image"]
        .iter()
        .any(|words| text.contains(words));
    if !absent && !misfit {
        return internal(error);
    }
    let oddity = image.oddity.as_ref().map(|oddity| format!(" ({oddity})")).unwrap_or_default();
    Outcome::ImageError { message: format!("no container can be made of image {name}: {text}{oddity}") }
}

impl Booted {
    /// Waits for init's first word.
    async fn ready(&mut self) -> Result<(), Error> {
        if tokio::select! {
            biased;
            ready = self.link.shows(|board| board.ready) => ready,
            started = self.starting.join_next() => {
                start_result(started)?;
                timeout(READY_LIMIT, self.link.shows(|board| board.ready)).await.unwrap_or(false)
            }
        } {
            return Ok(());
        }
        // The connection ended: Docker knows why.
        self.started().await?;
        Err(Error::NoInit)
    }

    /// Waits for Docker's answer to the start.
    pub(super) async fn started(&mut self) -> Result<(), Error> {
        match self.starting.is_empty() {
            true => Ok(()),
            false => start_result(self.starting.join_next().await),
        }
    }

    /// True once nothing more can run in it.
    pub(super) fn is_gone(&self) -> bool {
        self.link.board().borrow().closed
    }

    /// What became of the container; Docker may need a moment to know.
    pub(super) async fn fate(&self) -> Result<Fate, Error> {
        let settled = timeout(FATE_LIMIT, async {
            loop {
                match self.container.fate().await {
                    Ok(Fate::Running) => tokio::time::sleep(FATE_POLL).await,
                    fate => return fate,
                }
            }
        });
        settled.await.unwrap_or(Ok(Fate::Running))
    }
}

fn start_result(joined: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    match joined {
        Some(Ok(result)) => result,
        Some(Err(_)) | None => Err(Error::NoInit),
    }
}
