//! From a plan to a container whose init waits for stages.

use std::{sync::Arc, time::Duration};

use buildr_init::wire::{HandBack, NewOwner, Owner, Settings};
use buildr_manifest::{EventKind, Outcome, Resources};
use tokio::{task::JoinSet, time::timeout};

use super::Run;
use crate::{
    Error,
    container::{Container, Fate, Input, Network, NoReconnect, Reconnect, Spec},
    control::{ControlFolder, control_path},
    docker,
    engine::{DockerSocket, Lifetime},
    environment::{Environment, WORKSPACE},
    error::chain,
    image::{self, Image},
    init_program,
    link::{Bounds, Link},
    run_folder::{self, Journal},
};

/// How long a container that was started may take until its init speaks.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Init hears from us several times in a dead man's time, so that one that was late does no harm.
const SIGNS_PER_LEASE: u32 = 4;

/// How long Docker may take to notice that a container has ended whose connection has.
const FATE_LIMIT: Duration = Duration::from_secs(3);

/// Between two looks.
const FATE_POLL: Duration = Duration::from_millis(50);

/// A container that waits for stages.
pub(super) struct Booted {
    pub(super) container: Container,
    pub(super) link: Link,
    pub(super) control: Arc<ControlFolder>,
    pub(super) environment: Environment,
    pub(super) image: Image,
    /// To whom the workspace is to be given back at the end.
    pub(super) hand_back: Option<Owner>,
    /// Docker's own answer to the start comes later than init's.
    starting: JoinSet<Result<(), Error>>,
}

