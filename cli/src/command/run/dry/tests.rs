use std::path::Path;

use buildr_engine::{Afterwards, EventFacts, Identity, RunId, SourceSpec, planning::Planned};
use buildr_manifest::{Part, Trigger};

use super::*;
use crate::render::Palette;

const WHOLE: &str = r#"
image: "rust:${RUST}"
timeout: 45m
matrix:
  RUST: ["1.80", stable]
  allow_failure: [{RUST: "1.80"}]
cache: {key: k, paths: [target]}
services:
  db: {image: "postgres:16"}
stages: [build, test, docs, deploy, report]
prepare: {script: [apt-get update]}
build: {script: [cargo build, cargo build --release]}
test: {needs: [build], script: [cargo test], timeout: 10m, retry: 1, artifacts: [out/]}
docs: {needs: [build], script: [mdbook build], image: mdbook, allow_failure: true}
deploy: {script: [./deploy], when: {branch: main}}
report: {script: [./report], when: always}
"#;

fn request(folder: &Path, trigger: Trigger, facts: EventFacts) -> JobRequest {
    JobRequest {
        run: RunId::new("run-1").unwrap(),
        source: SourceSpec::Folder(folder.to_owned()),
        manifest_path: None,
        trigger,
        facts,
        pick: Default::default(),
        vars: Vec::new(),
        process_environment: Default::default(),
        part: Part::Whole,
        afterwards: Afterwards::Remove,
        identity: Identity::default(),
        timeout: None,
    }
}

fn planned(text: &str, trigger: Trigger, branch: &str) -> (JobRequest, Planned) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".buildr.yml"), text).unwrap();
    let facts = EventFacts { branch: Some(branch.to_owned()), ..EventFacts::default() };
    let request = request(folder.path(), trigger, facts);
    let planned = plan_folder(&request).unwrap();
    (request, planned)
}

fn shown(text: &str, trigger: Trigger, branch: &str) -> String {
    let (request, planned) = planned(text, trigger, branch);
    let unsupported =
        planned.plan.supported_job(&Pick::First).err().map(|problems| problems.items).unwrap_or_default();
    tree::tree(&request, &planned, &unsupported, &Palette::new(false))
}

#[test]
fn a_tree_shows_jobs_rounds_skips_and_what_is_not_carried_out_yet() {
    insta::assert_snapshot!(shown(WHOLE, Trigger::Push, "topic"));
}

#[test]
fn a_simple_manifest_is_a_simple_tree() {
    let text =
        "image: alpine:3.20\nstages: [build, test]\nbuild: {script: [make]}\ntest: {script: [make test]}\n";
    insta::assert_snapshot!(shown(text, Trigger::Local, "main"));
}

#[test]
fn where_nothing_would_run_that_is_said_loudly() {
    let text = "image: a\non: tag\nstages: [one]\none: {script: [make], when: {event: cron}}\n";
    insta::assert_snapshot!(shown(text, Trigger::Push, "main"));
}

#[test]
fn what_waits_for_a_skipped_stage_waits_for_what_that_waits_for() {
    let text = "image: a\nstages: [a, b, c, d]\na: {script: [x]}\nb: {needs: [a], when: {event: tag}, script: [x]}\n\
                c: {needs: [b], script: [x]}\nd: {needs: [a], script: [x]}\n";
    let (_, planned) = planned(text, Trigger::Push, "main");
    assert_eq!(rounds(&planned.plan, &planned.plan.jobs[0]), [vec![0], vec![1, 2, 3]]);
}

#[test]
fn programs_get_the_whole_plan() {
    let (request, planned) = planned(WHOLE, Trigger::Push, "topic");
    let unsupported = planned.plan.supported_job(&Pick::First).unwrap_err().items;
    let value = serde_json::to_value(document::document(&request, &planned, &unsupported)).unwrap();
    assert_eq!((&value["event"], &value["branch"]), (&"push".into(), &"topic".into()));
    let job = &value["jobs"][1];
    assert_eq!((&job["name"], &job["image"]), (&"stable".into(), &"rust:stable".into()));
    let stages = job["stages"].as_array().unwrap();
    let (deploy, report) = (&stages[4], &stages[5]);
    assert!(deploy["skipped"].as_str().unwrap().contains("topic") && deploy["status"].is_null());
    assert_eq!(
        (&report["status"], &report["after"]),
        (&"always".into(), &serde_json::json!(["test", "docs"]))
    );
    assert_eq!(value["not_supported_yet"].as_array().unwrap().len(), 2);
}

#[test]
fn values_of_axes_choose_jobs() {
    let (_, planned) = planned(WHOLE, Trigger::Push, "main");
    let value: AxisValue = "RUST=1.80".parse().unwrap();
    assert_eq!(planned.plan.jobs.iter().filter(|job| value.is_of(job)).count(), 1);
    assert!("RUST".parse::<AxisValue>().is_err());
}
