//! The farm: submit, follow, list, show, cancel, and what it survives.

use std::{fs, time::Instant};

use rustix::process::Signal;

use crate::{
    harness::{BUSYBOX, Farm, Home, Process, Project, containers, eventually, manifest, no_container_of},
    shells::lines_of,
};

/// An entry that never ends by itself.
const WAIT_FOR_EVER: &str = "echo begun; while :; do sleep 0.1; done";

#[test]
fn a_submitted_build_is_followed_to_its_end_and_remembered() {
    let farm = Farm::new();
    let project =
        Project::with_script(BUSYBOX, &["echo hello from $BUILDR_BUILD", "test \"$BUILDR_BRANCH\" = main"]);
    let build = farm.submit(&project);
    assert_eq!(build, "1");
    let tail = farm.tail(&build).expect_code(0);
    assert_eq!(lines_of(&tail.out(), "test"), ["hello from 1"]);

    let list = farm.home.call(&["list"]).expect_code(0).out();
    assert!(list.contains("passed"), "{list}");
    let shown = farm.show(&build);
    assert_eq!(shown["state"], "finished");
    assert_eq!(shown["outcome"], "passed");
    assert_eq!(shown["commit"], project.git(&["rev-parse", "HEAD"]));
    let human = farm.home.call(&["show", "latest"]).expect_code(0).out();
    assert!(human.contains("passed") && human.contains("test"), "{human}");
}

#[test]
fn the_branch_is_optional_and_tags_and_commits_can_be_built() {
    let farm = Farm::new();
    let project =
        Project::with_script(BUSYBOX, &["echo branch=$BUILDR_BRANCH tag=$BUILDR_TAG; cat file || true"]);
    let first = project.git(&["rev-parse", "HEAD"]);
    project.git(&["tag", "v1"]);
    project.git(&["checkout", "-q", "-b", "side"]);
    project.write("file", "on the side\n");
    project.commit("second");
    let url = project.url();
    let says = |args: &[&str]| {
        let build = farm.submit_with(&[&["--repo", &url], args].concat());
        let tail = farm.tail(&build).expect_code(0);
        (lines_of(&tail.out(), "test").join("|"), farm.show(&build)["commit"].as_str().unwrap().to_owned())
    };
    assert_eq!(says(&[]).0, "branch=side tag=|on the side");
    assert!(says(&["--branch", "main"]).0.starts_with("branch=main tag=|cat:"));
    assert_eq!(says(&["--tag", "v1"]).1, first);
    assert_eq!(says(&["--commit", &first]).1, first);
}

#[test]
fn submit_in_a_clone_needs_no_arguments() {
    let farm = Farm::new();
    let project = Project::with_script(BUSYBOX, &["echo $BUILDR_BRANCH"]);
    let clone = farm.home.path().join("clone");
    crate::harness::must("git", &["clone", "-q", &project.url(), clone.to_str().unwrap()]);
    let mut command = farm.home.buildr(&["submit", "--follow"]);
    command.current_dir(&clone);
    let finished = Process::start(command).wait().expect_code(0);
    assert_eq!(lines_of(&finished.out(), "test"), ["main"]);
}

#[test]
fn every_follower_sees_every_byte_whenever_it_comes() {
    let farm = Farm::new();
    let project = Project::with_script(BUSYBOX, &["seq 1 20000", "echo half; sleep 1", "seq 20001 40000"]);
    let build = farm.submit(&project);
    let early = farm.home.start(&["tail", &build, "--stage", "test", "--raw"]);
    early.line("half");
    let middle = farm.home.start(&["tail", &build, "--stage", "test", "--raw"]);
    let (early, middle) = (early.wait().expect_code(0), middle.wait().expect_code(0));
    let late = farm.home.call(&["tail", &build, "--stage", "test", "--raw"]).expect_code(0);
    let expected: String = (1..=20000)
        .map(|i| format!("{i}\n"))
        .chain(["half\n".to_owned()])
        .chain((20001..=40000).map(|i| format!("{i}\n")))
        .collect();
    for seen in [early, middle, late] {
        assert!(seen.out() == expected, "{} bytes of {}", seen.stdout.len(), expected.len());
    }
}

