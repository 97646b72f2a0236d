//! The network of a job that has services: a bridge of its own, in which containers reach each other
//! by name. A job without services has none: making one takes a third of a second, and Docker's
//! address pools are small.

use bollard::{
    models::{NetworkCreateRequest, NetworkDisconnectRequest},
    query_parameters::ListNetworksOptionsBuilder,
};

use crate::{
    Error,
    docker::{self, Daemon},
    job::RunId,
    labels::{self, Named},
};

/// What a run's network is called.
pub(crate) fn name_of(run: &RunId) -> String {
    format!("buildr-{run}")
}

/// Makes the network of a run; one that the run has already is as good. Gives its name.
pub(crate) async fn create(daemon: &Daemon, owner: &str, run: &RunId) -> Result<String, Error> {
    let name = name_of(run);
    // Docker lets several networks have one name.
    if !list(daemon, owner, Some(run)).await?.is_empty() {
        return Ok(name);
    }
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".to_owned()),
        labels: Some(labels::of(owner, run)),
        ..NetworkCreateRequest::default()
    };
    match daemon.api.create_network(request).await {
        Ok(_) => Ok(name),
        Err(error) if is_out_of_addresses(&error) => Err(Error::NoAddresses { source: error }),
        Err(error) => Err(Error::docker(format!("create the network {name}"))(error)),
    }
}

/// All networks of an owner, or of a run of it: their ids and runs.
pub(crate) async fn list(daemon: &Daemon, owner: &str, run: Option<&RunId>) -> Result<Vec<Named>, Error> {
    let options = ListNetworksOptionsBuilder::new().filters(&labels::filters(owner, run)).build();
    let found = daemon.api.list_networks(Some(options)).await.map_err(Error::docker("list the networks"))?;
    let run_of = |labels: Option<_>| labels.as_ref().and_then(labels::run_of);
    Ok(found.into_iter().filter_map(|network| Some((network.id?, run_of(network.labels)))).collect())
}

/// Removes a network. One that is gone is fine. What the engine did not make and is in it, as a
/// container that a build has started, loses it.
pub(crate) async fn remove(daemon: &Daemon, id: &str) -> Result<(), Error> {
    let failed = || Error::docker(format!("remove network {id}"));
    match docker::unless_absent(daemon.api.remove_network(id).await) {
        Err(error) if has_members(&error) => {
            disconnect_all(daemon, id).await.map_err(failed())?;
            docker::unless_absent(daemon.api.remove_network(id).await).map_err(failed())
        }
        removed => removed.map_err(failed()),
    }
}

fn has_members(error: &bollard::errors::Error) -> bool {
    docker::refusal(error).is_some_and(|(_, message)| message.contains("active endpoints"))
}

async fn disconnect_all(daemon: &Daemon, id: &str) -> Result<(), bollard::errors::Error> {
    let there = daemon.api.inspect_network(id, None).await?;
    for container in there.containers.unwrap_or_default().into_keys() {
        let request = NetworkDisconnectRequest { container, force: Some(true) };
        docker::unless_absent(daemon.api.disconnect_network(id, request).await)?;
    }
    Ok(())
}

/// Each network takes a range of addresses, and Docker has about thirty of them.
fn is_out_of_addresses(error: &bollard::errors::Error) -> bool {
    docker::refusal(error).is_some_and(|(_, message)| {
        ["non-overlapping", "address pools", "no available network", "no available IPv4 addresses"]
            .iter()
            .any(|words| message.contains(words))
    })
}
