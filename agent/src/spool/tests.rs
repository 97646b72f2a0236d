use std::{fs::OpenOptions, io::Write, time::Duration};

use buildr_engine::job::{Item, Output};
use buildr_manifest::{Cause, Event, EventKind, Outcome, ServiceName, StageName, StageState, Usage};
use bytes::Bytes;
use jiff::Timestamp;

use super::*;

const LIMIT: u64 = 1 << 30;

struct Place {
    _root: tempfile::TempDir,
    spool: Spool,
    attempt: AttemptId,
}

fn place() -> Place {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path().join("spool"), LIMIT).unwrap();
    Place { _root: root, spool, attempt: AttemptId::new() }
}

fn stage(name: &str) -> StageName {
    StageName::new(name).unwrap()
}

fn event(kind: EventKind) -> Item {
    Item::Event(Event { at: Timestamp::UNIX_EPOCH, kind })
}

fn started(name: &str) -> Item {
    event(EventKind::StageStarted { stage: stage(name) })
}

fn finished(outcome: Outcome) -> Item {
    event(EventKind::JobFinished { outcome, duration: Duration::from_millis(1500), containers_removed: 1 })
}

fn output(name: &str, offset: u64, data: &[u8]) -> Item {
    let at = |n: i64| Timestamp::from_second(n).unwrap();
    let times = vec![(offset, at(offset as i64))];
    Item::Output(Output { log: stage(name).into(), offset, data: Bytes::copy_from_slice(data), times })
}

fn service_output(name: &str, offset: u64, data: &[u8]) -> Item {
    let log = ServiceName::new(name).unwrap().into();
    Item::Output(Output { log, offset, data: Bytes::copy_from_slice(data), times: Vec::new() })
}

fn outcome(writer: &Writer) -> Outcome {
    match writer.outbox().after(0, usize::MAX).pop().unwrap().kind {
        EventKind::JobFinished { outcome, .. } => outcome,
        other => panic!("the last event is {other:?}"),
    }
}

#[test]
fn what_was_written_is_there_in_another_process() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    let failed = Outcome::Failed {
        stage: stage("a/b".replace('/', " ").as_str()),
        step: Some(1),
        cause: Cause::Exit { code: 3 },
    };
    writer.write([
        event(EventKind::JobStarted),
        started("build"),
        output("build", 0, b"hello "),
        output("build", 6, b"world\n"),
        event(EventKind::StageFinished {
            stage: stage("build"),
            state: StageState::Failed { step: Some(1), cause: Cause::Signal { signal: 9 } },
            allowed: false,
            log_bytes: 12,
            duration: Duration::from_millis(20),
            usage: Usage { user_cpu: Duration::from_micros(7), ..Usage::default() },
        }),
        finished(failed),
    ]);
    writer.close(Outcome::Skipped);
    let (events, before) = (writer.outbox().after(0, 100), writer.progress().borrow().clone());
    drop(writer);

    let mut found = spool.leftovers().unwrap();
    let Found { attempt: id, writer: mut again, fence: _ } = found.pop().unwrap();
    again.close(Outcome::Skipped);
    assert_eq!(id, attempt);
    assert_eq!(again.outbox().after(0, 100), events);
    assert_eq!(*again.progress().borrow(), before);
    let log = LogReader::open(again.folder(), 0).unwrap();
    assert_eq!(log.read(4, 8).unwrap().data, "o world\n");
    assert_eq!(before.logs[0].crc, crc32c::crc32c(b"hello world\n"));
}

#[test]
fn a_service_has_a_log_of_its_own_and_is_no_stage_that_began() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    writer.write([service_output("db", 0, b"ready\n")]);
    assert!(!writer.has_begun());
    writer.write([started("db"), output("db", 0, b"a stage\n"), service_output("db", 6, b"more\n")]);
    assert!(writer.has_begun());
    drop(writer);

    let again = spool.leftovers().unwrap().pop().unwrap().writer;
    let logs = again.progress().borrow().logs.clone();
    let names: Vec<_> = logs.iter().map(|log| log.log.to_string()).collect();
    assert_eq!(names, ["services/db", "db"]);
    assert_eq!(logs[0].crc, crc32c::crc32c(b"ready\nmore\n"));
    assert_eq!(LogReader::open(again.folder(), 0).unwrap().read(0, 11).unwrap().data, "ready\nmore\n");
    assert_eq!(LogReader::open(again.folder(), 1).unwrap().read(0, 8).unwrap().data, "a stage\n");
}

