//! Everything is killed or stopped while builds run: each build has one outcome all the same, no log
//! has a gap or a duplicate, and nothing is left behind.

use std::{fs, os::unix::fs::PermissionsExt};

use rustix::process::Signal;

use crate::{
    harness::{BUSYBOX, Farm, Home, Process, Project, eventually, no_container_of},
    shells::lines_of,
};

/// How many lines a build prints, one each tenth of a second.
const LINES: usize = 40;
const BUILDS: usize = 14;
const SLOTS: &[&str] = &["--slots", "3"];

/// A build that prints numbered lines.
fn counting() -> Project {
    let count = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done");
    Project::with_script(BUSYBOX, &[&count])
}

fn farm_of_two() -> Farm {
    let mut farm = Farm::without_agents();
    farm.start_agent("one", SLOTS);
    farm.start_agent("two", SLOTS);
    farm
}

fn kill_orchestrator(farm: &mut Farm) {
    let orchestrator = farm.orchestrator.take().unwrap();
    orchestrator.signal(Signal::KILL);
    orchestrator.wait();
    farm.start_orchestrator(&[]);
}

/// The build passed, with every line once and in order.
#[track_caller]
fn check_log(farm: &Farm, build: &str, live: Process) {
    let live = live.wait().expect_code(0);
    let replay = farm.tail(build).expect_code(0);
    let lines = lines_of(&replay.out(), "test");
    let expected: Vec<String> = (0..LINES).map(|i| format!("line {i}")).collect();
    assert_eq!(lines, expected, "build {build}");
    assert_eq!(lines_of(&live.out(), "test"), lines, "build {build}, live");
}

/// All slots can be used at once, so none leaked; and what was used is gone.
fn check_nothing_is_left(farm: &Farm) {
    let waiting = Project::with_script(BUSYBOX, &["echo begun; while :; do sleep 0.1; done"]);
    let builds: Vec<String> = (0..6).map(|_| farm.submit(&waiting)).collect();
    for build in &builds {
        farm.home.start(&["tail", build]).line("begun");
    }
    for build in &builds {
        farm.home.call(&["cancel", build]).expect_code(0);
    }
    for build in &builds {
        farm.tail(build).expect_code(3);
    }
    no_container_of(farm.home.path());
    for agent in ["one", "two"] {
        let spool = farm.home.path().join(format!("agent-{agent}/spool"));
        eventually("the spool is empty", || spool.read_dir().unwrap().next().is_none().then_some(()));
    }
}

#[test]
fn a_farm_whose_parts_are_killed_and_stopped_brings_every_build_to_one_end() {
    let mut farm = farm_of_two();
    let project = counting();
    let builds: Vec<String> = (0..BUILDS).map(|_| farm.submit(&project)).collect();
    let tails: Vec<Process> = builds.iter().map(|build| farm.home.start(&["tail", build])).collect();

    tails[0].line("line 10");
    kill_orchestrator(&mut farm);

    // Shorter than anybody minds: its builds go on meanwhile, and so do the other agent's.
    let other = eventually("a build of the other agent's is followed", || {
        builds.iter().position(|build| runs_on(&farm, build, "two"))
    });
    farm.agents[0].signal(Signal::STOP);
    tails[other].line("line 30");
    farm.agents[0].signal(Signal::CONT);

    // The orchestrator and an agent with builds at the same time: the agent adopts them when it is back.
    tails[7].line("line 5");
    let lost = farm.agents.remove(1);
    lost.signal(Signal::KILL);
    lost.wait();
    kill_orchestrator(&mut farm);
    farm.start_agent("two", SLOTS);

    // Longer: the orchestrator gives the connection up, and gets the same attempts back.
    let orchestrator = farm.orchestrator.as_ref().unwrap();
    eventually("the agent is back", || {
        orchestrator.stderr().contains("agent connected name=\"one\"").then_some(())
    });
    farm.agents[0].signal(Signal::STOP);
    eventually("the connection is given up", || {
        let told = orchestrator.stderr();
        ["agent disconnected", "connection broke"].iter().any(|words| told.contains(words)).then_some(())
    });
    farm.agents[0].signal(Signal::CONT);

    for (build, tail) in builds.iter().zip(tails) {
        check_log(&farm, build, tail);
    }
    check_nothing_is_left(&farm);
}

#[test]
fn what_an_orchestrator_keeps_is_for_its_owner_alone_whoever_made_the_folder() {
    let home = Home::new();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let args = ["--listen", "127.0.0.1:0", "--data", data.to_str().unwrap(), "--require-token"];
    let orchestrator = Process::start(home.program(env!("CARGO_BIN_EXE_buildr-orchestrator"), &args));
    orchestrator.line("ready ");
    for entry in fs::read_dir(&data).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
    }
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().expect_code(0);
}

fn runs_on(farm: &Farm, build: &str, agent: &str) -> bool {
    let shown = farm.show(build);
    shown["state"] == "running" && shown["jobs"][0]["attempt"]["agent_name"] == agent
}
