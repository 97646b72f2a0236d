//! A build container: how it is made, spoken to and removed. What runs in it is init's business.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    container::{AttachContainerResults, LogOutput},
    models::{
        ContainerCreateBody, ContainerStateStatusEnum, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
        MountType,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    },
};
use buildr_init::wire::{CONTROL_DIR, INIT_PATH, Settings};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use crate::{
    Error,
    docker::{self, Daemon},
    environment::{HOSTNAME, WORKSPACE},
    job::RunId,
    link::{Connect, Connection},
};

/// Whose container it is: the value of [`Config::owner`](crate::Config::owner).
pub(crate) const OWNER_LABEL: &str = "buildr.agent";

/// Which run it is of.
pub(crate) const RUN_LABEL: &str = "buildr.attempt";

/// Where Docker's socket is in a container.
const SOCKET_IN_CONTAINER: &str = "/var/run/docker.sock";

/// How long the daemon may take for a removal that it has accepted.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// The daemon has no call that waits for the removal of a container that it removes by itself
/// and that may be gone already.
const REMOVAL_POLL: Duration = Duration::from_millis(20);

/// How often a lost connection to a container that lives is made again.
const CONNECT_TRIES: u32 = 20;

/// Between two of them: a daemon that restarts takes some seconds.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What a container is made from.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    /// The run.
    pub(crate) run: &'a RunId,
    /// See [`OWNER_LABEL`].
    pub(crate) owner: &'a str,
    /// The container's name.
    pub(crate) name: &'a str,
    /// The image's id.
    pub(crate) image: &'a str,
    /// The init program on this machine.
    pub(crate) init: &'a Path,
    /// How it behaves.
    pub(crate) settings: &'a Settings,
    /// Becomes [`CONTROL_DIR`].
    pub(crate) control: PathBuf,
    /// Becomes [`WORKSPACE`].
    pub(crate) workspace: &'a Path,
    /// Docker's socket on this machine, where builds get it.
    pub(crate) socket: Option<&'a Path>,
    /// How it ends.
    pub(crate) input: Input,
}

/// The standard input of init, and with it what ends a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Ends with the first connection; the container removes itself.
    Once,
    /// Stays open over connections.
    Open,
    /// Is empty; the container removes itself.
    Empty,
}

/// How many containers of a run there are is known; all that is done to them is done by its labels.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    daemon: Daemon,
    id: String,
}

/// What became of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It runs.
    Running,
    /// It ended.
    Ended {
        /// For want of memory.
        oom: bool,
    },
}

impl Container {
    /// Makes a container and starts nothing.
    pub(crate) async fn create(daemon: &Daemon, spec: &Spec<'_>) -> Result<Self, Error> {
        let options = CreateContainerOptionsBuilder::new().name(spec.name).build();
        let created = daemon
            .api
            .create_container(Some(options), body(spec))
            .await
            .map_err(Error::docker("create the build container"))?;
        Ok(Self { daemon: daemon.clone(), id: created.id })
    }

    /// Connects to init's standard input and output; before the start, too.
    pub(crate) async fn attach(&self) -> Result<Connection, Error> {
        let options =
            AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let AttachContainerResults { output, input } = self
            .daemon
            .api
            .attach_container(&self.id, Some(options))
            .await
            .map_err(Error::docker("attach to the build container"))?;
        let output = output.filter_map(|piece| async { piece.ok().and_then(standard_output) });
        Ok(Connection { output: Box::pin(output), input })
    }

    /// Starts init.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        let started = self.daemon.api.start_container(&self.id, None).await;
        started.map_err(Error::docker("start the build container"))
    }

    /// Ends all its processes at once. One that has ended is left alone.
    pub(crate) async fn kill(&self) -> Result<(), Error> {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        match self.daemon.api.kill_container(&self.id, Some(options)).await {
            Err(error) if !docker::is_absent(&error) && !is_conflict(&error) => {
                Err(Error::docker("kill the build container")(error))
            }
            _ => Ok(()),
        }
    }

    /// Asks the daemon what became of it.
    pub(crate) async fn fate(&self) -> Result<Fate, Error> {
        let found = match self.daemon.api.inspect_container(&self.id, None).await {
            Ok(found) => found,
            Err(error) if docker::is_absent(&error) => return Ok(Fate::Ended { oom: false }),
            Err(error) => return Err(Error::docker("look at the build container")(error)),
        };
        let state = found.state.unwrap_or_default();
        let running = matches!(
            state.status,
            Some(
                ContainerStateStatusEnum::RUNNING
                    | ContainerStateStatusEnum::PAUSED
                    | ContainerStateStatusEnum::RESTARTING
                    | ContainerStateStatusEnum::CREATED
            )
        );
        let ended = Fate::Ended { oom: state.oom_killed.unwrap_or(false) };
        Ok(if running { Fate::Running } else { ended })
    }
}

