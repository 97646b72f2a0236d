//! Stages side by side, tried again, allowed to fail, and after failures.

use std::time::Duration;

use buildr_manifest::{Cause, EventKind, Outcome, StageState};

use crate::harness::{BUSYBOX, Project};

fn project(text: &str) -> Project {
    Project::new(&format!("image: {BUSYBOX}\n{text}"))
}

#[tokio::test]
async fn stages_whose_needs_are_met_run_at_the_same_time() {
    // Each waits for the other: one after the other they would never end.
    let project = project(
        "stages: [left, right, last]\n\
         left: {needs: [], script: ['touch l; until [ -e r ]; do :; done; echo left']}\n\
         right: {needs: [], script: ['touch r; until [ -e l ]; do :; done; echo right']}\n\
         last: {script: ['echo last']}\n",
    );
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!((told.text("left"), told.text("right")), ("left\n".into(), "right\n".into()));
    assert!(told.story.ends_with("last\n[last passed]\n[passed]\n"), "{}", told.story);
}

#[tokio::test]
async fn what_needs_a_failed_stage_is_not_reached_and_the_rest_runs() {
    let project = project(
        "stages: [bad, after, beside]\n\
         bad: {needs: [], script: [exit 3]}\n\
         after: {needs: [bad], script: ['true']}\n\
         beside: {needs: [], script: ['true']}\n",
    );
    let (outcome, told) = project.outcome().await;
    assert!(
        matches!(&outcome, Outcome::Failed { stage, cause: Cause::Exit { code: 3 }, .. } if &**stage == "bad")
    );
    assert_eq!(told.state("beside"), &StageState::Passed);
    let StageState::NotReached { because: Some(because) } = told.state("after") else { panic!("{told:?}") };
    assert_eq!(&**because, "bad");
}

#[tokio::test]
async fn fail_fast_ends_what_runs_beside_a_failure() {
    let text = "stages: [slow, bad, clean]\n\
                slow: {needs: [], script: ['touch up; sleep 1000']}\n\
                bad: {needs: [], script: ['until [ -e up ]; do :; done; exit 1']}\n\
                clean: {when: always, script: ['echo $BUILDR_STATUS $BUILDR_FAILED_STAGE']}\n";
    let (outcome, told) = project(&format!("fail_fast: true\n{text}")).outcome().await;
    assert!(matches!(&outcome, Outcome::Failed { stage, .. } if &**stage == "bad"), "{outcome}");
    assert_eq!(told.state("slow"), &StageState::Canceled);
    assert_eq!(told.text("clean"), "failed bad\n");
}

#[tokio::test]
async fn an_allowed_failure_counts_as_passed() {
    let project = project(
        "stages: [lint, odd, bad, last]\n\
         lint: {allow_failure: true, script: [exit 3]}\n\
         odd: {allow_failure: {exit_codes: [77]}, script: [exit 77]}\n\
         bad: {allow_failure: {exit_codes: [77]}, script: [exit 78]}\n\
         last: {script: ['true']}\n",
    );
    let (outcome, told) = project.outcome().await;
    assert!(matches!(&outcome, Outcome::Failed { stage, .. } if &**stage == "bad"), "{outcome}");
    assert_eq!(told.state("lint").word(), "failed");
    assert_eq!(told.state("last").word(), "not_reached");
    let allowed: Vec<bool> = told.events.iter().filter_map(allowed).collect();
    assert_eq!(allowed, [true, true, false, false]);
}

fn allowed(event: &EventKind) -> Option<bool> {
    if let EventKind::StageFinished { allowed, .. } = event { Some(*allowed) } else { None }
}

#[tokio::test]
async fn a_stage_is_tried_again_in_the_same_log_until_it_passes() {
    let project = project(
        "stages: [flaky]\n\
         flaky:\n  retry: {times: 2, exit_codes: [42], backoff: 1s}\n  script:\n\
         \x20   - echo try >> tries; echo this is try $(grep -c . tries)\n    - test $(grep -c . tries) = 3 || exit 42\n",
    );
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("flaky"), "this is try 1\nthis is try 2\nthis is try 3\n");
    let expected =
        "[flaky started]\n[step 0]\nthis is try 1\n[step 1]\n[flaky retried after try 1]\n[step 0]\n";
    assert!(told.story.contains(expected), "{}", told.story);
}

