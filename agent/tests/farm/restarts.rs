//! What a process left behind, the next one of the same agent delivers.

use std::{fs, time::Duration};

use buildr_agent::spool::Spool;
use buildr_engine::job::{Item, Output};
use buildr_manifest::{Event, EventKind, Outcome};
use buildr_proto::{AttemptId, pb::AttemptPhase};
use bytes::Bytes;
use jiff::Timestamp;

use crate::{harness::Farm, jobs::told, orchestrator::Attempt, runner::stage};

/// The spool of a process that died, with or without the job's end.
fn leave(farm: &Farm, outcome: Option<Outcome>) -> AttemptId {
    let id = AttemptId::new();
    let mut writer = Spool::open(farm.spool(), 1 << 30).unwrap().begin(id).unwrap();
    let event = |kind| Item::Event(Event { at: Timestamp::now(), kind });
    let data = Bytes::from_static(b"0123456789");
    writer.write([
        event(EventKind::JobStarted),
        event(EventKind::StageStarted { stage: stage("build") }),
        Item::Output(Output { log: stage("build").into(), offset: 0, data, times: Vec::new() }),
    ]);
    let end = |outcome| EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 0 };
    writer.write(outcome.map(|outcome| event(end(outcome))));
    id
}

fn known(farm: &Farm, id: AttemptId, log: &[u8]) {
    let mut attempt = Attempt { instance: "an earlier one".into(), ..Attempt::default() };
    attempt.logs.insert("build".into(), log.to_vec());
    farm.orchestrator.set(|facts| drop(facts.attempts.insert(id.to_string(), attempt)));
}

#[tokio::test]
async fn a_finished_job_is_delivered_by_the_next_process() {
    let farm = Farm::new().await;
    let id = leave(&farm, Some(Outcome::Passed));
    known(&farm, id, b"0123");
    let mut agent = farm.join().await;
    let attempt = farm.orchestrator.until_finished(&id.to_string()).await;
    assert_eq!((told(&attempt).0.len(), told(&attempt).1), (3, Outcome::Passed));
    assert_eq!(attempt.logs["build"], b"0123456789");
    assert_eq!(attempt.last.unwrap().logs[0].crc32c, crc32c::crc32c(b"0123456789"));
    let facts = farm.orchestrator.until("", |_| true).await;
    let held = &facts.hellos[0].held[0];
    assert_eq!((held.attempt.clone(), held.phase()), (id.to_string(), AttemptPhase::Reporting));
    agent.until("all is freed", |load| load.held == 0).await;
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_job_that_was_cut_off_ends_as_lost_with_its_log() {
    let farm = Farm::new().await;
    let id = leave(&farm, None);
    known(&farm, id, b"");
    let _agent = farm.join().await;
    let attempt = farm.orchestrator.until_finished(&id.to_string()).await;
    let (events, outcome) = told(&attempt);
    assert!(matches!(&events[2], EventKind::StageFinished { log_bytes: 10, .. }));
    assert_eq!(outcome, Outcome::AgentLost { agent: "test".into() });
    assert_eq!(attempt.logs["build"], b"0123456789");
}

#[tokio::test]
async fn a_job_that_was_cut_off_before_its_first_stage_is_not_claimed() {
    let farm = Farm::new().await;
    let mut writer = Spool::open(farm.spool(), 1 << 30).unwrap().begin(AttemptId::new()).unwrap();
    writer.write([Item::Event(Event { at: Timestamp::now(), kind: EventKind::JobStarted })]);
    drop(writer);
    let _agent = farm.join().await;
    let facts = farm.orchestrator.until("a hello", |facts| !facts.hellos.is_empty()).await;
    assert!(facts.hellos[0].held.is_empty(), "the orchestrator queues it again");
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_the_orchestrator_does_not_want_any_more_is_deleted() {
    let farm = Farm::new().await;
    leave(&farm, Some(Outcome::Passed));
    let mut agent = farm.join().await;
    agent.until("the attempt is gone", |load| load.held == 0).await;
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_left_takes_no_slot() {
    let farm = Farm::new().await;
    farm.orchestrator.set(|facts| facts.hold_logs = true);
    let id = leave(&farm, Some(Outcome::Passed));
    known(&farm, id, b"");
    let mut agent = farm.join().await;
    let next = farm.orchestrator.offer();
    let job = agent.job().await;
    assert_eq!(job.request.run.as_str(), next);
}
