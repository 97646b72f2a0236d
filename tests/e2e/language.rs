//! What a manifest means, where it meets the programs: conditions, checks, plans.

use crate::{
    harness::{BUSYBOX, Farm, Home, Process, Project},
    shells::lines_of,
};

/// `deploy` is for the branch `main` alone, `tagged` for tags.
fn conditional() -> Project {
    Project::with_manifest(&format!(
        "image: {BUSYBOX}\nenvironment: {{WHO: somebody}}\nstages: [test, deploy, tagged]\ntest: {{script: ['echo $WHO']}}\n\
         deploy:\n  when: {{branch: main}}\n  script: [echo deployed]\ntagged:\n  when: {{tag: 'v*'}}\n  script: [echo released]\n"
    ))
}

#[test]
fn conditions_skip_stages_alike_on_the_laptop_and_on_the_farm() {
    let project = conditional();
    project.git(&["branch", "side"]);
    let farm = Farm::new();
    let home = Home::new();
    let folder = project.path().to_str().unwrap();
    for branch in ["main", "side"] {
        let local = home.call(&["run", folder, "--branch", branch]).expect_code(0);
        let build = farm.submit_with(&["--repo", &project.url(), "--branch", branch]);
        let remote = farm.tail(&build).expect_code(0);
        for stage in ["test", "deploy", "tagged"] {
            assert_eq!(lines_of(&local.out(), stage), lines_of(&remote.out(), stage), "{stage} on {branch}");
        }
        assert_eq!(lines_of(&local.out(), "test"), ["somebody"]);
        assert_eq!(local.out().contains("deployed"), branch == "main");
        let stages = farm.show(&build)["jobs"][0]["stages"].clone();
        let states: Vec<&str> =
            stages.as_array().unwrap().iter().map(|stage| stage["state"].as_str().unwrap()).collect();
        let deploy = if branch == "main" { "passed" } else { "skipped" };
        assert_eq!(states, ["passed", deploy, "skipped"]);
        for told in [&local.stderr, &remote.stderr] {
            assert!(told.contains("tagged") && told.contains("skipped"), "{told}");
        }
    }
}

#[test]
fn a_release_on_tags_is_tried_with_submit() {
    let project = conditional();
    project.write(".buildr.yml", &format!(
        "image: {BUSYBOX}\non: {{tag: {{tags: ['v*']}}}}\nstages: [release]\nrelease:\n  when: {{event: tag}}\n  script: [echo released $BUILDR_TAG]\n"
    ));
    project.commit("release on tags");
    project.git(&["tag", "v1"]);
    project.git(&["tag", "other"]);
    let farm = Farm::new();
    let url = project.url();
    let released =
        farm.tail(&farm.submit_with(&["--repo", &url, "--event", "tag", "--tag", "v1"])).expect_code(0);
    assert_eq!(lines_of(&released.out(), "release"), ["released v1"]);
    let other = farm.submit_with(&["--repo", &url, "--event", "tag", "--tag", "other"]);
    farm.tail(&other).expect_code(0);
    assert_eq!(farm.show(&other)["outcome"], "skipped");
}

#[test]
fn a_build_of_which_nothing_is_to_run_is_skipped() {
    let text = format!("image: {BUSYBOX}\nstages: [a]\na: {{when: {{tag: 'v*'}}, script: [echo never]}}\n");
    let project = Project::with_manifest(&text);
    let local = Home::new().run(&project).expect_code(0);
    assert!(local.stderr.contains("nothing was to run"), "{}", local.stderr);
    let farm = Farm::new();
    let build = farm.submit(&project);
    farm.tail(&build).expect_code(0);
    assert_eq!(farm.show(&build)["outcome"], "skipped");
}

#[test]
fn what_the_engine_cannot_do_yet_is_refused_at_its_place_when_it_is_to_be_done() {
    for (line, text) in [
        (2, "cache: {key: k, paths: [target]}\nstages: [a]\na: {script: [echo never]}\n"),
        (3, "stages: [a]\na: {artifacts: [dist/], script: [echo never]}\n"),
        (3, "stages: [a]\na: {reports: {junit: [x.xml]}, script: [echo never]}\n"),
    ] {
        let project = Project::with_manifest(&format!("image: {BUSYBOX}\n{text}"));
        let folder = project.path().to_str().unwrap();
        let home = Home::new();
        home.call(&["lint", folder]).expect_code(0);
        home.call(&["run", folder, "--dry-run"]).expect_code(0);
        let farm = Farm::new();
        let run = home.run(&project).expect_code(2);
        let tail = farm.tail(&farm.submit(&project)).expect_code(2);
        for told in [run.stderr, tail.stderr] {
            let place = format!(".buildr.yml:{line}:");
            assert!(told.contains(&place) && told.contains("not supported yet"), "{told}");
        }
    }
}

#[test]
fn a_plan_is_shown_without_docker() {
    let mut home = Home::new();
    home.set("DOCKER_HOST", "unix:///no/such/docker.sock");
    let project = conditional();
    let plan = home.call(&["run", "--dry-run", project.path().to_str().unwrap()]).expect_code(0).out();
    for part in ["test", "deploy", "tagged", "skipped"] {
        assert!(plan.contains(part), "{plan}");
    }
}

#[test]
fn a_first_manifest_is_written_once_and_is_a_good_one() {
    let home = Home::new();
    let project = Project::folder(&[("Makefile", "all:\n\techo built\ntest:\n\techo tested\n")]);
    let folder = project.path().to_str().unwrap();
    home.call(&["init", folder]).expect_code(0);
    home.call(&["lint", "--strict", folder]).expect_code(0);
    let again = home.call(&["init", folder]);
    assert_ne!(again.code, 0);
    assert!(again.stderr.contains(".buildr.yml"), "{}", again.stderr);
}

#[test]
fn lint_reads_several_files_and_standard_input() {
    let home = Home::new();
    let good = Project::with_manifest("image: x\nprepare: {script: 'true'}\n");
    let bad = Project::with_manifest("image: x\nstages: [a]\n");
    let args = ["lint", "--json", good.path().to_str().unwrap(), bad.path().to_str().unwrap()];
    let finished = home.call(&args).expect_code(2);
    let document: serde_json::Value = serde_json::from_slice(&finished.stdout).unwrap();
    let code = &document["diagnostics"][0]["code"];
    assert!(code.is_string(), "{document}");
    let line =
        format!("printf 'image: x\\nprepare: {{script: ls}}\\n' | {} lint -", env!("CARGO_BIN_EXE_buildr"));
    Process::start(home.program("sh", &["-c", &line])).wait().expect_code(0);
    let schema = home.call(&["schema"]).expect_code(0).stdout;
    let schema: serde_json::Value = serde_json::from_slice(&schema).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("2020-12"), "{schema}");
}
