//! How stages and containers end, by their own doing and by order.

use std::time::{Duration, Instant};

use buildr_init::wire::{EndCause, Order, Report, Settings, StageSpec};

use crate::container::{BUSYBOX, Container, settings, stage};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(50);

/// The processes that are named `sleep`, with their arguments.
pub(crate) const SLEEPERS: &str =
    "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep '^sleep' || :; done";

#[test]
fn a_stage_that_cannot_start_says_why() {
    let mut container = Container::new(BUSYBOX);
    let ok = stage(&["true"]);
    let shell = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for (spec, named, missing) in [
        (StageSpec { shell: shell(&["/no/sh"]), ..ok.clone() }, "/no/sh", true),
        (StageSpec { shell: shell(&["nosuch"]), ..ok.clone() }, "nosuch", true),
        (StageSpec { shell: shell(&["/etc/passwd"]), ..ok.clone() }, "/etc/passwd", false),
        (StageSpec { shell: Vec::new(), ..ok.clone() }, "shell", false),
        (StageSpec { user: "ghost".into(), ..ok.clone() }, "ghost", false),
        (StageSpec { user: "dev:ghosts".into(), ..ok.clone() }, "ghosts", false),
        (StageSpec { workdir: "/no/where".into(), ..ok.clone() }, "/no/where", false),
    ] {
        let done = container.run(spec);
        match &done.end.cause {
            EndCause::CannotStart { reason, no_shell } => {
                assert!(reason.contains(named), "{reason}");
                assert_eq!(*no_shell, missing, "{reason}");
            }
            other => panic!("{named}: {other:?}"),
        }
    }
    assert_eq!(container.run(ok).end.cause, EndCause::Exit(0));
}

#[test]
fn a_stage_that_prints_without_end_is_ended_at_its_limit() {
    let mut container = Container::new(BUSYBOX);
    for script in ["yes", "yes & wait", "trap '' TERM; while :; do echo no; done"] {
        let done = container.run(StageSpec { log_limit: 100_001, ..stage(&[script]) });
        assert_eq!(done.end.cause, EndCause::LogLimit);
        assert_eq!((done.log.len(), done.end.stopped), (100_001, false));
    }
    let exact = container.run(StageSpec { log_limit: 5, ..stage(&["printf 12345"]) });
    assert_eq!(exact.end.cause, EndCause::Exit(0));
    assert_eq!(container.check(&["ps | grep -c '[y]es' || :"]), "0\n");
}

#[test]
fn a_full_disk_is_said_and_is_no_success() {
    let mut container =
        Container::start_with(BUSYBOX, &settings(), &["--tmpfs", "/small:size=256k,mode=755"], "/small");
    let stage = container.begin(stage(&["head -c 1000000 /dev/zero"]));
    let end = container.until(|report| match report {
        Report::Stage(status) if status.stage == stage => status.end,
        _ => None,
    });
    assert!(matches!(end.cause, EndCause::LogFailed { .. }), "{end:?}");
}

#[test]
fn what_a_stage_left_running_lives_on_and_does_not_block() {
    let mut container = Container::new(BUSYBOX);
    let script = "(while :; do echo noise; done) & sleep 601 & echo $! > /tmp/server";
    container.check(&[script]);
    assert_eq!(container.check(&["kill -0 $(cat /tmp/server)", "echo there"]), "there\n");
    // It still prints, a pipe's worth after another.
    container.check(&["kill -0 $(cat /tmp/server)"]);
}

#[test]
fn stop_reaches_whatever_tried_to_get_away() {
    let mut container = Container::new(BUSYBOX);
    container.check(&["sleep 700 &"]);
    let stage_number = container.begin(stage(&[
        "setsid sleep 701 &",
        "(sh -c '(sleep 702 &) &') &",
        "nohup sleep 703 > /dev/null 2>&1 &",
        "env -i setsid sh -c 'trap \"\" TERM HUP INT; sleep 704; sleep 705; sleep 706' &",
        "su -s /bin/sh dev -c 'setsid sleep 707' &",
        "sh -c 'kill -STOP $$' &",
        "trap 'echo caught' TERM",
        "echo ready; sleep 708; sleep 709; sleep 710",
    ]));
    container.printed(stage_number, "ready");
    container.stop(stage_number, SHORT);
    let done = container.done(stage_number);
    assert!(done.end.stopped);
    assert!(done.text().contains("caught"), "{}", done.text());
    assert_eq!(container.check(&[SLEEPERS]), "sleep 700 \n");
}

#[test]
fn stop_wins_against_a_stage_that_keeps_forking() {
    let mut container = Container::start(BUSYBOX, &settings(), &["--pids-limit", "120"]);
    let script = "trap '' TERM; spawn() { while :; do setsid sleep 720 & sleep 0.01; done; }; \
                  spawn 2>/dev/null & spawn 2>/dev/null & echo ready; wait";
    let number = container.begin(stage(&[script]));
    container.printed(number, "ready");
    container.stop(number, SHORT);
    assert!(container.done(number).end.stopped);
    assert_eq!(container.check(&[SLEEPERS]), "");
}