#[tokio::test]
async fn only_what_is_worth_it_is_tried_again() {
    for (retry, script, tries) in [
        ("{times: 3, exit_codes: [42]}", "exit 41", 1),
        ("{times: 1, when: [timed_out]}", "exit 42", 1),
        ("2", "kill -9 $$", 3),
    ] {
        let project = project(&format!("stages: [s]\ns: {{retry: {retry}, script: ['{script}']}}\n"));
        let (outcome, told) = project.outcome().await;
        assert_eq!(outcome.word(), "failed");
        let retried = told.events.iter().filter(|event| matches!(event, EventKind::StageRetried { .. }));
        assert_eq!(retried.count() + 1, tries, "{retry}");
    }
}

#[tokio::test]
async fn values_are_handed_on_to_stages_that_start_later() {
    let project = project(
        "environment: {A: manifest, B: manifest}\n\
         stages: [first, second, third]\n\
         first: {script: ['echo A=first >> $BUILDR_ENV; echo B=first >> $BUILDR_ENV; echo \"C=a b=c\" >> $BUILDR_ENV']}\n\
         second: {environment: {B: own}, when: {var: {A: first}}, script: ['echo $A $B $C; echo A=second > $BUILDR_ENV']}\n\
         third: {when: {var: {A: first}}, script: ['true']}\n",
    );
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(told.text("second"), "first own a b=c\n");
    let StageState::Skipped { why } = told.state("third") else { panic!("{told:?}") };
    assert!(why.contains("second"), "{why}");
}

#[tokio::test]
async fn a_stages_own_timeout_ends_it_alone_and_the_container_lives_on() {
    let project = project(
        "stages: [slow, beside, after]\n\
         slow: {needs: [], timeout: 1s, script: ['(setsid sleep 999 &) ; nohup sleep 999 & env -i sleep 999']}\n\
         beside: {needs: [], script: ['sleep 2; echo still here']}\n\
         after: {when: always, script: ['echo $BUILDR_STATUS; ps | grep -c \"[s]leep 999\" || :']}\n",
    );
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome.to_string(), "timed out after 1s in stage slow");
    assert_eq!(told.state("slow"), &StageState::TimedOut);
    assert_eq!(told.text("beside"), "still here\n");
    assert_eq!(told.text("after"), "timed_out\n0\n");
}

#[tokio::test]
async fn a_canceled_job_runs_what_runs_always_and_nothing_else() {
    let project = project(
        "stages: [work, next, clean, oops]\n\
         work: {script: ['echo up; sleep 1000']}\n\
         next: {script: ['true']}\n\
         clean: {when: always, script: ['echo $BUILDR_STATUS']}\n\
         oops: {when: failure, script: ['echo $BUILDR_STATUS']}\n",
    );
    let mut going = project.start(project.request()).await;
    going.until("up\n").await;
    going.cancel();
    let (finished, told) = going.finish().await;
    assert_eq!(finished.outcome, Outcome::Canceled { by: "ann".into() });
    assert_eq!((told.text("clean"), told.text("oops")), ("canceled\n".into(), "canceled\n".into()));
    assert_eq!(told.state("next"), &StageState::NotReached { because: None });
}

#[tokio::test]
async fn what_runs_always_has_a_time_of_its_own_when_the_job_is_ended() {
    let mut project = project(
        "timeout: 1s\nstages: [work, clean]\n\
         work: {script: ['sleep 1000']}\n\
         clean: {when: always, script: ['echo $BUILDR_STATUS; sleep 1000']}\n",
    );
    project.config.always_budget = Duration::from_secs(1);
    let (outcome, told) = project.outcome().await;
    assert_eq!(outcome.to_string(), "timed out after 1s in stage work");
    assert_eq!(told.text("clean"), "timed_out\n");
    assert_eq!(told.state("clean"), &StageState::TimedOut);
}

#[tokio::test]
async fn a_kill_starts_nothing_more() {
    let project = project(
        "stages: [work, clean]\nwork: {script: ['echo up; sleep 1000']}\nclean: {when: always, script: [echo no]}\n",
    );
    let mut going = project.start(project.request()).await;
    going.until("up\n").await;
    going.kill();
    let (finished, told) = going.finish().await;
    assert_eq!(finished.outcome.word(), "canceled");
    assert_eq!(told.state("clean"), &StageState::NotReached { because: None });
}

#[tokio::test]
async fn a_stage_that_runs_always_can_fail_a_build_that_had_passed() {
    let project =
        project("stages: [work, clean]\nwork: {script: ['true']}\nclean: {when: always, script: [exit 4]}\n");
    let (outcome, _) = project.outcome().await;
    assert!(matches!(&outcome, Outcome::Failed { stage, .. } if &**stage == "clean"), "{outcome}");
}
