//! An agent is killed or told to detach while builds run, and comes back: the builds go on, and who
//! follows them sees what they would have seen anyway.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    harness::{
        BUSYBOX, Farm, Finished, Process, Project, containers, eventually, manifest, must, no_container_of,
    },
    shells::lines_of,
};

/// An entry that prints so many numbered lines, 20 a second.
fn count(lines: usize) -> String {
    format!("i=0; while [ $i -lt {lines} ]; do echo line $i; i=$((i+1)); sleep 0.05; done")
}

/// Two stages that count; the first one leaves a file at its end.
fn two_stages() -> Project {
    let count = count(40);
    Project::with_manifest(&manifest(
        BUSYBOX,
        &[("one", &[&count, "touch over"]), ("two", &[&count, "echo end"])],
    ))
}

/// Two stages side by side, one of them in a container of its own, and one after them.
fn side_by_side() -> Project {
    let count = count(40);
    let text = format!(
        "image: {BUSYBOX}\nstages: [left, right, last]\n\
         left:\n  needs: []\n  script:\n    - {count:?}\n\
         right:\n  needs: []\n  image: {BUSYBOX}\n  script:\n    - {count:?}\n\
         last:\n  needs: [left, right]\n  script:\n    - {count:?}\n"
    );
    Project::with_manifest(&text)
}

/// Kills the agent and starts it again at once.
fn kill_and_start(farm: &mut Farm) {
    let agent = farm.agents.pop().unwrap();
    agent.signal(Signal::KILL);
    agent.wait();
    farm.start_agent("one", &[]);
}

/// A stage's log, byte for byte.
#[track_caller]
fn log(farm: &Farm, build: &str, stage: &str) -> Finished {
    farm.home.call(&["tail", build, "--stage", stage, "--raw"]).expect_code(0)
}

/// Both builds passed, and neither who followed one nor who reads it later sees that anything happened.
#[track_caller]
fn check_alike(farm: &Farm, stages: &[&str], undisturbed: &str, build: &str, live: Process) {
    let live = live.wait().expect_code(0);
    let replay = farm.tail(build).expect_code(0);
    let reference = farm.tail(undisturbed).expect_code(0);
    for stage in stages {
        let expected = lines_of(&reference.out(), stage);
        assert!(expected.len() >= 40, "{expected:?}");
        assert_eq!(lines_of(&live.out(), stage), expected, "{stage}, live");
        assert_eq!(lines_of(&replay.out(), stage), expected, "{stage}");
        assert_eq!(log(farm, build, stage).stdout, log(farm, undisturbed, stage).stdout, "{stage}");
    }
    assert_eq!(farm.show(build)["outcome"], "passed");
    no_container_of(farm.home.path());
    let data = farm.home.path().join("agent-one");
    for folder in ["spool", "engine/runs"] {
        eventually("nothing is left of the runs", || {
            fs::read_dir(data.join(folder)).unwrap().next().is_none().then_some(())
        });
    }
}

#[test]
fn a_build_whose_agent_is_killed_in_each_of_its_stages_and_between_them_goes_on() {
    let mut farm = Farm::new();
    let project = two_stages();
    let reference = farm.submit(&project);
    farm.tail(&reference).expect_code(0);
    let build = farm.submit(&project);
    let live = farm.home.start(&["tail", &build]);
    live.line("line 10");
    kill_and_start(&mut farm);
    live.line("line 20");
    // The first stage ends while nobody is there; the second begins when the agent is back.
    live.line("line 35");
    let agent = farm.agents.pop().unwrap();
    agent.signal(Signal::KILL);
    agent.wait();
    let runs = farm.home.path().join("agent-one/engine/runs");
    eventually("the stage is over", || {
        fs::read_dir(&runs).unwrap().flatten().find(|run| run.path().join("workspace/over").exists())
    });
    farm.start_agent("one", &[]);
    live.line("line 10");
    kill_and_start(&mut farm);
    check_alike(&farm, &["one", "two"], &reference, &build, live);
}

