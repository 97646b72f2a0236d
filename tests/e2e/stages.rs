//! What stages can do, each in a story that is told by `buildr run` and by the farm, and compared:
//! their order, their failures, and what they hand on.

use rustix::process::Signal;

use crate::{
    both::Both,
    harness::{BUSYBOX, Farm, Home, Project, no_container_of},
};

/// A story with this manifest, of busybox.
#[track_caller]
fn story(text: &str) -> Both {
    Both::of_manifest(&format!("image: {BUSYBOX}\n{text}"))
}

#[test]
fn stages_whose_needs_are_met_run_side_by_side() {
    // Each waits for the other: one after the other they would never end.
    let both = story(
        "stages: [left, right, last]\n\
         left: {needs: [], script: ['touch l; until [ -e r ]; do sleep 0.05; done; echo left']}\n\
         right: {needs: [], script: ['touch r; until [ -e l ]; do sleep 0.05; done; echo right']}\n\
         last: {script: ['echo last']}\n",
    )
    .expect_code(0);
    assert_eq!((both.text("left"), both.text("last")), ("left\n".into(), "last\n".into()));
}

#[test]
fn what_needs_a_failed_stage_is_not_reached_and_says_so() {
    let both = story(
        "stages: [bad, after, beside]\n\
         bad: {needs: [], script: [exit 3]}\n\
         after: {needs: [bad], script: ['true']}\n\
         beside: {needs: [], script: ['true']}\n",
    )
    .expect_code(1);
    assert_eq!((both.state("after"), both.state("beside")), ("not_reached", "passed"));
    assert_eq!(both.local.end("after")["because"], "bad");
}

#[test]
fn an_allowed_failure_counts_as_passed() {
    let both = story(
        "stages: [lint, odd, bad, last]\n\
         lint: {allow_failure: true, script: [exit 3]}\n\
         odd: {allow_failure: {exit_codes: [77]}, script: [exit 77]}\n\
         bad: {allow_failure: {exit_codes: [77]}, script: [exit 78]}\n\
         last: {script: ['true']}\n",
    )
    .in_one_order()
    .expect_code(1);
    assert_eq!((both.state("lint"), both.state("last")), ("failed", "not_reached"));
    assert_eq!(both.local.end("odd")["allowed"], true);
    assert_eq!(both.local.outcome()["stage"], "bad");
}

#[test]
fn fail_fast_ends_what_runs_beside_a_failure() {
    let both = story(
        "fail_fast: true\nstages: [slow, bad]\n\
         slow: {needs: [], script: ['touch up; sleep 1000']}\n\
         bad: {needs: [], script: ['until [ -e up ]; do sleep 0.05; done; exit 1']}\n",
    )
    .expect_code(1);
    assert_eq!((both.state("slow"), both.state("bad")), ("canceled", "failed"));
}

#[test]
fn a_stage_is_tried_again_after_a_pause_where_its_exit_code_is_worth_it() {
    let both = story(
        "stages: [flaky, hopeless]\n\
         flaky:\n  retry: {times: 2, exit_codes: [42], backoff: 1s}\n  script:\n\
         \x20   - echo x >> /tmp/tries; echo try $(grep -c . /tmp/tries)\n    - test $(grep -c . /tmp/tries) = 3 || exit 42\n\
         hopeless: {retry: {times: 3, exit_codes: [42]}, script: [exit 41]}\n",
    )
    .in_one_order()
    .expect_code(1);
    assert_eq!(both.text("flaky"), "try 1\ntry 2\ntry 3\n");
    assert_eq!(both.local.all("stage_retried").filter(|told| told["stage"] == "flaky").count(), 2);
    assert_eq!(both.local.all("stage_retried").count(), 2, "exit code 41 is not worth it");
    assert!(both.local.end("flaky")["duration"].as_f64().unwrap() >= 2.0);
}

/// `work` is what happens; these tell of it afterwards.
const AFTERWARDS: &str = "clean: {when: always, script: ['echo $BUILDR_STATUS ${BUILDR_FAILED_STAGE-none}']}\n\
     oops: {when: failure, script: ['echo $BUILDR_STATUS ${BUILDR_FAILED_STAGE-none}']}\n";

#[test]
fn what_runs_after_a_failure_knows_what_failed() {
    let text = format!("stages: [work, next, clean, oops]\nnext: {{script: ['true']}}\n{AFTERWARDS}");
    let failed = story(&format!("{text}work: {{script: ['exit 5']}}\n")).in_one_order().expect_code(1);
    assert_eq!(failed.text("clean"), "failed work\n");
    assert_eq!(failed.text("oops"), "failed work\n");
    assert_eq!(failed.state("next"), "not_reached");

    let passed = story(&format!("{text}work: {{script: ['true']}}\n")).in_one_order().expect_code(0);
    assert_eq!(passed.text("clean"), "passed none\n");
    assert_ne!(passed.state("oops"), "passed");
}

