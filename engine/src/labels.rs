//! The labels on all that the engine makes in Docker, and what is done by them: finding what a run
//! has, for whoever takes it over, and removing all of it.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum},
    query_parameters::{
        ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
        RemoveVolumeOptionsBuilder,
    },
};
use tokio::time::{sleep, timeout};

use crate::{
    Error,
    docker::{self, Daemon},
    job::RunId,
    network,
};

/// Whose it is: the value of [`Config::owner`](crate::Config::owner).
pub(crate) const OWNER: &str = "buildr.agent";

/// Which run it is of.
pub(crate) const RUN: &str = "buildr.attempt";

/// On the container of a service: the service's name.
pub(crate) const SERVICE: &str = "buildr.service";

/// How long the daemon may take to remove all of a run. What takes longer is left to the reaper.
const REMOVAL_LIMIT: Duration = Duration::from_secs(30);

/// The daemon has no call that waits for the removal of a container that it removes by itself
/// and that may be gone already.
const REMOVAL_POLL: Duration = Duration::from_millis(20);

/// A container that was found by its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Docker's id for it.
    pub(crate) id: String,
    /// The name that it was given.
    pub(crate) name: String,
    /// Which run it is of, where the label can be read.
    pub(crate) run: Option<RunId>,
    /// The service that it is, if it is one.
    pub(crate) service: Option<String>,
    /// Whether it runs.
    pub(crate) state: State,
}

/// How far a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It was made and never started.
    Created,
    /// It was started and has not ended.
    Running,
    /// It has ended.
    Ended,
}

/// What was made in Docker and is no container: a name that it is removed by, and its run.
pub(crate) type Named = (String, Option<RunId>);

/// The labels of what is made for a run.
pub(crate) fn of(owner: &str, run: &RunId) -> HashMap<String, String> {
    [(OWNER, owner), (RUN, run.as_str())].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// What to filter by for what an owner has, or a run of it.
pub(crate) fn filters(owner: &str, run: Option<&RunId>) -> HashMap<String, Vec<String>> {
    let mut labels = vec![format!("{OWNER}={owner}")];
    labels.extend(run.map(|run| format!("{RUN}={run}")));
    HashMap::from([("label".to_owned(), labels)])
}

/// The run that labels name.
pub(crate) fn run_of(labels: &HashMap<String, String>) -> Option<RunId> {
    labels.get(RUN).and_then(RunId::new)
}

/// All containers of an owner, or of a run of it, whatever they do.
pub(crate) async fn containers(
    daemon: &Daemon,
    owner: &str,
    run: Option<&RunId>,
) -> Result<Vec<Found>, Error> {
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters(owner, run)).build();
    let found =
        daemon.api.list_containers(Some(options)).await.map_err(Error::docker("list the containers"))?;
    Ok(found.into_iter().filter_map(found_container).collect())
}

fn found_container(found: ContainerSummary) -> Option<Found> {
    let labels = found.labels.unwrap_or_default();
    let name = found.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    Some(Found {
        id: found.id?,
        name: name.trim_start_matches('/').to_owned(),
        run: run_of(&labels),
        service: labels.get(SERVICE).cloned(),
        state: match found.state {
            Some(ContainerSummaryStateEnum::CREATED) => State::Created,
            Some(
                ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::PAUSED
                | ContainerSummaryStateEnum::RESTARTING
                | ContainerSummaryStateEnum::STOPPING,
            ) => State::Running,
            _ => State::Ended,
        },
    })
}

/// All volumes with an owner's labels.
pub(crate) async fn volumes(daemon: &Daemon, owner: &str, run: Option<&RunId>) -> Result<Vec<Named>, Error> {
    let options = ListVolumesOptionsBuilder::new().filters(&filters(owner, run)).build();
    let found = daemon.api.list_volumes(Some(options)).await.map_err(Error::docker("list the volumes"))?;
    let found = found.volumes.unwrap_or_default().into_iter();
    Ok(found.map(|volume| (volume.name, run_of(&volume.labels))).collect())
}

/// Removes a container with its anonymous volumes, running or not. One that is gone or going
/// already is fine.
pub(crate) async fn remove_container(daemon: &Daemon, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let removed = daemon.api.remove_container(id, Some(options)).await;
    docker::unless_gone(removed).map_err(Error::docker(format!("remove container {id}")))
}

/// Removes a volume. One that is gone is fine, and so is one that is in use: it is not the last try.
pub(crate) async fn remove_volume(daemon: &Daemon, name: &str) -> Result<(), Error> {
    let removed = daemon.api.remove_volume(name, Some(RemoveVolumeOptionsBuilder::new().build())).await;
    docker::unless_gone(removed).map_err(Error::docker(format!("remove volume {name}")))
}

/// Removes all that a run has in Docker, and comes back when Docker shows none of its containers any
/// more; tells how many there were. Takes a bounded time, whatever the daemon does.
pub(crate) async fn remove_all(daemon: &Daemon, owner: &str, run: &RunId) -> Result<u32, Error> {
    daemon.awake().await?;
    let removed = timeout(REMOVAL_LIMIT, remove_in_order(daemon, owner, run)).await;
    removed.unwrap_or_else(|_| Err(Error::StillThere { run: run.to_string() }))
}

async fn remove_in_order(daemon: &Daemon, owner: &str, run: &RunId) -> Result<u32, Error> {
    let there = containers(daemon, owner, Some(run)).await?;
    for container in &there {
        remove_container(daemon, &container.id).await?;
    }
    while !there.is_empty() && !containers(daemon, owner, Some(run)).await?.is_empty() {
        sleep(REMOVAL_POLL).await;
    }
    // What containers are in or have mounted can only go after them.
    for (id, _) in network::list(daemon, owner, Some(run)).await? {
        network::remove(daemon, &id).await?;
    }
    for (name, _) in volumes(daemon, owner, Some(run)).await? {
        remove_volume(daemon, &name).await?;
    }
    Ok(u32::try_from(there.len()).unwrap_or(u32::MAX))
}
