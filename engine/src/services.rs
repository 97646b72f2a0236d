//! Services: containers that run beside the build's, under names that the build reaches them by.
//!
//! A service runs under init like a stage, not as its container's first process: init starts the
//! image's own entrypoint and command (or the manifest's) as a program ([`StageSpec`] without a script), writes
//! down what it prints, and runs the command that tells whether it is ready as a further program in
//! the same container. So there is no `docker exec`, a service ends with its engine where a build does
//! (`buildr run` that was killed leaves nothing), its log is a file that outlives the engine, and an
//! engine that comes back attaches to it as to a build container.
//!
//! [`StageSpec`]: buildr_init::wire::StageSpec

mod check;
mod error;
mod host;
mod log;
mod ready;

use std::{collections::BTreeMap, path::Path, time::Instant};

use buildr_manifest::{EventKind, ServiceName, plan::PlannedService};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::{Inner, Lifetime},
    feed::Feed,
    image::{self, Image},
    job::RunId,
    network,
};

pub(crate) use error::ServiceError;
use host::Host;
use log::Follower;

/// A service of a job, with its image's name in full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// As it was planned.
    pub(crate) planned: &'a PlannedService,
    /// The image's name.
    pub(crate) image: &'a str,
}

/// What was told of a service before this engine took the job over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// How much of its log, in bytes.
    pub(crate) log: u64,
    /// That it is ready.
    pub(crate) ready: bool,
}

/// Where services are started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The engine.
    pub(crate) engine: &'a Inner,
    /// Their run.
    pub(crate) run: &'a RunId,
    /// What becomes of them when this process ends.
    pub(crate) lifetime: Lifetime,
    /// The run's folder: their control directories are made in it.
    pub(crate) folder: &'a Path,
    /// Where events and what the services print go.
    pub(crate) feed: &'a Feed,
}

/// The services of a job, all ready. Dropping it ends the connections to them; the containers go with
/// all others of the run.
#[derive(Debug)]
pub(crate) struct Services {
    followers: JoinSet<()>,
    stop: CancellationToken,
}

impl Services {
    /// Starts services side by side, in the run's network, and comes back when all of them are ready;
    /// tells `ServiceReady` of each. What an earlier call for the run has begun is gone on with, in this
    /// process or after it: a service that runs is found, and what was `heard` of it by name is not told
    /// again. Dropping the future leaves what there is to the run's removal.
    pub(crate) async fn start(
        place: &Place<'_>,
        wanted: &[Wanted<'_>],
        heard: &BTreeMap<ServiceName, Heard>,
    ) -> Result<Self, ServiceError> {
        let (daemon, owner) = (&place.engine.daemon, &place.engine.config.owner);
        let network = network::create(daemon, owner, place.run).await.map_err(ServiceError::Network)?;
        let mut services = Self { followers: JoinSet::new(), stop: CancellationToken::new() };
        let images = try_join_all(wanted.iter().map(|wanted| get(place, wanted))).await?;
        let here = Instant::now();
        let begun = wanted.iter().zip(images).map(|(wanted, image)| {
            let heard = heard.get(&wanted.planned.service.name).copied().unwrap_or_default();
            start(place, Start { wanted: *wanted, image, network: &network, heard, here })
        });
        for follower in try_join_all(begun).await? {
            services.followers.spawn(follower.follow(services.stop.clone()));
        }
        Ok(services)
    }

    /// Passes on what they have printed so far and ends the connections.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.followers.join_next().await.is_some() {}
    }
}

/// What is known of a service when its container is to be made.
struct Start<'a> {
    wanted: Wanted<'a>,
    image: Image,
    network: &'a str,
    heard: Heard,
    /// Since when all images are here.
    here: Instant,
}

/// Starts one service, and waits for it while its output is passed on.
async fn start(place: &Place<'_>, start: Start<'_>) -> Result<Follower, ServiceError> {
    let Start { wanted, image, network, heard, here } = start;
    let host = Host::start(place, wanted, &image, network).await?;
    let mut follower = Follower::new(host.clone(), heard.log, place);
    if heard.ready {
        return Ok(follower);
    }
    let mut ready = std::pin::pin!(ready::wait(&host));
    // Its output is seen while it starts: that is when it is wanted most.
    let ready = tokio::select! {
        ready = &mut ready => ready,
        () = follower.until_end() => ready.await,
    };
    ready?;
    let (service, name, image_id) = (host.name.clone(), wanted.image.to_owned(), image.id);
    let event = EventKind::ServiceReady { service, image: name, image_id, took: here.elapsed() };
    place.feed.event(event).await;
    Ok(follower)
}

async fn get(place: &Place<'_>, wanted: &Wanted<'_>) -> Result<Image, ServiceError> {
    let service = wanted.planned.service.name.clone();
    let image = image::get(place.engine, wanted.image, place.feed).await;
    image.map_err(|source| ServiceError::Image { service, source })
}

#[cfg(test)]
mod tests;