#[test]
fn a_running_build_is_canceled_and_leaves_nothing() {
    let farm = Farm::new();
    let project =
        Project::with_manifest(&manifest(BUSYBOX, &[("a", &[WAIT_FOR_EVER]), ("b", &["echo never"])]));
    let build = farm.submit(&project);
    let tail = farm.home.start(&["tail", &build]);
    tail.line("begun");
    farm.home.call(&["cancel", &build]).expect_code(0);
    let tail = tail.wait().expect_code(3);
    assert!(tail.stderr.contains("canceled"), "{}", tail.stderr);
    assert!(!tail.out().contains("never"));
    assert!(containers(farm.home.path()).is_empty(), "the acknowledgement comes after the removal");
    let shown = farm.show(&build);
    assert_eq!(shown["outcome"], "canceled");
    assert_eq!(shown["jobs"][0]["stages"][1]["state"], "not_reached");
    farm.home.call(&["cancel", &build]).expect_code(0);
}

#[test]
fn a_queued_build_is_canceled_at_once() {
    let farm = Farm::without_agents();
    let build = farm.submit(&Project::with_script(BUSYBOX, &["true"]));
    assert_eq!(farm.show(&build)["state"], "queued");
    farm.home.call(&["cancel", "latest"]).expect_code(0);
    farm.tail(&build).expect_code(3);
}

#[test]
fn queued_builds_survive_a_restart_of_the_orchestrator_and_run_when_an_agent_comes() {
    let mut farm = Farm::without_agents();
    let project = Project::with_script(BUSYBOX, &["echo ran"]);
    let builds: Vec<String> = (0..3).map(|_| farm.submit(&project)).collect();
    let orchestrator = farm.orchestrator.take().unwrap();
    orchestrator.signal(Signal::TERM);
    orchestrator.wait().expect_code(0);
    farm.start_orchestrator(&[]);
    farm.start_agent("one", &[]);
    for build in builds {
        let tail = farm.tail(&build).expect_code(0);
        assert_eq!(lines_of(&tail.out(), "test"), ["ran"]);
    }
}

#[test]
fn a_running_build_and_its_followers_survive_a_restart_of_the_orchestrator() {
    for end in [Signal::TERM, Signal::KILL] {
        let mut farm = Farm::new();
        let ticks = "i=0; while [ $i -lt 40 ]; do echo tick $i; i=$((i+1)); sleep 0.1; done";
        let text = manifest(BUSYBOX, &[("a", &["echo before", ticks]), ("b", &["echo after"])]);
        let project = Project::with_manifest(&text);
        let build = farm.submit(&project);
        let tail = farm.home.start(&["tail", &build]);
        tail.line("tick 3");
        let orchestrator = farm.orchestrator.take().unwrap();
        orchestrator.signal(end);
        orchestrator.wait();
        farm.start_orchestrator(&[]);
        let tail = tail.wait().expect_code(0);
        let mut expected = vec!["before".to_owned()];
        expected.extend((0..40).map(|i| format!("tick {i}")));
        assert_eq!(lines_of(&tail.out(), "a"), expected);
        assert_eq!(lines_of(&tail.out(), "b"), ["after"]);
    }
}

#[test]
fn an_agent_that_is_told_to_drain_finishes_its_build_and_leaves() {
    let mut farm = Farm::new();
    let project = Project::with_script(BUSYBOX, &["echo begun", "sleep 2", "echo ended"]);
    let build = farm.submit(&project);
    let tail = farm.home.start(&["tail", &build]);
    tail.line("begun");
    let agent = farm.agents.pop().unwrap();
    agent.signal(Signal::TERM);
    let waiting = farm.submit(&project);
    assert_eq!(lines_of(&tail.wait().expect_code(0).out(), "test"), ["begun", "ended"]);
    agent.wait().expect_code(0);
    assert_eq!(farm.show(&waiting)["state"], "queued");
    farm.start_agent("two", &[]);
    farm.tail(&waiting).expect_code(0);
}

#[test]
fn slots_limit_how_many_builds_run_at_once_and_labels_say_where() {
    let mut farm = Farm::without_agents();
    farm.start_agent("small", &["--slots", "1"]);
    let project = Project::with_script(BUSYBOX, &[WAIT_FOR_EVER]);
    let first = farm.submit(&project);
    farm.home.start(&["tail", &first]).line("begun");
    let second = farm.submit(&project);
    let labelled = farm.submit_with(&["--repo", &project.url(), "--label", "disk=fast"]);
    assert_eq!(farm.show(&second)["state"], "queued");
    farm.home.call(&["cancel", &first]).expect_code(0);
    farm.home.start(&["tail", &second]).line("begun");
    farm.home.call(&["cancel", &second]).expect_code(0);
    farm.tail(&second).expect_code(3);
    assert_eq!(farm.show(&labelled)["state"], "queued", "no agent has its label");
    farm.start_agent("fast", &["--label", "disk=fast"]);
    farm.home.start(&["tail", &labelled]).line("begun");
    assert_eq!(farm.show(&labelled)["jobs"][0]["attempt"]["agent_name"], "fast");
    farm.home.call(&["cancel", &labelled]).expect_code(0);
    farm.tail(&labelled).expect_code(3);
}

