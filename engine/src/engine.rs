//! The engine itself: its settings, and what can be asked of it.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Finding, Finished,
    docker::Daemon,
    estate::{self, Estate},
    examine,
    feed::StopSignal,
    image::Pulls,
    job::{Heard, Item, JobRequest, Kept, NotAdopted, Prepared, RunId, Stop},
    prepare,
    reaper::{self, Reaped},
    run, run_folder,
    source::{Sources, UrlPolicy},
};

/// How the engine works on this machine. The operator decides, never a manifest.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own folder: mirrors, workspaces, control directories. Docker must see it under the same
    /// path.
    pub data_dir: PathBuf,
    /// Marks its containers on this machine's Docker: the value of the label `buildr.agent`. The
    /// reaper removes what has this mark, so nobody else with another data folder may have it.
    pub owner: String,
    /// The value of `DOCKER_HOST`; none: Docker's usual socket.
    pub docker_host: Option<String>,
    /// When images come from their registries.
    pub pull: Pull,
    /// What builds get of Docker.
    pub docker_socket: DockerSocket,
    /// The most that a stage may write, in bytes.
    pub log_limit: u64,
    /// The most processes and threads that a container may have whose manifest does not say.
    pub pids_limit: u32,
    /// Between TERM and KILL where a job is ended.
    pub grace: Duration,
    /// How long stages that run after a failure may go on once a job is being ended.
    pub always_budget: Duration,
    /// What becomes of containers when this process ends.
    pub lifetime: Lifetime,
    /// Lets file URLs be a project's source.
    pub allow_file_urls: bool,
}

/// When images come from their registries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Where they are not on this machine.
    #[default]
    Missing,
    /// For each job; one whose registry cannot be reached is an error, even where an older image of
    /// that name is here.
    Always,
    /// Never: what is not on this machine is an error.
    Never,
}

/// What builds get of this machine's Docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DockerSocket {
    /// The daemon's own socket: as good as root on this machine.
    Raw,
    /// Nothing.
    None,
}

/// What becomes of containers when this process ends, however it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They end with it.
    Attached,
    /// They live on, for at most the dead man's time where there is one.
    Detached {
        /// Without a sign of life from an engine for this long, init ends the build.
        dead_man: Option<Duration>,
    },
}

impl Lifetime {
    /// The dead man's time, where there is one.
    pub(crate) fn dead_man(self) -> Option<Duration> {
        match self {
            Self::Attached => None,
            Self::Detached { dead_man } => dead_man,
        }
    }

    /// The same with this dead man's time, where it is the shorter one.
    pub(crate) fn at_most(self, limit: Duration) -> Self {
        match self {
            Self::Attached => Self::Attached,
            Self::Detached { dead_man } => {
                Self::Detached { dead_man: Some(dead_man.map_or(limit, |usual| usual.min(limit))) }
            }
        }
    }
}

impl Config {
    /// The log limit where nothing else is said: 1 GiB.
    pub const LOG_LIMIT: u64 = 1 << 30;

    /// The limit of processes where nothing else is said: more than builds need, and few enough that a
    /// build that forks without end leaves the machine usable.
    pub const PIDS_LIMIT: u32 = 16_384;

    /// The grace where nothing else is said.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// How long stages that run after a failure may go on where nothing else is said.
    pub const ALWAYS_BUDGET: Duration = Duration::from_secs(120);

    /// The usual settings of a local run; `DOCKER_HOST` is taken from this process's environment.
    pub fn new(data_dir: impl Into<PathBuf>, owner: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            owner: owner.into(),
            docker_host: std::env::var("DOCKER_HOST").ok(),
            pull: Pull::Missing,
            docker_socket: DockerSocket::Raw,
            log_limit: Self::LOG_LIMIT,
            pids_limit: Self::PIDS_LIMIT,
            grace: Self::GRACE,
            always_budget: Self::ALWAYS_BUDGET,
            lifetime: Lifetime::Attached,
            allow_file_urls: false,
        }
    }
}

/// A connection to this machine's Docker with all that a job needs besides. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all clones of an engine share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) daemon: Daemon,
    pub(crate) pulls: Pulls,
    sources: OnceLock<Sources>,
}

