//! Builds that turn on what carries them: they are ended all the same, and exactly.

use std::{
    fs,
    time::{Duration, Instant},
};

use buildr_init::wire::{EndCause, Report};

use crate::{
    container::{BUSYBOX, Container, DEBIAN, settings, stage},
    endings::SLEEPERS,
};

const SHORT: Duration = Duration::from_millis(300);

/// Kills every supervisor, one's own last.
const KILL_SUPERVISORS: &str = "for p in /proc/[0-9]*; do \
    if [ \"$(cat $p/comm 2>/dev/null)\" = buildr-stage ]; then kill -9 ${p#/proc/}; fi; done";

#[test]
fn a_stage_is_ended_exactly_where_a_build_has_killed_every_supervisor() {
    let mut container = Container::new(BUSYBOX);
    let wait = |name: &str| format!("until [ -f /tmp/{name} ]; do sleep 0.05; done");
    let victim = container.begin(stage(&[
        "setsid sleep 701 & echo ready",
        &wait("killed"),
        "(setsid sleep 702 &)",
        "(sh -c '(trap \"\" HUP; setsid sleep 703 >/dev/null 2>&1 &) &') &",
        "(su -s /bin/sh dev -c 'setsid env -i PATH=/bin sh -c \"sleep 704; sleep 705\"' &)",
        "echo away; sleep 706",
    ]));
    let other = container.begin(stage(&[
        "setsid sleep 801 & echo ready",
        &wait("killed"),
        "(setsid sleep 802 &)",
        "(su -s /bin/sh dev -c 'setsid env -i PATH=/bin sleep 803' &)",
        "echo away",
        &wait("go"),
        "echo went",
    ]));
    container.printed(victim, "ready");
    container.printed(other, "ready");
    container.check(&[KILL_SUPERVISORS, "touch /tmp/killed"]);
    container.printed(victim, "away");
    container.printed(other, "away");
    // Whoever got away takes a moment to be a sleeper.
    let all = ["701", "702", "703", "704", "706", "801", "802", "803"];
    let mut begun = String::new();
    for _ in 0..100 {
        begun = container.check(&[SLEEPERS, "sleep 0.1"]);
        if all.iter().all(|sleeper| begun.contains(sleeper)) {
            break;
        }
    }
    assert!(all.iter().all(|sleeper| begun.contains(sleeper)), "{begun}");
    container.stop(victim, SHORT);
    assert!(container.done(victim).end.stopped);
    let left = container.check(&[SLEEPERS]);
    for sleeper in ["sleep 801", "sleep 802", "sleep 803"] {
        assert!(left.contains(sleeper), "{sleeper} in {left}");
    }
    assert!(!left.contains("sleep 70"), "{left}");
    container.check(&["touch /tmp/go"]);
    let done = container.done(other);
    assert_eq!((done.end.cause.clone(), done.end.stopped), (EndCause::Exit(0), false), "{}", done.text());
}

#[test]
fn a_stage_is_ended_with_what_a_subreaper_of_its_own_took_in() {
    let mut container = Container::new(DEBIAN);
    let program = "#include <sys/prctl.h>\n#include <unistd.h>\n\
        int main(void) { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); setsid();\n\
        if (!fork()) { if (!fork()) { setsid(); execlp(\"sleep\", \"sleep\", \"711\", (char *)0); } _exit(0); }\n\
        execlp(\"sleep\", \"sleep\", \"712\", (char *)0); }\n";
    container.check(&[&format!("cat > /tmp/r.c <<'END'\n{program}END\ngcc -o /tmp/reaper /tmp/r.c")]);
    let number = container.begin(stage(&[
        "/tmp/reaper &",
        "(setsid /tmp/reaper &)",
        "sleep 0.2; echo ready; sleep 713",
    ]));
    let other = container.begin(stage(&["until [ -f /tmp/go ]; do sleep 0.05; done"]));
    container.printed(number, "ready");
    container.stop(number, SHORT);
    assert!(container.done(number).end.stopped);
    let left = container.check(&[SLEEPERS, "touch /tmp/go"]);
    assert!(!left.contains("sleep 71"), "{left}");
    assert_eq!(container.done(other).end.cause, EndCause::Exit(0));
}

