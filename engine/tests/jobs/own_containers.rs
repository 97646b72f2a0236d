//! Stages in containers of their own, and what a stage says of how it runs.

use buildr_manifest::{EventKind, Outcome};

use crate::harness::{BUSYBOX, Project};

const BASH: &str = "buildr-test/bash:1";

#[tokio::test]
async fn a_stage_with_an_image_has_a_container_of_its_own_and_the_same_workspace() {
    for detached in [false, true] {
        let mut project = Project::new(&format!(
            "image: {BUSYBOX}\nenvironment: {{A: b}}\nprepare: {{script: ['echo 1 > /only-here; echo 2 > in-workspace']}}\n\
             stages: [other, back]\n\
             other: {{image: '{BASH}', script: ['ls /only-here || echo gone', 'cat in-workspace; echo $A; echo 3 >> in-workspace', 'command -v bash']}}\n\
             back: {{script: ['cat /only-here in-workspace']}}\n"
        ));
        if detached {
            project = project.detached();
        }
        let (outcome, told) = project.outcome().await;
        assert_eq!(outcome, Outcome::Passed, "{}", told.story);
        assert!(told.text("other").contains("gone\n2\nb\n/usr/bin/bash\n"), "{}", told.text("other"));
        assert_eq!(told.text("back"), "1\n2\n3\n");
        let ready = told.events.iter().filter_map(|event| match event {
            EventKind::ContainerReady { stage, image, .. } => {
                Some((stage.as_ref().map(|s| s.to_string()), image.clone()))
            }
            _ => None,
        });
        let ready: Vec<_> = ready.collect();
        assert_eq!(ready, [(None, BUSYBOX.to_owned()), (Some("other".to_owned()), BASH.to_owned())]);
    }
}

#[tokio::test]
async fn an_image_that_is_not_there_fails_as_such_and_what_runs_always_still_runs() {
    let project = Project::new(&format!(
        "image: {BUSYBOX}\nstages: [other, clean]\n\
         other: {{image: 'localhost:1/none:1', script: ['true']}}\nclean: {{when: always, script: ['echo $BUILDR_STATUS']}}\n"
    ));
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome.word(), "image_error");
    assert_eq!(told.state("other").word(), "not_reached");
    assert_eq!(told.text("clean"), "failed\n");
}

#[tokio::test]
async fn shell_workdir_and_user_are_the_stages_own() {
    let project = Project::new(&format!(
        "image: {BASH}\nshell: bash\nstages: [a, b, c]\n\
         a: {{script: ['mkdir -p sub/dir; false | true || echo pipefail; [[ 1 == 1 ]] && echo bash']}}\n\
         b: {{shell: sh, workdir: sub/dir, user: '1000:1000', script: ['pwd; id -u; touch mine']}}\n\
         c: {{shell: [bash, -eu], script: ['echo ${{NO-unset}}; stat -c %u sub/dir/mine; echo $UNSET']}}\n"
    ));
    let (outcome, told) = project.outcome().await;
    assert_eq!(told.text("a"), "pipefail\nbash\n");
    assert_eq!(told.text("b"), "/workspace/sub/dir\n1000\n");
    assert!(told.text("c").starts_with("unset\n1000\n"), "{}", told.text("c"));
    assert!(matches!(&outcome, Outcome::Failed { stage, .. } if &**stage == "c"), "{outcome}");
}

#[tokio::test]
async fn a_workdir_or_user_that_is_not_there_fails_the_stage_and_says_so() {
    for (key, words) in [("workdir: no/where", "/workspace/no/where"), ("user: ghost", "\"ghost\"")] {
        let project =
            Project::new(&format!("image: {BUSYBOX}\nstages: [s]\ns: {{{key}, script: ['true']}}\n"));
        let (outcome, told) = project.outcome().await;
        assert_eq!(outcome.word(), "failed");
        assert!(told.warnings().iter().any(|text| text.contains(words)), "{}", told.story);
    }
}

#[tokio::test]
async fn memory_that_is_used_up_is_told_with_its_peak() {
    let project = Project::new(&format!(
        "image: {BUSYBOX}\nresources: {{memory: 32MiB, cpus: 0.5, pids: 100}}\nstages: [eat, after]\n\
         eat: {{script: ['tail -c 200m /dev/zero > /dev/null']}}\nafter: {{when: always, script: ['echo lives']}}\n"
    ));
    let (outcome, told) = project.outcome().await;
    let Outcome::Oom { stage, peak, limit } = &outcome else { panic!("{outcome}: {}", told.story) };
    assert_eq!((&**stage, *limit), ("eat", Some(32 << 20)));
    assert!(peak.is_some_and(|peak| peak > 16 << 20), "{peak:?}");
    assert_eq!(told.text("after"), "lives\n");
}