#[test]
fn stop_is_soft_at_first() {
    let mut container = Container::new(BUSYBOX);
    let number =
        container.begin(stage(&["trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 1; done"]));
    container.printed(number, "ready");
    let begin = Instant::now();
    container.stop(number, LONG);
    let done = container.done(number);
    assert!(begin.elapsed() < LONG / 2);
    assert_eq!((done.end.cause.clone(), done.end.stopped), (EndCause::Exit(3), true));
    // The shell may have a word to say of the child that was ended first.
    assert!(done.text().ends_with("bye\n"), "{}", done.text());
}

#[test]
fn a_stop_that_comes_right_after_the_start_is_soft_too() {
    let mut container = Container::new(BUSYBOX);
    let begin = Instant::now();
    let number = container.begin(stage(&["sleep 900"]));
    container.stop(number, LONG);
    assert!(container.done(number).end.stopped);
    assert!(begin.elapsed() < LONG / 2);
}

#[test]
fn a_second_stop_can_shorten_the_grace() {
    let mut container = Container::new(BUSYBOX);
    let number = container.begin(stage(&["trap '' TERM; echo ready; while :; do sleep 1; done"]));
    container.printed(number, "ready");
    container.stop(number, LONG);
    let begin = Instant::now();
    container.stop(number, Duration::ZERO);
    assert_eq!(container.done(number).end.cause, EndCause::Signal(9));
    assert!(begin.elapsed() < LONG / 2);
}

#[test]
fn a_stage_whose_supervisor_was_killed_can_be_stopped() {
    let mut container = Container::new(BUSYBOX);
    let number = container.begin(stage(&["kill -9 -1", "(setsid sleep 711 &)", "echo ready; sleep 712"]));
    container.printed(number, "ready");
    container.stop(number, SHORT);
    assert!(container.done(number).end.stopped);
    assert_eq!(container.check(&[SLEEPERS]), "");
}

#[test]
fn a_child_that_kills_everything_ends_the_stage_with_it() {
    let mut container = Container::new(BUSYBOX);
    let done = container.run(stage(&["sh -c 'kill -9 -1'; echo no"]));
    assert_eq!(done.end.cause, EndCause::Signal(9), "{}", done.text());
    assert_eq!(container.check(&["echo a"]), "a\n");
}

#[test]
fn stages_run_side_by_side_and_one_is_stopped() {
    let mut container = Container::new(BUSYBOX);
    let first = container.begin(stage(&["echo ready; sleep 800"]));
    let second = container.begin(stage(&["until [ -f /tmp/go ]; do sleep 0.05; done; echo went"]));
    container.printed(first, "ready");
    container.stop(first, SHORT);
    assert!(container.done(first).end.stopped);
    container.check(&["touch /tmp/go"]);
    let done = container.done(second);
    assert_eq!((done.end.cause.clone(), done.text().as_str()), (EndCause::Exit(0), "went\n"));
    assert!(!done.end.stopped);
}

#[test]
fn a_stage_that_has_ended_is_left_alone_by_stop() {
    let mut container = Container::new(BUSYBOX);
    container.check(&["sleep 801 &"]);
    container.stop(0, Duration::ZERO);
    assert_eq!(container.check(&[SLEEPERS]), "sleep 801 \n");
}

#[test]
fn the_container_ends_with_standard_input_where_it_should() {
    let mut container = Container::new(BUSYBOX);
    let number = container.begin(stage(&["trap '' TERM INT HUP; echo ready; setsid sleep 900; sleep 900"]));
    container.printed(number, "ready");
    let begin = Instant::now();
    container.hang_up();
    assert_eq!(container.exit_code(), Some(0));
    assert!(begin.elapsed() < LONG / 2);
}

#[test]
fn exit_ends_everything_and_reports_it() {
    let mut container = Container::new(BUSYBOX);
    let number = container.begin(stage(&["trap '' TERM; echo ready; sleep 900; sleep 901"]));
    container.printed(number, "ready");
    container.order(Order::Exit);
    let done = container.done(number);
    assert!(done.end.stopped);
    assert_eq!(container.exit_code(), Some(0));
}

#[test]
fn a_dead_mans_time_ends_the_container_and_a_sign_of_life_puts_it_off() {
    let time = Duration::from_secs(3);
    let dead_man = Settings { exit_on_eof: false, dead_man: Some(time), hand_back: None };
    let mut container = Container::start(BUSYBOX, &dead_man, &[]);
    let begin = Instant::now();
    let number = container.begin(stage(&["sleep 2; echo ready; sleep 900"]));
    container.printed(number, "ready");
    container.send(0, Order::Query);
    container.until(|report| matches!(report, Report::State { .. }).then_some(()));
    assert_eq!(container.exit_code(), Some(0));
    assert!(begin.elapsed() >= time + Duration::from_millis(1500), "{:?}", begin.elapsed());
}

#[test]
fn without_a_script_the_program_runs_as_it_is() {
    let mut container = Container::new(BUSYBOX);
    let program = ["printf", "%s|", "a b", "$HOME", ""].map(str::to_owned).to_vec();
    let done = container.run(StageSpec { shell: program, ..stage(&[]) });
    assert_eq!((done.log.as_slice(), &done.end.cause), (&b"a b|$HOME||"[..], &EndCause::Exit(0)));
}