#[test]
fn a_torn_last_line_is_cut_off_and_the_journal_goes_on() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    writer.write([event(EventKind::JobStarted), started("build")]);
    let journal = writer.folder().join("journal");
    drop(writer);
    let mut file = OpenOptions::new().append(true).open(&journal).unwrap();
    file.write_all(br#"{"record":"event","eve"#).unwrap();

    for _ in 0..2 {
        let mut again = spool.leftovers().unwrap().pop().unwrap().writer;
        again.close(Outcome::AgentLost { agent: "ant".into() });
        let kinds: Vec<_> = again.outbox().after(0, 100).into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds.len(), 4, "{kinds:?}");
        assert!(matches!(&kinds[2], EventKind::StageFinished { state: StageState::NotReached { .. }, .. }));
        assert_eq!(outcome(&again), Outcome::AgentLost { agent: "ant".into() });
    }
}

#[test]
fn time_marks_come_with_the_bytes_that_they_are_for() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    writer.write((0..100).map(|n| output("build", n * 10, &[b'x'; 10])));
    let log = LogReader::open(writer.folder(), 0).unwrap();
    let offsets = |from, length| -> Vec<u64> {
        log.read(from, length).unwrap().times.into_iter().map(|(offset, _)| offset).collect()
    };
    assert_eq!(offsets(0, 30), [0, 10, 20]);
    assert_eq!(offsets(15, 30), [20, 30, 40]);
    assert_eq!(offsets(0, 1000).len(), 100);
    assert_eq!(offsets(995, 5), [0u64; 0]);
    assert_eq!(log.read(500, 1).unwrap().times[0].1, Timestamp::from_second(500).unwrap());
}

#[test]
fn a_job_whose_log_was_not_kept_has_not_passed() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    writer.write([output("build", 0, b"abc"), output("build", 7, b"defg"), finished(Outcome::Passed)]);
    assert!(writer.fault().unwrap().contains("jumps from byte 3 to 7"));
    assert!(matches!(outcome(&writer), Outcome::Internal { .. }));
    let progress = writer.progress().borrow().clone();
    assert_eq!((progress.logs[0].written, progress.logs[0].length), (3, 7));
}

#[test]
fn a_cancel_stands_though_the_disk_was_full() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    let canceled = |by: &str| Outcome::Canceled { by: by.into() };
    writer.write([output("build", 9, b"x"), finished(canceled("ann"))]);
    assert_eq!(outcome(&writer), canceled("ann"));
    let mut writer = spool.begin(attempt).unwrap();
    writer.write([output("build", 9, b"x"), finished(canceled(DISK_FAULT))]);
    assert!(matches!(outcome(&writer), Outcome::Internal { .. }));
}

#[test]
fn a_log_beyond_the_limit_is_a_fault_and_takes_no_more_disk() {
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path().to_owned(), 10).unwrap();
    let mut writer = spool.begin(AttemptId::new()).unwrap();
    let data = vec![0; 5 << 20];
    writer.write([output("build", 0, &data), output("build", data.len() as u64, &data)]);
    assert!(writer.fault().is_some());
    let progress = writer.progress().borrow().clone();
    assert_eq!((progress.logs[0].written, progress.logs[0].length), (0, 10 << 20));
}

#[test]
fn a_hundred_megabytes_pass_through_byte_for_byte() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    let (chunk, count) = (vec![b'.'; 256 << 10], 400u64);
    let mut crc = 0;
    for n in 0..count {
        let mut data = chunk.clone();
        data[..8].copy_from_slice(&n.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &data);
        writer.write([output("build", n * chunk.len() as u64, &data)]);
    }
    let log = LogReader::open(writer.folder(), 0).unwrap();
    let read = (0..count).fold(0, |crc, n| {
        crc32c::crc32c_append(crc, &log.read(n * chunk.len() as u64, chunk.len()).unwrap().data)
    });
    assert_eq!((read, writer.progress().borrow().logs[0].crc), (crc, crc));
}