#[test]
fn stages_side_by_side_and_one_with_an_image_of_its_own_go_on() {
    let mut farm = Farm::new();
    let project = side_by_side();
    let reference = farm.submit(&project);
    farm.tail(&reference).expect_code(0);
    let build = farm.submit(&project);
    let live = farm.home.start(&["tail", &build]);
    live.line("[left] line 10");
    kill_and_start(&mut farm);
    live.line("[right] line 20");
    kill_and_start(&mut farm);
    live.line("[last] line 5");
    kill_and_start(&mut farm);
    check_alike(&farm, &["left", "right", "last"], &reference, &build, live);
}

#[test]
fn an_agent_that_is_told_to_detach_ends_at_once_and_its_builds_outlive_it() {
    let mut farm = Farm::new();
    let project = two_stages();
    let reference = farm.submit(&project);
    farm.tail(&reference).expect_code(0);
    let build = farm.submit(&project);
    let live = farm.home.start(&["tail", &build]);
    live.line("line 10");
    let second = farm.spawn_agent("one", &[]).wait();
    assert!(second.code == 4 && second.stderr.contains("belongs to a running agent"), "{second:?}");
    let agent = farm.agents.pop().unwrap();
    let told = Instant::now();
    agent.signal(Signal::HUP);
    agent.wait().expect_code(0);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(containers(farm.home.path()).len(), 1, "the build runs on");
    farm.start_agent("one", &[]);
    check_alike(&farm, &["one", "two"], &reference, &build, live);
}

#[test]
fn a_cancel_takes_effect_when_the_agent_is_back() {
    let mut farm = Farm::new();
    let project = Project::with_script(BUSYBOX, &["echo begun; while :; do sleep 0.1; done"]);
    let build = farm.submit(&project);
    let live = farm.home.start(&["tail", &build]);
    live.line("begun");
    let agent = farm.agents.pop().unwrap();
    agent.signal(Signal::KILL);
    agent.wait();
    farm.home.call(&["cancel", &build]).expect_code(0);
    assert_eq!(farm.show(&build)["state"], "running");
    farm.start_agent("one", &[]);
    live.wait().expect_code(3);
    assert_eq!(farm.show(&build)["outcome"], "canceled");
    no_container_of(farm.home.path());
}

#[test]
fn a_build_that_another_agent_may_be_given_ends_by_itself_when_its_agent_does_not_come_back() {
    let mut farm = Farm::new();
    let text = manifest(BUSYBOX, &[("test", &["echo begun; while :; do sleep 0.1; done"])]);
    let project = Project::with_manifest(&format!("retry: {{times: 1, when: [agent_lost]}}\n{text}"));
    let build = farm.submit(&project);
    let live = farm.home.start(&["tail", &build]);
    live.line("begun");
    let agent = farm.agents.pop().unwrap();
    agent.signal(Signal::KILL);
    agent.wait();
    let killed = Instant::now();
    eventually("the container ended", || {
        let running = must("docker", &["ps", "--no-trunc", "--format", "{{.Mounts}}"]);
        (!running.contains(farm.home.path().to_str().unwrap())).then_some(())
    });
    let took = killed.elapsed();
    assert!(took > Duration::from_secs(8) && took < Duration::from_secs(40), "{took:?}");
    let silent = eventually("who follows it is told", || {
        let told = live.stderr();
        told.lines().find(|line| line.contains("has not been heard of")).map(str::to_owned)
    });
    assert!(silent.contains("agent one") && silent.contains("counts as lost in"), "{silent}");
    // It comes back before it is given up, and the job is tried again.
    farm.start_agent("one", &[]);
    let told = eventually("the job is tried again", || {
        Some(live.stderr()).filter(|told| told.contains("is tried again (2 of 2): agent one was lost"))
    });
    assert_eq!(told.matches("has not been heard of").count(), 1, "{told}");
    assert_eq!(told.matches("agent one is back after").count(), 1, "{told}");
    assert!(told.contains("ended while no engine watched over it"), "{told}");
    farm.home.call(&["cancel", &build]).expect_code(0);
    live.wait().expect_code(3);
    no_container_of(farm.home.path());
}