/// Connects again to a container that lives on.
pub(crate) struct Reconnect(pub(crate) Container);

impl Connect for Reconnect {
    async fn connect(&mut self) -> Option<Connection> {
        for _ in 0..CONNECT_TRIES {
            match self.0.fate().await {
                Ok(Fate::Ended { .. }) => return None,
                Ok(Fate::Running) => {
                    if let Ok(connection) = self.0.attach().await {
                        return Some(connection);
                    }
                }
                Err(error) => tracing::debug!(error = error.chain(), "docker does not answer"),
            }
            sleep(CONNECT_PAUSE).await;
        }
        None
    }
}

/// For containers that end with their connection.
pub(crate) struct NoReconnect;

impl Connect for NoReconnect {
    async fn connect(&mut self) -> Option<Connection> {
        None
    }
}

/// All containers of an owner: their ids and the runs that they are of.
pub(crate) async fn list(
    daemon: &Daemon,
    owner: &str,
    run: Option<&RunId>,
) -> Result<Vec<(String, Option<RunId>)>, Error> {
    let mut labels = vec![format!("{OWNER_LABEL}={owner}")];
    labels.extend(run.map(|run| format!("{RUN_LABEL}={run}")));
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found =
        daemon.api.list_containers(Some(options)).await.map_err(Error::docker("list the containers"))?;
    let run_of = |labels: HashMap<String, String>| labels.get(RUN_LABEL).and_then(RunId::new);
    Ok(found.into_iter().filter_map(|c| Some((c.id?, c.labels.and_then(run_of)))).collect())
}

/// Removes a container with its anonymous volumes, running or not. One that is gone or going
/// already is fine.
pub(crate) async fn remove(daemon: &Daemon, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match daemon.api.remove_container(id, Some(options)).await {
        Err(error) if !docker::is_absent(&error) && !is_conflict(&error) => {
            Err(Error::docker(format!("remove container {id}"))(error))
        }
        _ => Ok(()),
    }
}

/// Removes all containers of a run and comes back when Docker shows none of them any more; tells
/// how many there were.
pub(crate) async fn remove_all(daemon: &Daemon, owner: &str, run: &RunId) -> Result<u32, Error> {
    let there = list(daemon, owner, Some(run)).await?;
    for (id, _) in &there {
        remove(daemon, id).await?;
    }
    let deadline = Instant::now() + REMOVAL_LIMIT;
    while !there.is_empty() && !list(daemon, owner, Some(run)).await?.is_empty() {
        if Instant::now() >= deadline {
            return Err(Error::StillThere { run: run.to_string() });
        }
        sleep(REMOVAL_POLL).await;
    }
    Ok(u32::try_from(there.len()).unwrap_or(u32::MAX))
}

/// 409: it does not run, or its removal is under way.
fn is_conflict(error: &bollard::errors::Error) -> bool {
    docker::refusal(error).is_some_and(|(status, _)| status == 409)
}

/// Init speaks on standard output; what it has to complain about is on standard error.
fn standard_output(piece: LogOutput) -> Option<Bytes> {
    match piece {
        LogOutput::StdOut { message } => Some(message),
        LogOutput::StdErr { message } => {
            tracing::warn!(text = %String::from_utf8_lossy(&message), "init complains");
            None
        }
        LogOutput::StdIn { .. } | LogOutput::Console { .. } => None,
    }
}

fn body(spec: &Spec<'_>) -> ContainerCreateBody {
    let settings = serde_json::to_string(spec.settings).expect("settings have only strings for keys");
    let labels = [(OWNER_LABEL, spec.owner), (RUN_LABEL, spec.run.as_str())];
    ContainerCreateBody {
        image: Some(spec.image.to_owned()),
        hostname: Some(HOSTNAME.to_owned()),
        // Init drops to the image's user, stage by stage.
        user: Some("0:0".to_owned()),
        entrypoint: Some(vec![INIT_PATH.to_owned()]),
        cmd: Some(vec![settings]),
        working_dir: Some("/".to_owned()),
        attach_stdin: Some(spec.input != Input::Empty),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(spec.input != Input::Empty),
        stdin_once: Some(spec.input == Input::Once),
        tty: Some(false),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        host_config: Some(HostConfig {
            auto_remove: Some(spec.input != Input::Open),
            // The daemon may be set to put an init of its own first.
            init: Some(false),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            mounts: Some(mounts(spec)),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn mounts(spec: &Spec<'_>) -> Vec<Mount> {
    let bind = |source: &Path, target: &str, read_only| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.display().to_string()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let mut mounts = vec![
        bind(&spec.control, CONTROL_DIR, false),
        bind(spec.init, INIT_PATH, true),
        bind(spec.workspace, WORKSPACE, false),
    ];
    mounts.extend(spec.socket.map(|socket| bind(socket, SOCKET_IN_CONTAINER, false)));
    mounts
}