#[test]
fn variables_of_the_submitter_reach_the_build() {
    let farm = Farm::new();
    let project = Project::with_script(BUSYBOX, &["echo \"<$WHO>\" $CI $BUILDR"]);
    let build = farm.submit_with(&["--repo", &project.url(), "--var", "WHO=a  b"]);
    assert_eq!(lines_of(&farm.tail(&build).expect_code(0).out(), "test"), ["<a  b> true true"]);
}

#[test]
fn a_token_is_needed_where_the_operator_wants_one() {
    let mut farm = Farm::without_agents();
    let orchestrator = farm.orchestrator.take().unwrap();
    orchestrator.signal(Signal::TERM);
    orchestrator.wait();
    let file = farm.home.path().join("token");
    fs::write(&file, "a-token-of-more-than-thirty-two-characters\n").unwrap();
    farm.start_orchestrator(&["--require-token", "--token-file", file.to_str().unwrap()]);

    let missing = farm.home.call(&["list"]).expect_code(4);
    assert!(
        missing.stderr.contains("token") && missing.stderr.contains("BUILDR_TOKEN"),
        "{}",
        missing.stderr
    );
    farm.home.set("BUILDR_TOKEN", "wrong");
    let wrong = farm.home.call(&["list"]).expect_code(4);
    assert!(wrong.stderr.contains("token"), "{}", wrong.stderr);
    let agent = farm.spawn_agent("wrong", &[]).wait().expect_code(4);
    assert!(agent.stderr.contains("token"), "{}", agent.stderr);

    farm.home.set("BUILDR_TOKEN", "a-token-of-more-than-thirty-two-characters");
    farm.home.call(&["list"]).expect_code(0);
    farm.start_agent("one", &[]);
    let project = Project::with_script(BUSYBOX, &["env | grep -c TOKEN || true"]);
    let build = farm.submit(&project);
    assert_eq!(lines_of(&farm.tail(&build).expect_code(0).out(), "test"), ["0"]);
}

#[test]
fn two_agents_cannot_share_a_data_folder() {
    let farm = Farm::new();
    let second = farm.spawn_agent("one", &[]).wait();
    assert_ne!(second.code, 0);
    assert!(second.stderr.contains("agent-one"), "{}", second.stderr);
}

#[test]
fn nothing_of_a_build_is_left_on_the_agents_machine() {
    let farm = Farm::new();
    for (script, code) in [("mkdir -p a/b && touch a/b/c && chmod 000 a/b a", 0), ("exit 3", 1)] {
        let project = Project::with_script(BUSYBOX, &[script]);
        let build = farm.submit(&project);
        farm.tail(&build).expect_code(code);
    }
    no_container_of(farm.home.path());
    let data = farm.home.path().join("agent-one");
    eventually("the folders of ended runs are gone", || {
        let left: Vec<_> = walk(&data)
            .into_iter()
            .filter(|path| path.contains("/runs/") || path.contains("/spool/"))
            .collect();
        left.is_empty().then_some(())
    });
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

#[test]
fn up_starts_a_farm_and_stops_it() {
    let home = Home::new();
    let data = home.path().join("up");
    let up = home.start(&["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let began = Instant::now();
    let address = eventually("up says where it listens", || {
        up.stderr()
            .split_whitespace()
            .find(|word| word.starts_with("127.0.0.1:") && !word.ends_with(":0"))
            .map(str::to_owned)
    });
    assert!(began.elapsed().as_secs() < 60);
    let mut home_of_client = Home::new();
    home_of_client.set("BUILDR_ORCHESTRATOR", address.trim_end_matches(|c: char| !c.is_ascii_digit()));
    let project = Project::with_script(BUSYBOX, &["echo up"]);
    let finished = home_of_client.call(&["submit", "--repo", &project.url(), "--follow"]).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "test"), ["up"]);
    up.signal(Signal::INT);
    up.wait().expect_code(0);
}
