//! Stages, and whole builds, whose conditions do not hold.

use buildr_engine::EventFacts;
use buildr_manifest::{EventKind, Outcome, StageName, StageState, Trigger};

use crate::harness::{BUSYBOX, Project, Told, stage};

fn skipped(why: &str) -> StageState {
    StageState::Skipped { why: why.to_owned() }
}

fn manifest(stages: &[(&str, &str, &str)]) -> String {
    let names: Vec<&str> = stages.iter().map(|(name, ..)| *name).collect();
    let text = |(name, when, entry): &(&str, &str, &str)| {
        let when = if when.is_empty() { String::new() } else { format!("  when: {when}\n") };
        stage(name, &[entry]) + &when
    };
    let stages: String = stages.iter().map(text).collect();
    format!("image: {BUSYBOX}\nstages: [{}]\n{stages}", names.join(", "))
}

async fn run(project: &Project, trigger: Trigger, facts: EventFacts) -> (Outcome, Told) {
    let mut request = project.request();
    (request.trigger, request.facts) = (trigger, facts);
    let (finished, told) = project.start(request).await.finish().await;
    (finished.outcome, told)
}

fn started_a_container(told: &Told) -> bool {
    told.events.iter().any(|event| matches!(event, EventKind::ContainerReady { .. }))
}

#[tokio::test]
async fn a_stage_whose_condition_does_not_hold_is_skipped_in_its_place() {
    let text = manifest(&[
        ("one", "", "echo 1"),
        ("deploy", "{branch: main}", "echo never"),
        ("last", "", "echo $BUILDR_BRANCH"),
    ]);
    let facts = EventFacts { branch: Some("topic".into()), ..EventFacts::default() };
    let (outcome, told) = run(&Project::new(&text), Trigger::Push, facts).await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("last"), "topic\n");
    assert!(matches!(told.state("deploy"), StageState::Skipped { why } if why.contains("`topic`")));
    assert!(told.story.contains("[one passed]\n[deploy skipped]\n[last started]"), "{}", told.story);
}

#[tokio::test]
async fn what_comes_after_a_failure_keeps_its_own_reason() {
    let text = manifest(&[
        ("one", "", "exit 3"),
        ("nightly", "{event: cron}", "echo never"),
        ("last", "", "echo never"),
    ]);
    let (_, told) = Project::new(&text).outcome().await;
    assert!(matches!(told.state("nightly"), StageState::Skipped { .. }));
    let because = Some(StageName::new("one").unwrap());
    assert_eq!(*told.state("last"), StageState::NotReached { because });
}

#[tokio::test]
async fn a_build_without_a_stage_to_run_is_skipped_and_starts_no_container() {
    let text = manifest(&[("one", "{event: cron}", "true"), ("two", "{event: tag}", "true")]);
    let (outcome, told) = Project::new(&text).outcome().await;
    assert_eq!(outcome, Outcome::Skipped);
    assert!(!started_a_container(&told));
    assert_eq!(*told.state("one"), skipped("the event is `local`, and `event` asks for `cron`"));
    assert!(told.story.contains("[planned]\n[one skipped]\n[two skipped]\n[skipped"), "{}", told.story);
}

#[tokio::test]
async fn an_event_that_the_manifest_does_not_name_builds_nothing_and_says_so() {
    let text = format!("on: [tag]\n{}", manifest(&[("one", "", "echo 1")]));
    let project = Project::new(&text);
    let (outcome, told) = run(&project, Trigger::Push, EventFacts::default()).await;
    assert_eq!(outcome, Outcome::Skipped);
    assert!(!started_a_container(&told));
    assert!(told.warnings()[0].contains("`on` does not name the event `push`"), "{:?}", told.warnings());
    for always in [Trigger::Local, Trigger::Manual] {
        assert_eq!(run(&project, always, EventFacts::default()).await.0, Outcome::Passed);
    }
}

#[tokio::test]
async fn the_files_that_were_changed_decide_in_a_folder() {
    let text =
        manifest(&[("docs", "{paths: [\"docs/**\"]}", "true"), ("src", "{paths: [\"src/**\"]}", "true")]);
    let project = Project::new(&text);
    let told = project.run().await;
    assert_eq!((told.state("docs").word(), told.state("src").word()), ("passed", "passed"), "no repository");
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"];
        let mut git = std::process::Command::new("git");
        let status = git.args(identity).args(arguments).current_dir(project.folder.path()).status();
        assert!(status.unwrap().success());
    };
    git(&["init", "-qb", "main"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "one"]);
    std::fs::create_dir(project.folder.path().join("src")).unwrap();
    std::fs::write(project.folder.path().join("src/new"), "").unwrap();
    let told = project.run().await;
    assert_eq!((told.state("docs").word(), told.state("src").word()), ("skipped", "passed"));
}

#[tokio::test]
async fn what_cannot_be_carried_out_yet_is_an_error_at_its_place() {
    let text = format!("cache: {{key: a, paths: [b]}}\n{}", manifest(&[("one", "", "echo 1")]));
    let (outcome, told) = Project::new(&text).outcome().await;
    let Outcome::ManifestError { message } = outcome else { panic!("{outcome:?}") };
    assert!(message.contains(".buildr.yml:1:1") && message.contains("not supported yet"), "{message}");
    assert!(!started_a_container(&told));
}
