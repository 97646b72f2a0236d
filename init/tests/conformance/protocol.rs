//! The line between the engine and init: what is lost, torn, repeated.

use std::time::{Duration, Instant};

use buildr_init::wire::{EndCause, Heard, MAX_LINE, Order, Report, Settings, StageSpec, TimeRecord, VERSION};

use crate::container::{BUSYBOX, Container, settings, stage};

#[test]
fn a_number_that_was_seen_is_acknowledged_again_and_not_run_again() {
    let mut container = Container::new(BUSYBOX);
    let spec = stage(&["echo x >> /tmp/runs"]);
    for _ in 0..3 {
        container.send(1, Order::Start(spec.clone()));
        container.until(|report| matches!(report, Report::Ack { seq: 1, .. }).then_some(()));
    }
    container.send(2, Order::Start(spec));
    container.until(|report| matches!(report, Report::Ack { seq: 2, .. }).then_some(()));
    container.done(0);
    let mut again = stage(&["wc -l < /tmp/runs"]);
    again.stage = 5;
    container.send(3, Order::Start(again));
    assert_eq!(container.done(5).text().trim(), "1");
}

#[test]
fn a_number_that_was_lost_can_be_sent_after_later_ones() {
    let mut container = Container::new(BUSYBOX);
    let mut late = stage(&["echo late"]);
    late.stage = 7;
    container.send(2, Order::Query);
    container.send(1, Order::Start(late));
    assert_eq!(container.done(7).text(), "late\n");
}

#[test]
fn an_engine_that_takes_over_counts_anew_and_what_the_first_sent_late_does_no_harm() {
    let mut container = Container::new(BUSYBOX);
    let begin = |number: u32, script: &str| Order::Start(StageSpec { stage: number, ..stage(&[script]) });
    container.send_as(1, 1, begin(0, "echo x >> /tmp/runs"));
    container.send_as(2, 1, begin(1, "echo second"));
    container.send_as(1, 1, begin(0, "echo x >> /tmp/runs"));
    container.send_as(1, 2, begin(1, "echo late"));
    assert_eq!(container.done(1).text(), "second\n");
    container.send_as(2, 2, begin(2, "wc -l < /tmp/runs"));
    assert_eq!(container.done(2).text().trim(), "1");
}

#[test]
fn torn_oversize_and_foreign_lines_are_dropped() {
    let mut container = Container::new(BUSYBOX);
    container.write(b"{\"session\":1,\"seq\":1,\"order\":\"exi\n");
    container.write(b"\n\xff\xfe\0\nnull\n[]\n{\"session\":1,\"seq\":1,\"order\":\"dance\"}\n");
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..=(MAX_LINE >> 20) {
        container.write(&piece);
    }
    container.write(b"\n");
    assert_eq!(container.check(&["echo a"]), "a\n");
}

#[test]
fn a_query_tells_of_every_stage() {
    let mut container = Container::new(BUSYBOX);
    container.check(&["echo a", "echo b"]);
    container.run(stage(&["exit 3"]));
    container.send(0, Order::Query);
    let (version, sessions, stages) = container.until(|report| match report {
        Report::State { version, sessions, stages } => Some((version, sessions, stages)),
        _ => None,
    });
    assert_eq!((version, stages.len()), (VERSION, 2));
    assert_eq!(sessions, [Heard { session: 1, up_to: 2 }]);
    assert_eq!((stages[0].log_bytes, stages[0].steps.as_slice()), (4, &[0, 2][..]));
    assert_eq!(stages[1].end.as_ref().map(|end| &end.cause), Some(&EndCause::Exit(3)));
}

#[test]
fn a_hundred_stages_follow_each_other_quickly() {
    let mut container = Container::new(BUSYBOX);
    let begin = Instant::now();
    for number in 0..100 {
        assert_eq!(container.check(&[&format!("echo {number}")]), format!("{number}\n"));
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn an_engine_that_reads_nothing_holds_nothing_up() {
    let mut container = Container::new(BUSYBOX);
    let before = container.begin(stage(&["i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done"]));
    for _ in 0..2000 {
        container.send(0, Order::Query);
    }
    assert_eq!(container.done(before).end.cause, EndCause::Exit(0));
    assert_eq!(container.check(&["echo a"]), "a\n");
}

#[test]
fn the_end_of_input_is_nothing_to_a_container_that_outlives_its_agent() {
    let lasting = Settings { exit_on_eof: false, ..settings() };
    let mut container = Container::start(BUSYBOX, &lasting, &[]);
    let number =
        container.begin(stage(&["echo ready; until [ -f /buildr/go ]; do sleep 0.05; done; echo went"]));
    container.printed(number, "ready");
    container.hang_up();
    std::fs::write(container.folder.path().join("go"), "").unwrap();
    assert_eq!(container.done(number).text(), "ready\nwent\n");
}

#[test]
fn the_index_of_times_ascends_and_begins_with_the_first_byte() {
    let mut container = Container::new(BUSYBOX);
    container.check(&["for i in 1 2 3 4; do echo $i; sleep 0.03; done"]);
    let bytes = std::fs::read(container.folder.path().join("0.times")).unwrap();
    let (records, rest) = bytes.as_chunks::<{ TimeRecord::SIZE }>();
    let records: Vec<TimeRecord> = records.iter().map(|record| TimeRecord::from_bytes(*record)).collect();
    assert!(rest.is_empty());
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [0, 2, 4, 6]);
    assert!(records.is_sorted_by_key(|record| record.unix_nanos));
}
