//! `buildr run`: what it prints, how it ends, and that it leaves nothing behind.

use std::process::Command;

use rustix::process::Signal;

use crate::{
    both::Told,
    harness::{BUSYBOX, DEBIAN, Home, Process, Project, containers, manifest, must, no_container_of},
    shells::lines_of,
};

#[test]
fn prepare_comes_first_and_what_it_does_stays() {
    let text = format!(
        "image: '{BUSYBOX}'\nenvironment:\n  inherit: false\n  vars:\n    - FOO=BAR\n    - SPACED=a b=c $X\nstages:\n  - build\n  - deploy\n\
         prepare:\n  script:\n    - echo tool > /bin/tool\nbuild:\n  script: cat /bin/tool > artifact\ndeploy:\n  script:\n    - cat artifact\n    - echo \"$FOO/$SPACED\"\n    - pwd\n"
    );
    let project = Project::with_manifest(&text);
    let finished = Home::new().run(&project).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "deploy"), ["tool", "BAR/a b=c $X", "/workspace"]);
    assert!(project.path().join("artifact").exists(), "the project is mounted read-write");
}

#[test]
fn prepare_alone_is_a_build() {
    let text = format!("image: {BUSYBOX}\nprepare:\n  script: [echo alone]\n");
    let finished = Home::new().run(&Project::with_manifest(&text)).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "prepare"), ["alone"]);
}

#[test]
fn after_the_first_failure_no_stage_runs() {
    let text = manifest(BUSYBOX, &[("a", &["echo a"]), ("b", &["exit 9"]), ("c", &["echo c"])]);
    let project = Project::with_manifest(&text);
    let home = Home::new();
    let finished = home.run(&project).expect_code(1);
    assert!(!finished.out().contains("[c] c"));
    for part in ["exit 9", "exit code 9", "not reached"] {
        assert!(
            finished.stderr.contains(part) || finished.out().contains(part),
            "{part}: {}",
            finished.stderr
        );
    }
    home.call(&["run", "--propagate", project.path().to_str().unwrap()]).expect_code(9);
}

#[test]
fn a_timeout_ends_the_job() {
    let text = format!(
        "timeout: 1s\n{}",
        manifest(BUSYBOX, &[("a", &["echo begun", "sleep 600"]), ("b", &["echo b"])])
    );
    let finished = Home::new().run(&Project::with_manifest(&text)).expect_code(5);
    assert!(finished.stderr.contains("timed out"), "{}", finished.stderr);
    assert!(!finished.out().contains("[b] b"));
}

#[test]
fn inherited_variables_are_those_that_the_manifest_asks_for() {
    let script = "  script: ['echo \"$GIVEN,$OTHER,$BUILDR_SECRET,$HOME\"']\n";
    let with = |environment: &str| format!("image: {BUSYBOX}\n{environment}stages: [a]\na:\n{script}");
    let mut home = Home::new();
    home.set("GIVEN", "given");
    home.set("OTHER", "other");
    home.set("BUILDR_SECRET", "never");
    let says =
        |text: &str| lines_of(&home.run(&Project::with_manifest(text)).expect_code(0).out(), "a").join("");
    assert_eq!(says(&with("")), ",,,/root");
    assert_eq!(says(&with("environment:\n  vars: [GIVEN]\n")), "given,,,/root");
    assert_eq!(says(&with("environment:\n  inherit: true\n")), "given,other,,/root");
}

#[test]
fn the_docker_socket_is_there() {
    let finished =
        Home::new().run(&Project::with_script(BUSYBOX, &["test -S /var/run/docker.sock && echo there"]));
    assert_eq!(lines_of(&finished.expect_code(0).out(), "test"), ["there"]);
}

#[test]
fn git_works_inside() {
    let project = Project::with_script(
        DEBIAN,
        &["git describe --always", "git log --oneline | wc -l", "git status --short"],
    );
    let commit = project.git(&["rev-parse", "--short", "HEAD"]);
    let finished = Home::new().run(&project).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "test"), [commit.as_str(), "1"]);
    // A clean clone of HEAD leaves the folder alone and has what is committed only.
    project.write("dirty", "x");
    let clean = Home::new().call(&["run", "--clean", project.path().to_str().unwrap()]).expect_code(0);
    assert_eq!(lines_of(&clean.out(), "test"), [commit.as_str(), "1"]);
}

