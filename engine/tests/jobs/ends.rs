//! How jobs end by themselves.

use buildr_manifest::{Cause, Outcome, StageName, StageState};

use crate::harness::{BUSYBOX, Project, stage};

fn name(text: &str) -> StageName {
    StageName::new(text).unwrap()
}

#[tokio::test]
async fn a_job_that_passes_tells_everything_in_order() {
    let project = Project::with_script(&["echo one", "cd /tmp; X=kept", "echo two $X $PWD >&2"]);
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(
        told.story,
        "[started]\n[source]\n[planned]\n[ready]\n[test started]\n[step 0]\none\n[step 1]\n[step 2]\n\
         two kept /tmp\n[test passed]\n[passed]\n"
    );
}

#[tokio::test]
async fn a_detached_job_leaves_nothing_either() {
    let (outcome, told) = Project::with_script(&["echo here"]).detached().outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("test"), "here\n");
}

#[tokio::test]
async fn the_first_failure_ends_the_job_and_names_the_step_and_the_code() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [build, test, deploy]\n{}{}{}",
        stage("build", &["echo built"]),
        stage("test", &["true", "exit 7", "echo never"]),
        stage("deploy", &["echo never"]),
    );
    let (outcome, told) = Project::new(&manifest).outcome().await;
    let cause = Cause::Exit { code: 7 };
    assert_eq!(outcome, Outcome::Failed { stage: name("test"), step: Some(1), cause });
    assert_eq!(told.state("build"), &StageState::Passed);
    assert_eq!(told.state("deploy"), &StageState::NotReached { because: Some(name("test")) });
    assert!(!told.story.contains("never"), "{}", told.story);
}

#[tokio::test]
async fn a_prepare_that_fails_stops_all_stages() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [test]\n{}{}",
        stage("prepare", &["false"]),
        stage("test", &["echo never"]),
    );
    let (outcome, told) = Project::new(&manifest).outcome().await;
    let cause = Cause::Exit { code: 1 };
    assert_eq!(outcome, Outcome::Failed { stage: name("prepare"), step: Some(0), cause });
    assert_eq!(told.state("test"), &StageState::NotReached { because: Some(name("prepare")) });
}

#[tokio::test]
async fn what_prepare_puts_into_the_container_is_there_for_the_stages() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [test]\n{}{}",
        stage("prepare", &["echo tool > /opt-tool", "echo left > left"]),
        stage("test", &["cat /opt-tool /workspace/left"]),
    );
    let project = Project::new(&manifest);
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("test"), "tool\nleft\n");
    assert!(project.folder.path().join("left").exists(), "the project is mounted as it is");
}

#[tokio::test]
async fn a_signal_that_ends_the_shell_is_told_as_one() {
    let (outcome, _) = Project::with_script(&["kill -9 $$"]).outcome().await;
    let cause = Cause::Signal { signal: 9 };
    assert_eq!(outcome, Outcome::Failed { stage: name("test"), step: Some(0), cause });
}

#[tokio::test]
async fn a_stage_that_writes_too_much_is_ended() {
    let mut project = Project::with_script(&["while :; do echo 0123456789abcdef; done"]);
    project.config.log_limit = 100_000;
    let (outcome, told) = project.outcome().await;
    let cause = Cause::LogLimit { limit: 100_000 };
    assert_eq!(outcome, Outcome::Failed { stage: name("test"), step: Some(0), cause });
    assert_eq!(told.output["test"].len(), 100_000);
}

#[tokio::test]
async fn a_bad_manifest_is_told_with_its_place_and_starts_nothing() {
    let (outcome, told) = Project::new("image: x\nstages: [build]\n").outcome().await;
    let Outcome::ManifestError { message } = &outcome else { panic!("{outcome:?}") };
    assert!(message.contains(".buildr.yml:2"), "{message}");
    assert!(!told.story.contains("[planned]"), "{}", told.story);
}

#[tokio::test]
async fn two_manifests_are_warned_about() {
    let project = Project::with_script(&["true"]);
    std::fs::write(project.folder.path().join(".buildr"), "image: other").unwrap();
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert!(told.warnings()[0].contains(".buildr.yml is taken, not .buildr"), "{:?}", told.warnings());
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_of_the_source() {
    let project = Project::with_script(&["true"]);
    let mut request = project.request();
    request.source = buildr_engine::SourceSpec::Folder("/no/such/folder".into());
    let (finished, _) = project.start(request).await.finish().await;
    let Outcome::SourceError { message } = finished.outcome else { panic!("{finished:?}") };
    assert!(message.contains("/no/such/folder"), "{message}");
}
