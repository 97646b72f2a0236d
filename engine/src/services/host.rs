//! The container of one service, and its end of init.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use buildr_init::wire::{INIT_PATH, Order, Settings, StageEnd, StageSpec};
use buildr_manifest::{Resources, ServiceName};
use tokio::time::timeout;

use super::{Place, ServiceError, Wanted, check::Check, log};
use crate::{
    Error,
    container::{Container, Fate, Input, Network, NoReconnect, Reconnect, Spec},
    control::ControlFolder,
    engine::Lifetime,
    environment::DEFAULT_PATH,
    image::Image,
    init_program,
    link::{Board, Bounds, Link},
    run_folder,
};

/// The service's own program, as init numbers what it runs. The checks come after it.
pub(super) const PROGRAM: u32 = 0;

/// The most checks of a service, whatever its timeout.
pub(super) const MAX_CHECKS: u32 = 1100;

/// How long init may take to speak in a container that was started.
const INIT_LIMIT: Duration = Duration::from_secs(60);

/// Init hears from us several times in a dead man's time, so that one that was late does no harm.
const SIGNS_PER_LEASE: u32 = 4;

/// A service that was started.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: ServiceName,
    /// As the manifest names it.
    pub(super) image: String,
    pub(super) link: Arc<Link>,
    pub(super) control: Arc<ControlFolder>,
    pub(super) check: Check,
    /// How long it may take to get ready.
    pub(super) timeout: Duration,
    environment: BTreeMap<String, String>,
    user: String,
}

impl Host {
    /// Makes the container and starts the service's program in it, or finds both.
    pub(super) async fn start(
        place: &Place<'_>,
        wanted: Wanted<'_>,
        image: &Image,
        network: &str,
    ) -> Result<Self, ServiceError> {
        let service = &wanted.planned.service;
        let opened = async {
            let (container, control) = make(place, &service.name, &image.id, network).await?;
            connect(place, &container).await.map(|link| (link, control))
        };
        let (link, control) = opened.await.map_err(|source| ServiceError::Start {
            service: service.name.clone(),
            image: wanted.image.to_owned(),
            source,
        })?;
        let host = Self {
            name: service.name.clone(),
            image: wanted.image.to_owned(),
            link: Arc::new(link),
            control: Arc::new(control),
            check: Check::of(service.ready.as_deref(), image),
            timeout: service.timeout,
            environment: environment(image, wanted),
            user: image.user.clone(),
        };
        if !host.link.board().borrow().stages.contains_key(&PROGRAM) {
            let command = image.program.command(service.command.as_deref());
            let workdir = image.program.workdir.clone();
            host.run(PROGRAM, command, workdir, place.engine.config.log_limit).await;
        }
        Ok(host)
    }

    /// Has init run a program in the container.
    pub(super) async fn run(&self, number: u32, command: Vec<String>, workdir: String, log_limit: u64) {
        // Init lies in a folder that only root may enter.
        let is_ours = command.first().is_some_and(|program| program == INIT_PATH);
        let spec = StageSpec {
            stage: number,
            shell: command,
            script: Vec::new(),
            environment: self.environment.clone(),
            workdir,
            user: if is_ours { String::new() } else { self.user.clone() },
            log_limit,
        };
        self.link.send(Order::Start(spec)).await;
    }

    /// How a program of the container ended; none where the container did.
    pub(super) async fn end_of(&self, number: u32) -> Option<StageEnd> {
        let end = |board: &Board| board.stages.get(&number)?.end.clone();
        self.link.shows(|board| end(board).is_some()).await;
        end(&self.link.board().borrow())
    }

    /// The end of what a program printed, as lines that are safe to show.
    pub(super) async fn last_lines(&self, number: u32, count: usize) -> Vec<String> {
        let length = self.link.board().borrow().stages.get(&number).map_or(0, |stage| stage.log_bytes);
        let control = Arc::clone(&self.control);
        let read = tokio::task::spawn_blocking(move || log::tail(&control, number, length, count));
        read.await.unwrap_or_default()
    }
}

/// Makes a service's container, or finds it.
async fn make(
    place: &Place<'_>,
    service: &str,
    image: &str,
    network: &str,
) -> Result<(Container, ControlFolder), Error> {
    let (engine, run) = (place.engine, place.run);
    let data_dir = engine.config.data_dir.clone();
    let init = crate::blocking(move || Ok(init_program::install(&data_dir))).await;
    let init = init.map_err(Error::files("install init in", &engine.config.data_dir))??;
    let path = control_path(place.folder, service);
    run_folder::make_control(&path).map_err(Error::files("create folder", &path))?;
    let control = ControlFolder::open(&path).map_err(Error::files("open folder", &path))?;
    let spec = Spec {
        run,
        owner: &engine.config.owner,
        name: &format!("buildr-{run}-service-{service}"),
        image,
        init: &init,
        settings: &settings(place.lifetime),
        control: path,
        workspace: None,
        socket: None,
        resources: &Resources::default(),
        pids_limit: engine.config.pids_limit,
        network: Network::Own { name: network, service: Some(service) },
        input: match place.lifetime {
            Lifetime::Attached => Input::Once,
            Lifetime::Detached { .. } => Input::Open,
        },
    };
    Ok((Container::create(&engine.daemon, &spec).await?, control))
}

/// Connects to a container's init, and starts it where it does not run.
async fn connect(place: &Place<'_>, container: &Container) -> Result<Link, Error> {
    if let Fate::Ended { .. } = container.fate().await? {
        return Err(Error::NoInit);
    }
    let connection = container.attach().await?;
    let bounds = Bounds { steps: vec![0; MAX_CHECKS as usize + 1], log: place.engine.config.log_limit };
    let link = match place.lifetime {
        Lifetime::Attached => Link::open(connection, NoReconnect, bounds, None),
        Lifetime::Detached { dead_man } => {
            let sign_of_life = dead_man.map(|lease| lease / SIGNS_PER_LEASE);
            Link::open(connection, Reconnect(container.clone()), bounds, sign_of_life)
        }
    };
    container.start().await?;
    let ready = timeout(INIT_LIMIT, link.shows(|board| board.ready)).await;
    if ready.unwrap_or(false) { Ok(link) } else { Err(Error::NoInit) }
}

/// Where in a run's folder the control directory of a service is. A service's name is checked.
fn control_path(folder: &Path, service: &str) -> PathBuf {
    folder.join(format!("control-service-{service}"))
}

fn settings(lifetime: Lifetime) -> Settings {
    let dead_man = lifetime.dead_man();
    Settings { exit_on_eof: lifetime == Lifetime::Attached, dead_man, hand_back: None }
}

/// The image's, and the service's own over it: nothing of the build's.
fn environment(image: &Image, wanted: Wanted<'_>) -> BTreeMap<String, String> {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let name = &*wanted.planned.service.name;
    let mut all = BTreeMap::from([("PATH", DEFAULT_PATH), ("HOSTNAME", name)].map(owned));
    all.extend(image.environment.iter().filter_map(|entry| entry.split_once('=')).map(owned));
    all.extend(wanted.planned.variables.iter().map(|(name, value)| (name.to_string(), value.clone())));
    all
}