#[test]
fn a_build_can_be_tried_as_of_another_branch_or_tag() {
    let says = "echo \"<${BUILDR_BRANCH-}> <${BUILDR_TAG-}> <$BUILDR_EVENT>\"";
    let project = Project::with_script(BUSYBOX, &[says]);
    let folder = project.path().to_str().unwrap().to_owned();
    let home = Home::new();
    for (flags, seen) in [
        (&["--branch", "release/1"][..], "<release/1> <> <local>"),
        (&["--event", "tag", "--tag", "v1"], "<> <v1> <tag>"),
        (&["--clean", "--tag", "v1"], "<> <v1> <local>"),
    ] {
        let args = [&["run", &folder], flags].concat();
        assert_eq!(lines_of(&home.call(&args).expect_code(0).out(), "test"), [seen], "{flags:?}");
    }
    home.call(&["run", &folder, "--branch", "a", "--tag", "b"]).expect_code(2);
}

#[test]
fn a_folder_outside_git_can_be_built() {
    let project = Project::folder(&[(
        ".buildr.yml",
        &manifest(BUSYBOX, &[("a", &["echo \"<${BUILDR_COMMIT-unset}>\""])]),
    )]);
    assert_eq!(lines_of(&Home::new().run(&project).expect_code(0).out(), "a"), ["<unset>"]);
}

/// Three stages, each of which says who it is.
fn three_stages() -> Project {
    let text = manifest(
        BUSYBOX,
        &[("prepare", &["touch /ready"]), ("a", &["echo a"]), ("b", &["ls /ready"]), ("c", &["echo c"])],
    );
    Project::with_manifest(&text.replace("b:\n", "b:\n  needs: [a]\n"))
}

#[test]
fn one_stage_or_those_from_one_on_can_be_run() {
    let (home, project) = (Home::new(), three_stages());
    let folder = project.path().to_str().unwrap();
    for (flags, ran) in [
        (["--stage", "b"], [false, true, false]),
        (["--from", "b"], [false, true, true]),
        (["--stage", "prepare"], [false, false, false]),
    ] {
        let args = [&["run", folder, "--json"][..], &flags].concat();
        let told = Told::new(&home.call(&args).expect_code(0));
        let passed = ["a", "b", "c"].map(|stage| told.state(stage) == "passed");
        assert_eq!((passed, told.state("prepare")), (ran, "passed"), "{flags:?}");
        let why = told.end("a")["why"].as_str().unwrap();
        assert!(why.contains(flags[1]), "{why}");
    }
    let unknown = home.call(&["run", folder, "--stage", "prepar"]).expect_code(2);
    assert!(unknown.stderr.contains("did you mean `prepare`"), "{}", unknown.stderr);
    let plan = home.call(&["run", folder, "--dry-run", "--stage", "b"]).expect_code(0).out();
    assert!(plan.contains("only `b` was asked for"), "{plan}");
    home.call(&["run", folder, "--stage", "a", "--from", "b"]).expect_code(2);
}

#[test]
fn a_failure_is_reproduced_by_one_stage() {
    let text = manifest(BUSYBOX, &[("a", &["true"]), ("b", &["exit 3"])]);
    let finished = Home::new().run(&Project::with_manifest(&text)).expect_code(1);
    assert!(finished.stderr.contains("with --stage b that stage alone"), "{}", finished.stderr);
}

#[test]
fn a_container_that_is_kept_stays_until_its_user_removes_it() {
    let text = manifest(BUSYBOX, &[("a", &["echo inside > /made; touch made"]), ("b", &["exit 3"])]);
    let (home, project) = (Home::new(), Project::with_manifest(&text));
    let folder = project.path().to_str().unwrap();
    let kept = home.call(&["run", "--keep", folder]).expect_code(1);
    let name = kept.stderr.split_whitespace().last().unwrap().to_owned();
    let remove = || must("docker", &["rm", "-f", &name]);
    for part in [format!("docker exec -it -w /workspace {name} sh"), format!("docker rm -f {name}")] {
        assert!(kept.stderr.contains(&part), "{}", kept.stderr);
    }
    // The reaper of the next run leaves it alone.
    home.run(&project).expect_code(1);
    let says = Command::new("docker").args(["exec", &name, "cat", "/made"]).output().unwrap();
    remove();
    assert_eq!(String::from_utf8_lossy(&says.stdout), "inside\n");
    let runs = home.path().join(".cache/buildr/run/runs");
    crate::harness::eventually("the folder of the run goes after its container", || {
        home.run(&project);
        std::fs::read_dir(&runs).unwrap().next().is_none().then_some(())
    });
    no_container_of(project.path());
}

#[test]
fn a_shell_opens_where_a_stage_failed_and_all_is_removed_when_it_ends() {
    let text = manifest(BUSYBOX, &[("a", &["true"]), ("b", &["exit 3"])]);
    let (home, project) = (Home::new(), Project::with_manifest(&text));
    let folder = project.path().to_str().unwrap();
    let refused = home.call(&["run", "--shell-on-failure", folder]).expect_code(2);
    assert!(refused.stderr.contains("terminal"), "{}", refused.stderr);
    // `script` gives the program a terminal of its own, on which somebody has typed `exit` beforehand.
    let program = env!("CARGO_BIN_EXE_buildr");
    let line = format!(
        "yes exit | head -n 50 | TERM=xterm script -qefc '{program} run --shell-on-failure {folder}' /dev/null"
    );
    let terminal = Process::start(home.program("sh", &["-c", &line])).wait();
    assert!(terminal.out().contains("a shell where stage b ran"), "{}", terminal.out());
    no_container_of(project.path());
    assert!(std::fs::read_dir(home.path().join(".cache/buildr/run/runs")).unwrap().next().is_none());
}