#[test]
fn ephemeral_events_are_left_out_while_nobody_takes_them() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    let pull = || event(EventKind::PullProgress { image: "a".into(), current: 1, total: 2 });
    writer.write((0..1000).map(|_| pull()));
    let kept = writer.progress().borrow().events;
    assert!(kept < 100, "{kept}");
    writer.outbox().set_acked(kept);
    writer.write([pull()]);
    assert_eq!(writer.progress().borrow().events, kept + 1);
}

#[test]
fn what_no_attempt_owns_is_swept_away() {
    let Place { spool, attempt, _root } = place();
    let other = AttemptId::new();
    spool.begin(attempt).unwrap();
    spool.begin(other).unwrap();
    assert_eq!(spool.sweep(|| HashSet::from([other])).unwrap(), 1);
    assert_eq!(spool.folders().unwrap().len(), 1);
    spool.remove(other).unwrap();
    spool.remove(other).unwrap();
    assert!(spool.folders().unwrap().is_empty());
}

#[test]
fn a_folder_without_a_journal_is_dropped() {
    let Place { spool, attempt, _root } = place();
    fs::create_dir(spool.folder(attempt)).unwrap();
    assert!(spool.leftovers().unwrap().is_empty());
    assert!(!spool.folder(attempt).exists());
}

#[test]
fn a_spool_goes_on_where_it_was_cut_off() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    let at = |micros| Timestamp::from_microsecond(micros).unwrap();
    let marked = |offset, data: &'static [u8], times| {
        let (log, data) = (stage("build").into(), Bytes::from_static(data));
        Item::Output(Output { log, offset, data, times })
    };
    let pull = event(EventKind::PullProgress { image: "a".into(), current: 1, total: 2 });
    writer.write([
        event(EventKind::JobStarted),
        pull,
        started("build"),
        marked(0, b"0123", vec![(0, at(1))]),
    ]);
    let folder = writer.folder().to_owned();
    drop(writer);
    // Marks of bytes that were never written, the last one torn.
    let mut times = OpenOptions::new().append(true).open(folder.join("0.times")).unwrap();
    times.write_all(&[4_u64.to_le_bytes(), 9_u64.to_le_bytes(), 7_u64.to_le_bytes()].concat()).unwrap();

    let mut again = spool.leftovers().unwrap().pop().unwrap().writer;
    let heard = again.heard();
    assert_eq!((heard.events, heard.logs), (2, [(stage("build").into(), 4)].into()));
    again.write([marked(4, b"45", vec![(4, at(20))]), finished(Outcome::Passed)]);
    assert_eq!(again.fault(), None);
    let piece = LogReader::open(&folder, 0).unwrap().read(0, 6).unwrap();
    assert_eq!((&piece.data[..], piece.times), (&b"012345"[..], vec![(0, at(1)), (4, at(20))]));
    assert_eq!(again.progress().borrow().logs[0].crc, crc32c::crc32c(b"012345"));
}

#[test]
fn a_log_whose_file_was_never_made_begins_with_what_follows() {
    let Place { spool, attempt, _root } = place();
    let mut writer = spool.begin(attempt).unwrap();
    writer.write([event(EventKind::JobStarted), started("build")]);
    for file in ["0.log", "0.times"] {
        fs::remove_file(writer.folder().join(file)).unwrap();
    }
    drop(writer);
    let mut again = spool.leftovers().unwrap().pop().unwrap().writer;
    again.write([output("build", 0, b"x")]);
    assert_eq!(again.fault(), None);
    assert_eq!(LogReader::open(again.folder(), 0).unwrap().read(0, 1).unwrap().data, "x");
}

#[test]
fn a_fence_is_kept_with_its_attempt() {
    let Place { spool, attempt, _root } = place();
    spool.begin(attempt).unwrap();
    let fence = |answered| Fence { after: Duration::from_secs(50), answered, boot: "b".into() };
    spool.keep_fence(attempt, &fence(Duration::from_secs(1))).unwrap();
    spool.keep_fence(attempt, &fence(Duration::from_secs(2))).unwrap();
    assert_eq!(spool.leftovers().unwrap()[0].fence, Some(fence(Duration::from_secs(2))));
    fs::write(spool.folder(attempt).join("fence"), "{").unwrap();
    assert!(spool.leftovers().unwrap().is_empty(), "nobody knows when it has to end");
}
