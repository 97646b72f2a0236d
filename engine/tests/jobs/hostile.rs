//! Builds that have root in their container and use it against their own init, control directory
//! and reports: they may lie about themselves, and cost no more than others do.

use buildr_manifest::{Cause, Outcome};

use crate::harness::{BUSYBOX, Project, stage};

/// What a build sends for init's words; busybox's `printf` is the shell's own, so one write it is.
fn say(report: &str) -> String {
    format!("printf '%s\\n' '{report}' > /proc/1/fd/1")
}

#[tokio::test]
async fn a_log_that_claims_to_be_endless_is_passed_on_to_its_limit() {
    let grow = "rm /buildr/0.log; dd if=/dev/zero of=/buildr/0.log bs=1 count=1 seek=1000000000000 2>&-";
    let claim = say(r#"{"report":"stage","stage":0,"log_bytes":1000000000001,"steps":[0],"end":null}"#);
    let mut project = Project::with_script(&[grow, &claim, "sleep 1000"]);
    project.config.log_limit = 1 << 20;
    let mut going = project.start(project.request()).await;
    going.until(&"\0".repeat(100)).await;
    going.cancel();
    let (finished, told) = going.finish().await;
    assert!(matches!(finished.outcome, Outcome::Canceled { .. }), "{finished:?}");
    assert_eq!(told.output["test"].len(), 1 << 20);
}

#[tokio::test]
async fn garbage_without_an_end_on_init_s_line_harms_only_the_build() {
    let project = Project::with_script(&["head -c 50000000 /dev/zero > /proc/1/fd/1", "echo done"]);
    let (outcome, _) = project.outcome().await;
    assert!(matches!(outcome, Outcome::Passed | Outcome::Failed { .. }), "{outcome}");
}

#[tokio::test]
async fn a_control_directory_that_was_emptied_fails_the_build_or_does_nothing() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [test, later]\n{}{}",
        stage(
            "test",
            &["rm -rf /buildr/* 2>&-; mkfifo /buildr/1.log /buildr/1.sh; ln -s /etc /buildr/1.go", "true"]
        ),
        stage("later", &["echo later"]),
    );
    let (outcome, told) = Project::new(&manifest).outcome().await;
    match outcome {
        Outcome::Passed => assert_eq!(told.text("later"), "later\n"),
        Outcome::Failed { cause, .. } => assert_ne!(cause, Cause::Exit { code: 0 }),
        other => panic!("{other}"),
    }
}
