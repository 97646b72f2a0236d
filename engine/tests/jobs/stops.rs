//! How jobs are ended by others.

use std::time::{Duration, Instant};

use buildr_manifest::{Cause, EventKind, Outcome, StageState};

use crate::harness::{BUSYBOX, Going, Project, Told, await_no_containers, containers, docker, stage};

const STUBBORN: &[&str] = &["trap '' TERM", "echo begun; while :; do sleep 1; done"];

async fn begun(project: &Project) -> Going {
    let mut going = project.start(project.request()).await;
    going.until("begun\n").await;
    going
}

fn removed(told: &Told) -> u32 {
    match told.events.last() {
        Some(EventKind::JobFinished { containers_removed, .. }) => *containers_removed,
        other => panic!("{other:?}"),
    }
}

fn canceled(by: &str) -> Outcome {
    Outcome::Canceled { by: by.to_owned() }
}

#[tokio::test]
async fn a_cancel_asks_the_stage_first_and_says_when_nothing_is_left() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [test, later]\n{}{}",
        stage("test", &["trap 'echo asked; exit 0' TERM", "echo begun; while :; do sleep 0.1; done"]),
        stage("later", &["echo never"]),
    );
    for project in [Project::new(&manifest), Project::new(&manifest).detached()] {
        let going = begun(&project).await;
        let run = going.run.clone();
        going.cancel();
        let (finished, told) = going.finish().await;
        assert_eq!(finished.outcome, canceled("ann"));
        assert!(told.text("test").contains("asked"), "{}", told.story);
        assert_eq!(told.state("test"), &StageState::Canceled);
        assert_eq!(told.state("later"), &StageState::NotReached { because: None });
        assert_eq!(removed(&told), 1);
        assert!(containers(&project.config.owner, &run).is_empty());
    }
}

#[tokio::test]
async fn a_stage_that_does_not_listen_is_killed_after_the_grace() {
    let project = Project::with_script(STUBBORN);
    let going = begun(&project).await;
    let asked = Instant::now();
    going.cancel();
    let (finished, told) = going.finish().await;
    assert_eq!(finished.outcome, canceled("ann"));
    assert_eq!(told.state("test"), &StageState::Canceled);
    assert!(asked.elapsed() >= project.config.grace, "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_kill_does_not_wait_for_the_grace() {
    let mut project = Project::with_script(STUBBORN);
    project.config.grace = Duration::from_secs(3600);
    let going = begun(&project).await;
    going.cancel();
    going.kill();
    let run = going.run.clone();
    let (finished, _) = going.finish().await;
    assert!(matches!(finished.outcome, Outcome::Canceled { .. }));
    assert!(containers(&project.config.owner, &run).is_empty());
}

#[tokio::test]
async fn a_job_that_was_canceled_before_it_began_starts_nothing() {
    let project = Project::with_script(&["echo never"]);
    let going = project.start(project.request()).await;
    going.cancel();
    let (finished, told) = going.finish().await;
    assert_eq!(finished.outcome, canceled("ann"));
    assert!(!told.story.contains("never"));
}

#[tokio::test]
async fn a_cancel_while_the_container_starts_leaves_nothing() {
    let project = Project::with_script(&["echo never"]);
    let mut going = project.start(project.request()).await;
    going.until("[planned]").await;
    going.cancel();
    let run = going.run.clone();
    let (finished, _) = going.finish().await;
    assert_eq!(finished.outcome, canceled("ann"));
    assert!(containers(&project.config.owner, &run).is_empty());
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_timed_out() {
    let project = Project::with_script(&["echo begun; sleep 1000"]);
    let mut request = project.request();
    let limit = Duration::from_secs(3);
    request.timeout = Some(limit);
    let run = request.run.clone();
    let (finished, told) = project.start(request).await.finish().await;
    let stage = Some(buildr_manifest::StageName::new("test").unwrap());
    assert_eq!(finished.outcome, Outcome::TimedOut { stage, limit });
    assert_eq!(told.state("test"), &StageState::TimedOut);
    assert_eq!(told.text("test"), "begun\n");
    await_no_containers(&project.config.owner, &run).await;
}

#[tokio::test]
async fn a_container_that_is_removed_under_the_build_fails_it() {
    for project in [Project::with_script(STUBBORN), Project::with_script(STUBBORN).detached()] {
        let going = begun(&project).await;
        for id in containers(&project.config.owner, &going.run) {
            docker(&["rm", "-f", &id]);
        }
        let (finished, told) = going.finish().await;
        let Outcome::Failed { cause, .. } = finished.outcome else { panic!("{finished:?}") };
        assert_eq!(cause, Cause::ContainerDied);
        assert_eq!(told.text("test"), "begun\n");
    }
}

#[tokio::test]
async fn a_listener_that_is_slow_does_not_delay_a_cancel() {
    let project = Project::with_script(&["echo begun; while :; do echo more text than anybody reads; done"]);
    let going = begun(&project).await;
    // Nothing is read from here until the container is gone.
    going.kill();
    let gone = async {
        while !docker(&["ps", "-q", "--filter", &format!("label=buildr.attempt={}", going.run)]).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the container is killed");
    let (finished, _) = going.finish().await;
    assert_eq!(finished.outcome, canceled("bob"));
}