impl Inner {
    /// See [`Engine::connect`].
    pub(crate) async fn connect(mut config: Config) -> Result<Self, Error> {
        let daemon = Daemon::connect(config.docker_host.as_deref()).await?;
        let failed = || Error::files("create folder", &config.data_dir);
        std::fs::create_dir_all(&config.data_dir).map_err(failed())?;
        let data_dir = config.data_dir.canonicalize().map_err(failed())?;
        config.data_dir = data_dir;
        Ok(Self { config, daemon, pulls: Pulls::default(), sources: OnceLock::new() })
    }

    /// Made when first needed: it runs git, and a local run of a folder needs none.
    pub(crate) fn sources(&self) -> &Sources {
        let policy = UrlPolicy { allow_file: self.config.allow_file_urls };
        self.sources.get_or_init(|| Sources::new(self.config.data_dir.join("sources"), policy))
    }
}

impl Engine {
    /// Finds Docker and makes the data folder.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        Ok(Self { inner: Arc::new(Inner::connect(config).await?) })
    }

    /// What of this machine and its Docker is not as builds need it: nothing where all is well. May take
    /// some seconds.
    pub async fn examine(&self) -> Vec<Finding> {
        examine::examine(&self.inner).await
    }

    /// Brings the project here and reads its manifest. Tells `JobStarted`, `SourceResolved`,
    /// warnings and `Planned`; where it fails or is stopped, `JobFinished` is the last.
    pub async fn prepare(
        &self,
        request: JobRequest,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Prepared, Finished> {
        Box::pin(prepare::prepare(&self.inner, request, items, &StopSignal::new(stop))).await
    }

    /// Runs the stages and tells the rest, `JobFinished` as the very last item. Comes back when all
    /// that the run made is removed, or left to the daemon to remove; that may be later than the
    /// last item. To end it early use `stop`: dropping the future leaves what there is to the
    /// reaper.
    pub async fn run(
        &self,
        prepared: Prepared,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        Box::pin(run::run(&self.inner, prepared, items, StopSignal::new(stop))).await
    }

    /// Takes hold of a run whose engine's process ended in its middle, to go on with it. Only runs of
    /// [`Lifetime::Detached`] engines can be taken over. Not before this, or the run is in `live`, may
    /// [`Engine::reap`] be called.
    pub async fn take_over(&self, run: &RunId) -> Result<Estate, NotAdopted> {
        estate::open(&self.inner, run).await
    }

    /// Goes on with a run that was taken over, for a listener that has heard so much of it, and carries
    /// it to its end as [`Engine::run`] does: what was not heard is told, then the rest.
    pub async fn go_on(
        &self,
        estate: Estate,
        heard: Heard,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Finished {
        Box::pin(run::adopt(&self.inner, estate, heard, items, StopSignal::new(stop))).await
    }

    /// [`Engine::take_over`] and [`Engine::go_on`] in one.
    pub async fn adopt(
        &self,
        run: &RunId,
        heard: Heard,
        items: &mpsc::Sender<Item>,
        stop: &watch::Receiver<Stop>,
    ) -> Result<Finished, NotAdopted> {
        let estate = self.take_over(run).await?;
        Ok(self.go_on(estate, heard, items, stop).await)
    }

    /// What a run with [`Afterwards::Keep`] has left for its user. The reaper leaves it alone, and clears
    /// up once the user has removed the containers.
    ///
    /// [`Afterwards::Keep`]: crate::Afterwards::Keep
    pub fn kept(&self, run: &RunId) -> Option<Kept> {
        run_folder::kept(&run_folder::path_of(&self.inner.config.data_dir, run))
    }

    /// Removes what is kept of a run.
    pub async fn discard(&self, run: &RunId) -> Result<(), Error> {
        reaper::discard(&self.inner, run).await
    }

    /// Removes the containers and folders of this owner whose run is neither in `live` nor in the
    /// hands of any process on this machine; keeps the mirrors of repositories small.
    pub async fn reap(&self, live: &HashSet<RunId>) -> Result<Reaped, Error> {
        let reaped = reaper::reap(&self.inner, live).await;
        // Who has brought no repository here has no mirrors that grew.
        if let Some(sources) = self.inner.sources.get()
            && let Err(error) = sources.upkeep(&CancellationToken::new()).await
        {
            tracing::warn!(%error, "the mirrors of repositories could not be tidied");
        }
        reaped
    }
}