#[test]
fn a_fork_bomb_is_ended_and_the_container_is_of_use_again() {
    let mut container = Container::start(BUSYBOX, &settings(), &["--pids-limit", "2000"]);
    for bomb in [
        "bomb() { bomb 2>/dev/null | bomb 2>/dev/null & }; bomb; echo ready; sleep 900",
        "trap '' TERM; bomb() { while :; do setsid sh -c 'sleep 901' & done; }; bomb 2>/dev/null & bomb 2>/dev/null & echo ready; wait",
    ] {
        let number = container.begin(stage(&[bomb]));
        container.printed(number, "ready");
        let begin = Instant::now();
        container.stop(number, SHORT);
        assert!(container.done(number).end.stopped);
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
        assert_eq!(container.check(&[SLEEPERS, "echo alive"]), "alive\n");
    }
}

#[test]
fn thousands_of_processes_in_one_group_end_within_seconds() {
    let mut container = Container::new(BUSYBOX);
    let many = "trap '' TERM; i=0; while [ $i -lt 2000 ]; do sleep 902 & i=$((i+1)); done; echo ready; wait";
    let number = container.begin(stage(&[many]));
    container.printed(number, "ready");
    let begin = Instant::now();
    container.stop(number, SHORT);
    assert!(container.done(number).end.stopped);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(container.check(&[SLEEPERS]), "");
}

#[test]
fn control_files_that_are_swapped_all_the_time_end_no_more_than_their_stages() {
    let mut container = Container::new(BUSYBOX);
    let folder = container.folder.path().to_owned();
    fs::write(folder.join("victim"), "untouched").unwrap();
    let swap = "for n in 1 2 3 4 5 6 7 8; do for kind in log times env sh step go; do f=/buildr/$n.$kind; \
        rm -rf $f; case $(( (n + i) % 5 )) in 0) ln -s victim $f;; 1) mkdir $f;; 2) mkfifo $f;; \
        3) truncate -s 10G $f;; esac; done; done; i=$((i+1))";
    container.check(&[&format!("(i=0; while [ ! -f /tmp/enough ]; do {swap}; done) >/dev/null 2>&1 &")]);
    for _ in 1..=8 {
        let number = container.begin(stage(&["echo a", "echo b", "sleep 0.1", "echo c"]));
        // A stage whose mark went to a FIFO of the build's own waits there; a stop ends it.
        container.stop(number, SHORT);
        container.until(|report| match report {
            Report::Stage(status) if status.stage == number => status.end,
            _ => None,
        });
    }
    container.check(&["touch /tmp/enough"]);
    assert_eq!(fs::read_to_string(folder.join("victim")).unwrap(), "untouched");
}

#[test]
fn a_control_directory_that_is_gone_or_covered_ends_only_what_needs_it() {
    let options = ["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"];
    let mut container = Container::start(BUSYBOX, &settings(), &options);
    container.check(&["rm -rf /buildr/* 2>/dev/null || :", "echo a"]);
    assert_eq!(container.check(&["echo b"]), "b\n");
    let covered = container.run(stage(&["mount -t tmpfs none /buildr", "echo c"]));
    assert_eq!((covered.end.cause.clone(), covered.text().as_str()), (EndCause::Exit(0), "c\n"));
    let after = container.run(stage(&["echo d"]));
    assert_ne!(after.end.cause, EndCause::Exit(0), "{}", after.text());
}

#[test]
fn everything_stopped_is_ended_all_the_same() {
    let mut container = Container::new(BUSYBOX);
    let number =
        container.begin(stage(&["setsid sleep 721 & sleep 722 & echo ready; kill -STOP -1; kill -STOP $$"]));
    container.printed(number, "ready");
    container.stop(number, SHORT);
    assert!(container.done(number).end.stopped);
    assert_eq!(container.check(&[SLEEPERS]), "");
}

#[test]
fn output_without_an_end_of_line_is_kept_whole() {
    let mut container = Container::new(BUSYBOX);
    let done = container.run(stage(&["head -c 100000000 /dev/zero"]));
    assert_eq!((done.end.cause, done.log.len()), (EndCause::Exit(0), 100_000_000));
}