#[test]
fn a_container_is_not_kept_where_everything_is_ended_at_once() {
    let project = Project::with_script(BUSYBOX, &["trap '' TERM; echo begun", "while :; do sleep 1; done"]);
    let home = Home::new();
    let run = home.start(&["run", "--keep", project.path().to_str().unwrap()]);
    run.line("begun");
    run.signal(Signal::INT);
    crate::harness::eventually("the first interrupt is answered", || {
        run.stderr().contains("again").then_some(())
    });
    run.signal(Signal::INT);
    let finished = run.wait().expect_code(3);
    assert!(!finished.stderr.contains("is kept"), "{}", finished.stderr);
    no_container_of(project.path());
}

#[test]
fn interrupting_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let project = Project::with_script(BUSYBOX, &["echo begun", "sleep 600"]);
        let home = Home::new();
        let run = home.start(&["run", project.path().to_str().unwrap()]);
        run.line("begun");
        run.signal(signal);
        run.wait().expect_code(3);
        no_container_of(project.path());
    }
}

#[test]
fn interrupting_twice_kills_what_ignores_the_first() {
    let project = Project::with_script(BUSYBOX, &["trap '' TERM; echo begun", "while :; do sleep 1; done"]);
    let home = Home::new();
    let run = home.start(&["run", project.path().to_str().unwrap()]);
    run.line("begun");
    run.signal(Signal::INT);
    crate::harness::eventually("the first interrupt is answered", || {
        run.stderr().contains("again").then_some(())
    });
    run.signal(Signal::INT);
    run.wait().expect_code(3);
    no_container_of(project.path());
}

#[test]
fn a_run_that_is_killed_leaves_no_container() {
    let project = Project::with_script(BUSYBOX, &["echo begun", "sleep 600"]);
    let home = Home::new();
    let run = home.start(&["run", project.path().to_str().unwrap()]);
    run.line("begun");
    assert_eq!(containers(project.path()).len(), 1);
    run.signal(Signal::KILL);
    run.wait();
    no_container_of(project.path());
}

#[test]
fn a_terminal_that_goes_away_leaves_no_container() {
    let project = Project::with_script(BUSYBOX, &["echo begun", "sleep 600"]);
    let home = Home::new();
    // `script` gives the program a terminal of its own; ending `script` hangs that terminal up.
    let inner = format!("{} run {}", env!("CARGO_BIN_EXE_buildr"), project.path().display());
    let terminal = Process::start(home.program("script", &["-qefc", &inner, "/dev/null"]));
    terminal.line("begun");
    terminal.signal(Signal::KILL);
    terminal.wait();
    no_container_of(project.path());
}

#[test]
fn output_into_a_closed_pipe_ends_quietly_and_cleans_up() {
    let project = Project::with_script(
        BUSYBOX,
        &["i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done", "sleep 1"],
    );
    let home = Home::new();
    let line = format!("{} run {} | head -n 3", env!("CARGO_BIN_EXE_buildr"), project.path().display());
    let finished = Process::start(home.program("bash", &["-c", &line])).wait();
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    no_container_of(project.path());
}

#[test]
fn json_is_one_object_per_line() {
    let project = Project::with_script(BUSYBOX, &["echo hi"]);
    let finished = Home::new().call(&["run", "--json", project.path().to_str().unwrap()]).expect_code(0);
    let objects: Vec<serde_json::Value> =
        finished.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = objects.last().unwrap();
    assert_eq!(last["event"], "job_finished", "{last}");
    assert_eq!(last["outcome"], "passed");
}

#[test]
fn the_programs_help_names_examples() {
    for program in ["buildr", "buildr-agent", "buildr-orchestrator"] {
        let path = match program {
            "buildr" => env!("CARGO_BIN_EXE_buildr"),
            "buildr-agent" => env!("CARGO_BIN_EXE_buildr-agent"),
            _ => env!("CARGO_BIN_EXE_buildr-orchestrator"),
        };
        let help = must(path, &["--help"]);
        assert!(help.contains("Examples"), "{program}: {help}");
        assert!(must(path, &["--version"]).starts_with(program));
    }
    let status = Command::new(env!("CARGO_BIN_EXE_buildr")).arg("nonsense").output().unwrap().status;
    assert_eq!(status.code(), Some(2));
}
