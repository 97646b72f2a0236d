use super::*;
use crate::{engine::Config, init_program, labels, network, testing::Fixture};

/// What a test varies of a container.
struct Wish<'a> {
    name: &'a str,
    resources: Resources,
    network: Network<'a>,
}

async fn make(fixture: &Fixture, wish: &Wish<'_>) -> Result<Container, Error> {
    let data = fixture.folder.path();
    let control = data.join("control");
    std::fs::create_dir_all(&control).unwrap();
    std::fs::write(control.join("init"), "").unwrap();
    let spec = Spec {
        run: &fixture.run,
        owner: &fixture.owner,
        name: wish.name,
        image: Fixture::BUSYBOX,
        init: &init_program::install(data).unwrap(),
        settings: &Settings { exit_on_eof: true, dead_man: None, hand_back: None },
        control,
        workspace: Some(data),
        socket: None,
        resources: &wish.resources,
        pids_limit: 999,
        network: wish.network,
        input: Input::Open,
    };
    Container::create(&fixture.daemon, &spec).await
}

fn plain(name: &str) -> Wish<'_> {
    Wish { name, resources: Resources::default(), network: Network::Default }
}

#[tokio::test]
async fn a_container_whose_creation_was_not_answered_is_found_again() {
    let fixture = Fixture::new().await;
    let name = format!("buildr-{}", fixture.run);
    let first = make(&fixture, &plain(&name)).await.unwrap();
    let again = make(&fixture, &plain(&name)).await.unwrap();
    assert_eq!(first.id, again.id);
    let found = labels::containers(&fixture.daemon, &fixture.owner, Some(&fixture.run)).await.unwrap();
    let [found] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&found.id, &found.name, &found.run), (&first.id, &name, &Some(fixture.run.clone())));
    assert_eq!(found.state, labels::State::Created);
}

#[tokio::test]
async fn a_container_of_the_same_name_that_is_somebody_elses_is_not_taken() {
    let (theirs, ours) = (Fixture::new().await, Fixture::new().await);
    let name = format!("buildr-{}", theirs.run);
    make(&theirs, &plain(&name)).await.unwrap();
    let error = make(&ours, &plain(&name)).await.unwrap_err();
    assert!(error.chain().contains("already in use"), "{}", error.chain());
}

#[tokio::test]
async fn what_a_container_may_use_is_told_to_docker_and_swap_hides_nothing() {
    let fixture = Fixture::new().await;
    let text = "image: a\nstages: [s]\ns: {script: a}\nresources: {cpus: 1.5, memory: 64MiB, pids: 77}\n";
    let (manifest, _) = buildr_manifest::Manifest::parse(text.as_bytes(), "m").unwrap();
    let wish = Wish { resources: manifest.resources, ..plain("") };
    let limits = body::limits(&wish.resources, wish.network);
    assert_eq!(limits.nano_cpus, Some(1_500_000_000));
    assert_eq!((limits.memory, limits.memory_swap), (Some(64 << 20), Some(64 << 20)));
    let container = make(&fixture, &wish).await.unwrap();
    let told = fixture.daemon.api.inspect_container(&container.id, None).await.unwrap();
    let told = told.host_config.unwrap();
    assert_eq!((told.memory, told.pids_limit), (Some(64 << 20), Some(77)));
    let other = make(&fixture, &plain("")).await.unwrap();
    let told = fixture.daemon.api.inspect_container(&other.id, None).await.unwrap();
    assert_eq!(
        told.host_config.unwrap().pids_limit,
        Some(999),
        "the operator's where the manifest does not say"
    );
}

#[tokio::test]
async fn a_run_is_removed_with_its_network_whoever_is_in_it() {
    let fixture = Fixture::new().await;
    let (daemon, owner, run) = (&fixture.daemon, &fixture.owner, &fixture.run);
    let name = network::create(daemon, owner, run).await.unwrap();
    assert_eq!(network::create(daemon, owner, run).await.unwrap(), name, "a second call makes no other");
    assert_eq!(network::list(daemon, owner, Some(run)).await.unwrap().len(), 1);
    let own = Network::Own { name: &name, service: Some("db") };
    let container = make(&fixture, &Wish { network: own, ..plain("") }).await.unwrap();
    container.start().await.unwrap();
    // A build can put what it likes into the network.
    let theirs = fixture.foreign_container(&["--network", &name]);
    let volume = fixture.volume();
    assert_eq!(labels::remove_all(daemon, owner, run).await.unwrap(), 1);
    assert!(network::list(daemon, owner, Some(run)).await.unwrap().is_empty());
    assert!(labels::volumes(daemon, owner, Some(run)).await.unwrap().is_empty(), "{volume}");
    assert_eq!(Container::of(daemon, theirs.id()).fate().await.unwrap(), Fate::Running);
}

#[tokio::test]
async fn the_reaper_removes_networks_and_volumes_of_dead_runs_alone() {
    let (dead, alive) = (Fixture::new().await, Fixture::new().await);
    let config = Config::new(dead.folder.path(), &dead.owner);
    let engine = crate::Engine::connect(config).await.unwrap();
    network::create(&dead.daemon, &dead.owner, &dead.run).await.unwrap();
    network::create(&dead.daemon, &dead.owner, &alive.run).await.unwrap();
    dead.volume();
    let reaped = engine.reap(&[alive.run.clone()].into()).await.unwrap();
    assert_eq!((reaped.containers, reaped.networks, reaped.volumes, reaped.folders), (0, 1, 1, 0));
    let left = network::list(&dead.daemon, &dead.owner, None).await.unwrap();
    assert_eq!(left.len(), 1);
    labels::remove_all(&dead.daemon, &dead.owner, &alive.run).await.unwrap();
}
