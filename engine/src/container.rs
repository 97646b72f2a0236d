//! A build container: how it is made, spoken to and removed. What runs in it is init's business.

mod body;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{
    container::{AttachContainerResults, LogOutput},
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    },
};
use buildr_init::wire::Settings;
use buildr_manifest::Resources;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::sleep;

use crate::{
    Error,
    docker::{self, Daemon},
    job::RunId,
    link::{Connect, Connection},
};

/// A daemon that does not even kill within this time hangs.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A daemon that does not make, start or connect to a container within this time hangs, or is on a machine
/// that is of no use.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// How long a look at a container may take.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// How often a lost connection to a container that lives is made again.
const CONNECT_TRIES: u32 = 20;

/// Between two of them: a daemon that restarts takes some seconds.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// What a container is made from.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    /// The run.
    pub(crate) run: &'a RunId,
    /// See [`OWNER`](crate::labels::OWNER).
    pub(crate) owner: &'a str,
    /// The container's name.
    pub(crate) name: &'a str,
    /// The image's id.
    pub(crate) image: &'a str,
    /// The init program on this machine.
    pub(crate) init: &'a Path,
    /// How it behaves.
    pub(crate) settings: &'a Settings,
    /// Becomes [`CONTROL_DIR`](buildr_init::wire::CONTROL_DIR).
    pub(crate) control: PathBuf,
    /// Becomes [`WORKSPACE`](crate::environment::WORKSPACE), where it is to be seen.
    pub(crate) workspace: Option<&'a Path>,
    /// Docker's socket on this machine, where builds get it.
    pub(crate) socket: Option<&'a Path>,
    /// What it may use.
    pub(crate) resources: &'a Resources,
    /// See [`Config::pids_limit`](crate::Config::pids_limit).
    pub(crate) pids_limit: u32,
    /// Where it is in the network.
    pub(crate) network: Network<'a>,
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

/// The network that a container is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network<'a> {
    /// Docker's usual bridge.
    Default,
    /// One that was made for the run.
    Own {
        /// The network's name.
        name: &'a str,
        /// The service that the container is, and by whose name the others in the network reach it.
        service: Option<&'a str>,
    },
}

/// One container. Those of a run that is adopted are found by [`labels`](crate::labels).
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
    /// Makes a container and starts nothing. One of this name that the same run has made is as good:
    /// the answer to an earlier call was lost.
    pub(crate) async fn create(daemon: &Daemon, spec: &Spec<'_>) -> Result<Self, Error> {
        const DOING: &str = "create the build container";
        let created = docker::within(DOING, CALL_LIMIT, create(daemon, spec.name, body::body(spec))).await?;
        Ok(Self::of(daemon, created.map_err(Error::docker(DOING))?))
    }

    /// A container that exists.
    pub(crate) fn of(daemon: &Daemon, id: impl Into<String>) -> Self {
        Self { daemon: daemon.clone(), id: id.into() }
    }

    /// Connects to init's standard input and output; before the start, too.
    pub(crate) async fn attach(&self) -> Result<Connection, Error> {
        let options =
            AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        const DOING: &str = "attach to the build container";
        let attached = self.daemon.api.attach_container(&self.id, Some(options));
        let attached = docker::within(DOING, CALL_LIMIT, attached).await?;
        let AttachContainerResults { output, input } = attached.map_err(Error::docker(DOING))?;
        let output = output.filter_map(|piece| async { piece.ok().and_then(standard_output) });
        Ok(Connection { output: Box::pin(output), input })
    }

    /// Starts init.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        const DOING: &str = "start the build container";
        let started = self.daemon.api.start_container(&self.id, None);
        docker::within(DOING, CALL_LIMIT, started).await?.map_err(Error::docker(DOING))
    }

    /// Ends all its processes at once. One that has ended is left alone. A daemon that hangs is
    /// waited for for a short time only.
    pub(crate) async fn kill(&self) -> Result<(), Error> {
        const DOING: &str = "kill the build container";
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        let killed = self.daemon.api.kill_container(&self.id, Some(options));
        match docker::within(DOING, KILL_LIMIT, killed).await? {
            Err(error) if !docker::is_absent(&error) && !docker::is_conflict(&error) => {
                Err(Error::docker(DOING)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes it, running or not.
    pub(crate) async fn remove(&self) -> Result<(), Error> {
        crate::labels::remove_container(&self.daemon, &self.id).await
    }

    /// Asks the daemon what became of it.
    pub(crate) async fn fate(&self) -> Result<Fate, Error> {
        const DOING: &str = "look at the build container";
        let found = self.daemon.api.inspect_container(&self.id, None);
        let found = match docker::within(DOING, LOOK_LIMIT, found).await? {
            Ok(found) => found,
            Err(error) if docker::is_absent(&error) => return Ok(Fate::Ended { oom: false }),
            Err(error) => return Err(Error::docker(DOING)(error)),
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

/// Makes a container of what Docker wants to know and gives its id; one of this name with the same
/// labels is taken for it.
pub(crate) async fn create(
    daemon: &Daemon,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, bollard::errors::Error> {
    let ours = body.labels.clone().unwrap_or_default();
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    match daemon.api.create_container(Some(options), body).await {
        Ok(created) => Ok(created.id),
        Err(error) if docker::is_conflict(&error) => {
            let there = daemon.api.inspect_container(name, None).await;
            let same = |there: &ContainerInspectResponse| {
                let labels = there.config.as_ref().and_then(|config| config.labels.as_ref());
                labels.is_some_and(|theirs| ours.iter().all(|(name, value)| theirs.get(name) == Some(value)))
            };
            there.ok().filter(same).and_then(|there| there.id).ok_or(error)
        }
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests;