#[test]
fn what_runs_always_runs_after_a_stages_and_after_the_jobs_timeout() {
    let text = format!("stages: [work, clean, oops]\n{AFTERWARDS}");
    let of_stage = story(&format!("{text}work: {{timeout: 1s, script: ['sleep 1000']}}\n"));
    let of_stage = of_stage.in_one_order().expect_code(5);
    assert_eq!((of_stage.state("work"), of_stage.outcome()), ("timed_out", "timed_out"));
    assert_eq!(of_stage.text("clean"), "timed_out work\n");
    assert_eq!(of_stage.text("oops"), "timed_out work\n");

    let of_job = story(&format!("timeout: 2s\n{text}work: {{script: ['sleep 1000']}}\n"));
    let of_job = of_job.in_one_order().expect_code(5);
    assert_eq!((of_job.state("work"), of_job.outcome()), ("timed_out", "timed_out"));
    assert!(of_job.text("clean").starts_with("timed_out"), "{:?}", of_job.local);
}

#[test]
fn what_runs_always_runs_after_a_cancel() {
    let project = Project::with_manifest(&format!(
        "image: {BUSYBOX}\nstages: [work, next, clean, oops]\nwork: {{script: ['echo up; sleep 1000']}}\n\
         next: {{script: ['true']}}\n{AFTERWARDS}"
    ));
    let (farm, home) = (Farm::new(), Home::new());
    let local = home.start(&["run", "--json", project.path().to_str().unwrap()]);
    let build = farm.submit(&project);
    let remote = farm.home.start(&["tail", "--json", &build]);
    local.line("up\\n");
    local.signal(Signal::INT);
    remote.line("up\\n");
    farm.home.call(&["cancel", &build]).expect_code(0);
    let both = Both::compared(&local.wait(), &remote.wait()).in_one_order().expect_code(3);
    assert_eq!(both.text("clean"), "canceled none\n");
    assert_eq!((both.state("work"), both.state("next")), ("canceled", "not_reached"));
    no_container_of(project.path());
}

#[test]
fn a_stages_timeout_ends_whatever_it_started_and_nothing_else() {
    for image in [BUSYBOX, crate::harness::DEBIAN] {
        let both = Both::of_manifest(&format!(
            "image: {image}\nstages: [before, slow, beside, after]\n\
             before: {{needs: [], script: ['sleep 888 &']}}\n\
             slow:\n  needs: [before]\n  timeout: 2s\n  script:\n\
             \x20   - exec > /dev/null 2>&1\n    - (setsid sleep 999 &)\n    - nohup sleep 999 &\n\
             \x20   - ((sleep 999 &) &)\n    - su nobody -s /bin/sh -c 'sleep 999' &\n    - env -i sleep 999\n\
             beside: {{needs: [before], script: ['sleep 3; echo still here']}}\n\
             after: {{when: always, script: ['for p in /proc/[0-9]*; do tr \"\\0\" \" \" < $p/cmdline; echo; done > /tmp/all 2>/dev/null || :', \
             'grep -c \"^sleep 999\" /tmp/all || :', 'grep -c \"^sleep 888\" /tmp/all']}}\n"
        ))
        .expect_code(5);
        assert_eq!(both.state("slow"), "timed_out", "{:?}", both.local);
        assert_eq!(both.text("beside"), "still here\n");
        assert_eq!(both.text("after"), "0\n1\n", "in {image}");
    }
}

#[test]
fn values_are_handed_on_and_win_and_lose_as_documented() {
    let both = story(
        "environment: {A: manifest, B: manifest}\n\
         stages: [first, second, third, fourth]\n\
         first: {script: ['for n in A B; do echo $n=first; done >> $BUILDR_ENV; echo \"C=a b=c\" >> $BUILDR_ENV']}\n\
         second: {environment: {B: own}, script: ['echo $A, $B, $C']}\n\
         third: {when: {var: {A: first}}, script: ['echo third']}\n\
         fourth: {when: {var: {A: manifest}}, script: ['echo never']}\n",
    )
    .in_one_order()
    .expect_code(0);
    assert_eq!(both.text("second"), "first, own, a b=c\n");
    assert_eq!(both.text("third"), "third\n");
    let why = both.local.end("fourth")["why"].as_str().unwrap();
    assert!(why.contains("first"), "{why}");
}

#[test]
fn a_variable_of_the_command_line_wins_over_what_is_handed_on() {
    let project = Project::with_manifest(&format!(
        "image: {BUSYBOX}\nstages: [first, second]\nfirst: {{script: ['echo A=first >> $BUILDR_ENV']}}\n\
         second: {{script: ['echo $A']}}\n"
    ));
    let farm = Farm::new();
    let local = Home::new().call(&["run", "--json", "--var", "A=var", project.path().to_str().unwrap()]);
    let build = farm.submit_with(&["--repo", &project.url(), "--var", "A=var"]);
    let remote = farm.home.call(&["tail", "--json", &build]);
    let both = Both::compared(&local, &remote).expect_code(0);
    assert_eq!(both.text("second"), "var\n");
}
