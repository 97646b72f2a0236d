//! What is left when an engine goes away in the middle, and who removes it.

use std::collections::HashSet;

use buildr_engine::{Engine, RunId};

use crate::harness::{Project, await_no_containers, containers};

async fn abandoned(project: &Project) -> RunId {
    // A runtime of its own that ends in the middle of the job is as good as a dead process.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let request = project.request();
    let run = request.run.clone();
    let mut going = project.start_on(&runtime, request).await;
    going.until("begun\n").await;
    runtime.shutdown_background();
    drop(going);
    run
}

#[tokio::test]
async fn the_container_of_a_local_run_ends_with_its_process() {
    let project = Project::with_script(&["echo begun; sleep 1000"]);
    let run = abandoned(&project).await;
    await_no_containers(&project.config.owner, &run).await;
}

#[tokio::test]
async fn the_reaper_removes_what_a_dead_agent_left_and_nothing_else() {
    let dead = Project::with_script(&["echo begun; sleep 1000"]).detached();
    let run = abandoned(&dead).await;
    assert_eq!(containers(&dead.config.owner, &run).len(), 1);
    let mut living = dead.start(dead.request()).await;
    living.until("begun\n").await;

    let engine = Engine::connect(dead.config.clone()).await.unwrap();
    let kept = engine.reap(&HashSet::from([run.clone()])).await.unwrap();
    assert_eq!((kept.containers, kept.folders), (0, 0), "what lives is left alone");

    let reaped = engine.reap(&HashSet::new()).await.unwrap();
    assert_eq!((reaped.containers, reaped.folders), (1, 1));
    assert!(containers(&dead.config.owner, &run).is_empty());
    assert!(!dead.data.path().join("runs").join(run.as_str()).exists());
    assert_eq!(containers(&dead.config.owner, &living.run).len(), 1, "another live run is not touched");
    living.kill();
    living.finish().await;
}

#[tokio::test]
async fn a_job_that_was_prepared_and_never_run_is_reaped() {
    let project = Project::with_script(&["true"]);
    let engine = project.engine().await;
    let (items, _stream) = tokio::sync::mpsc::channel(64);
    let (_stop, stop) = tokio::sync::watch::channel(buildr_engine::Stop::No);
    let prepared = engine.prepare(project.request(), &items, &stop).await.unwrap();
    assert_eq!(engine.reap(&HashSet::new()).await.unwrap().folders, 0);
    drop(prepared);
    assert_eq!(engine.reap(&HashSet::new()).await.unwrap().folders, 1);
}