impl Run<'_> {
    /// To whom the workspace is to be given back at the end; none where nobody could miss it.
    async fn hand_back(&self, image: &Image) -> Option<Owner> {
        let workspace = self.prepared.workspace.clone();
        let owner = crate::blocking(move || run_folder::owner_of(&workspace)).await.ok()?;
        let own = self.prepared.workspace.starts_with(self.folder.path());
        // Root can remove a workspace of its own whomever its files belong to, and what root makes
        // in a tree of root's is where it belongs.
        let needed = owner.uid != 0 || !(own || is_root(&image.user));
        needed.then_some(owner)
    }

    /// Gets the image, makes the container and waits for its init.
    pub(super) async fn boot(&self) -> Result<Booted, Outcome> {
        let name = &self.prepared.plan.image;
        let data_dir = self.engine.config.data_dir.clone();
        let init = crate::blocking(move || Ok(init_program::install(&data_dir)));
        let image = self.unless_interrupted(image::get(self.engine, name, self.feed));
        let (image, init) = tokio::join!(image, init);
        let image = image?.map_err(|error| Outcome::ImageError { message: chain(&error) })?;
        let init = init.map_err(|error| internal(&error))?.map_err(|error| internal(&error))?;
        let control =
            ControlFolder::open(&control_path(self.folder.path())).map_err(|error| internal(&error))?;
        let hand_back = self.hand_back(&image).await;
        let settings = self.settings(hand_back);
        let container = self.create(&image, &init, &settings, hand_back).await?;
        self.attach_and_start(container, image, control, hand_back).await
    }

    fn settings(&self, hand_back: Option<Owner>) -> Settings {
        Settings {
            exit_on_eof: !self.is_detached(),
            dead_man: self.dead_man(),
            hand_back: hand_back.map(|to| HandBack { path: WORKSPACE.to_owned(), to }),
        }
    }

    fn dead_man(&self) -> Option<Duration> {
        match self.engine.config.lifetime {
            Lifetime::Attached => None,
            Lifetime::Detached { dead_man } => dead_man,
        }
    }

    /// Interrupted by a kill alone: it takes milliseconds, and who goes away in the middle leaves a
    /// container that may come after all to the reaper.
    async fn create(
        &self,
        image: &Image,
        init: &std::path::Path,
        settings: &Settings,
        hand_back: Option<Owner>,
    ) -> Result<Container, Outcome> {
        let (daemon, config) = (&self.engine.daemon, &self.engine.config);
        let run = &self.prepared.request.run;
        let name = format!("buildr-{run}");
        let journal = Journal { container: name.clone(), image: image.id.clone(), hand_back };
        self.folder.write_journal(&journal).map_err(|error| internal(&error))?;
        let spec = Spec {
            run,
            owner: &config.owner,
            name: &name,
            image: &image.id,
            init,
            settings,
            control: control_path(self.folder.path()),
            workspace: Some(&self.prepared.workspace),
            socket: (config.docker_socket == DockerSocket::Raw).then_some(&*daemon.socket),
            resources: &Resources::default(),
            network: Network::Default,
            input: if self.is_detached() { Input::Open } else { Input::Once },
        };
        tokio::select! {
            biased;
            created = Container::create(daemon, &spec) => {
                created.map_err(|error| self.start_outcome(&error, image))
            }
            by = self.stop.killed() => Err(Outcome::Canceled { by }),
        }
    }

    /// Attach goes before start, so nothing that init says is missed; init is heard before Docker
    /// says that it was started.
    async fn attach_and_start(
        &self,
        container: Container,
        image: Image,
        control: ControlFolder,
        hand_back: Option<Owner>,
    ) -> Result<Booted, Outcome> {
        let attached = self.unless_interrupted(container.attach()).await?;
        let connection = attached.map_err(|error| internal(&error))?;
        let bounds = Bounds {
            steps: self.prepared.plan.stages.iter().map(|stage| stage.script.len()).collect(),
            log: self.engine.config.log_limit,
        };
        let sign_of_life = self.dead_man().map(|lease| lease / SIGNS_PER_LEASE);
        let link = if self.is_detached() {
            Link::open(connection, Reconnect(container.clone()), bounds, sign_of_life)
        } else {
            Link::open(connection, NoReconnect, bounds, sign_of_life)
        };
        let mut starting = JoinSet::new();
        let started = container.clone();
        starting.spawn(async move { started.start().await });
        let environment = Environment::new(&image.environment, self.prepared);
        let control = Arc::new(control);
        let mut booted = Booted { container, link, control, environment, image, hand_back, starting };
        match self.unless_interrupted(booted.ready()).await? {
            Ok(()) => Ok(booted),
            Err(error) => Err(self.start_outcome(&error, &booted.image)),
        }
    }

    /// What it means that there is no container.
    fn start_outcome(&self, error: &Error, image: &Image) -> Outcome {
        let text = error.chain();
        let absent = matches!(error, Error::Docker { source, .. } if docker::is_absent(source));
        let misfit = ["exec format error", "no matching manifest", "No such image"]
            .iter()
            .any(|words| text.contains(words));
        if !absent && !misfit {
            return internal(error);
        }
        let name = &self.prepared.plan.image;
        let oddity = image.oddity.as_ref().map(|oddity| format!(" ({oddity})")).unwrap_or_default();
        Outcome::ImageError { message: format!("no container can be made of image {name}: {text}{oddity}") }
    }

    /// Makes all ready for the first stage. A part of it may be done where this fails, so the
    /// container is still owed its orderly end.
    pub(super) async fn settle_in(&self, booted: &Booted) -> Result<(), Outcome> {
        let user = &booted.image.user;
        if !is_root(user) && !self.workspace_is_of(user).await {
            self.give_workspace(booted, user).await?;
        }
        let (image, image_id) = (self.prepared.plan.image.clone(), booted.image.id.clone());
        let (pull, start) = (Duration::ZERO, Duration::ZERO);
        self.feed.event(EventKind::ContainerReady { stage: None, image, image_id, pull, start }).await;
        Ok(())
    }

    /// Gives the workspace to the user that the stages run as.
    async fn give_workspace(&self, booted: &Booted, user: &str) -> Result<(), Outcome> {
        let to = NewOwner::Named(user.to_owned());
        let given = self.unless_interrupted(booted.link.own(WORKSPACE, Vec::new(), to)).await?;
        // Where the connection has ended, the first stage says so.
        let errors = given.unwrap_or_default();
        if !errors.is_empty() {
            let list = errors.join("\n  ");
            self.feed
                .warning(format!("the image's user {user} cannot have all of the project:\n  {list}"))
                .await;
        }
        Ok(())
    }

    async fn workspace_is_of(&self, user: &str) -> bool {
        let Ok(uid) = user.split(':').next().unwrap_or_default().parse::<u32>() else { return false };
        let workspace = self.prepared.workspace.clone();
        let owner = crate::blocking(move || run_folder::owner_of(&workspace)).await;
        owner.is_ok_and(|owner| owner.uid == uid)
    }
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

/// As an image's `USER` says it.
fn is_root(user: &str) -> bool {
    matches!(user.split(':').next().unwrap_or_default(), "" | "root" | "0")
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Outcome {
    Outcome::Internal { message: chain(error) }
}
