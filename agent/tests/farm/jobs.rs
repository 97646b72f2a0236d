//! Jobs from offer to final report, without any trouble on the wire.

use std::fs;

use buildr_manifest::{EventKind, Outcome};
use buildr_proto::pb::{
    self, accept_attempt_response::Decision as Accept, desired::State, report_plan_response::Decision as Plan,
};

use crate::{harness::Farm, orchestrator::Attempt};

/// The names of an attempt's events, and how it ended.
pub(crate) fn told(attempt: &Attempt) -> (Vec<EventKind>, Outcome) {
    let events: Vec<buildr_manifest::Event> =
        attempt.events.iter().cloned().map(|event| event.try_into().unwrap()).collect();
    let kinds: Vec<_> = events.into_iter().map(|event| event.kind).collect();
    let outcome = match kinds.last() {
        Some(EventKind::JobFinished { outcome, .. }) => outcome.clone(),
        other => panic!("the last event is {other:?}"),
    };
    (kinds, outcome)
}

#[tokio::test]
async fn an_offer_becomes_events_logs_and_a_final_report() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    assert_eq!(job.request.run.as_str(), id);
    assert_eq!(job.request.identity.job.as_deref(), Some("42.1"));
    assert_eq!(job.request.identity.agent.as_deref(), Some("test"));
    assert_eq!(job.request.process_environment["HTTP_PROXY"], "p");
    assert_eq!(job.request.timeout, Some(std::time::Duration::from_secs(60)));
    job.pass(b"hello\n").await;

    let attempt = farm.orchestrator.until_finished(&id).await;
    let (events, outcome) = told(&attempt);
    assert_eq!((events.len(), outcome, attempt.plans), (5, Outcome::Passed, 1));
    assert_eq!(attempt.logs["build"], b"hello\n");
    assert_eq!(attempt.times, 1);
    let summary =
        pb::LogSummary { log: "build".into(), length: 6, crc32c: crc32c::crc32c(b"hello\n"), missing: 0 };
    assert_eq!(attempt.last.unwrap().logs, [summary]);
    agent.until("all is freed", |load| load.held == 0 && load.busy == 0).await;
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_agent_says_who_it_is_and_beats() {
    let farm = Farm::new().await;
    let _agent = farm.join().await;
    let facts = farm.orchestrator.until("two heartbeats", |facts| facts.heartbeats.len() >= 2).await;
    let hello = &facts.hellos[0];
    assert_eq!((hello.name.as_str(), hello.slots, hello.labels["gpu"].as_str()), ("test", 1, "true"));
    assert_eq!(hello.protocol, Some(pb::ProtocolRange { min: 1, max: 1 }));
    assert_eq!(facts.heartbeats.iter().map(|beat| beat.seq).take(2).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn what_runs_is_named_in_heartbeats() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    job.write("build", &b"12345"[..]).await;
    let named = |held: &pb::HeldAttempt| {
        held.attempt == id
            && held.phase() == pb::AttemptPhase::Running
            && held.logs.iter().any(|log| log.log == "build" && log.offset == 5)
    };
    farm.orchestrator
        .until("a heartbeat with the attempt", |facts| {
            facts.heartbeats.iter().any(|beat| beat.held.iter().any(named))
        })
        .await;
}

#[tokio::test]
async fn a_line_is_delivered_while_the_stage_runs() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    for line in ["one\n", "two\n", "three\n"] {
        job.write("build", line).await;
        farm.orchestrator
            .until(line, |facts| {
                facts.attempts[&id].logs.get("build").is_some_and(|log| log.ends_with(line.as_bytes()))
            })
            .await;
    }
}

#[tokio::test]
async fn the_final_report_waits_for_the_last_ack() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.break_logs_after = Some(2));
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    job.write("build", vec![b'x'; 256 << 10]).await;
    job.write("build", vec![b'y'; 100 << 10]).await;
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(attempt.logged_at_end, 356 << 10);
    assert_eq!(attempt.last.unwrap().logs[0].missing, 0);
}

#[tokio::test]
async fn logs_that_are_never_taken_are_reported_as_missing() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.hold_logs = true);
    let id = farm.orchestrator.offer();
    agent.job().await.pass(b"hello\n").await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    let last = attempt.last.unwrap();
    assert_eq!((last.logs[0].length, last.logs[0].missing), (6, 6));
}

#[tokio::test]
async fn an_offer_beyond_the_slots_is_declined_and_the_slot_is_free_for_the_next() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let first = farm.orchestrator.offer();
    let job = agent.job().await;
    let second = farm.orchestrator.offer();
    let facts = farm.orchestrator.until("a decline", |facts| facts.declined.contains_key(&second)).await;
    assert!(facts.declined[&second].contains("busy"), "{}", facts.declined[&second]);
    job.pass(b"").await;
    farm.orchestrator.until_finished(&first).await;
    // The orchestrator knows that the job is over: from here on the slot must be free.
    let third = farm.orchestrator.offer();
    agent.job().await.pass(b"").await;
    farm.orchestrator.until_finished(&third).await;
}

#[tokio::test]
async fn an_offer_is_taken_once() {
    let mut farm = Farm::new().await;
    farm.slots = 4;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    farm.orchestrator.offer_again(&id);
    let job = agent.job().await;
    assert_eq!(agent.load.borrow().busy, 1);
    job.pass(b"").await;
    farm.orchestrator.until_finished(&id).await;
}

#[tokio::test]
async fn a_full_disk_declines() {
    let mut farm = Farm::new().await;
    farm.min_free = u64::MAX;
    let _agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let facts = farm.orchestrator.until("a decline", |facts| facts.declined.contains_key(&id)).await;
    assert!(facts.declined[&id].contains("--min-free"), "{}", facts.declined[&id]);
}

#[tokio::test]
async fn a_cancel_reaches_the_engine_and_its_outcome_is_delivered() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    farm.orchestrator.desire(&id, State::Cancel);
    let stop = job.stopped().await;
    assert_eq!(stop, buildr_engine::job::Stop::Cancel { by: "ann".into() });
    job.finish(Outcome::Canceled { by: "ann".into() }).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(told(&attempt).1, Outcome::Canceled { by: "ann".into() });
}

#[tokio::test]
async fn an_abandoned_attempt_is_killed_and_nothing_of_it_is_reported() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    farm.orchestrator.desire(&id, State::Abandon);
    assert!(matches!(job.stopped().await, buildr_engine::job::Stop::Kill { .. }));
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    agent.until("the attempt is gone", |load| load.held == 0).await;
    let facts = farm.orchestrator.until("", |_| true).await;
    assert!(facts.attempts[&id].last.is_none());
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_fenced_attempt_ends_and_is_removed() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    farm.orchestrator.set(|facts| facts.fenced.extend([id.clone()]));
    job.begin("build").await;
    assert!(matches!(job.stopped().await, buildr_engine::job::Stop::Kill { .. }));
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    agent.until("the attempt is gone", |load| load.held == 0 && load.busy == 0).await;
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cancel_before_the_acceptance_runs_nothing() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.accept = Some(Accept::Canceled));
    farm.orchestrator.offer();
    farm.orchestrator.until("it was asked", |facts| facts.accepts == 1).await;
    agent.until("the attempt is gone", |load| load.held == 0 && load.busy == 0).await;
    farm.orchestrator.set(|facts| facts.accept = None);
    let next = farm.orchestrator.offer();
    assert_eq!(agent.job().await.request.run.as_str(), next);
}

#[tokio::test]
async fn a_cancel_at_the_plan_is_reported_as_canceled() {
    let farm = Farm::new().await;
    let _agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.plan = Some(Plan::Canceled));
    let id = farm.orchestrator.offer();
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert!(matches!(told(&attempt).1, Outcome::Canceled { .. }));
}

#[tokio::test]
async fn a_job_that_is_handed_back_reports_nothing_and_leaves_nothing() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.plan = Some(Plan::HandBack));
    let id = farm.orchestrator.offer();
    farm.orchestrator
        .until("the plan", |facts| facts.attempts.get(&id).is_some_and(|known| known.plans == 1))
        .await;
    agent.until("the attempt is gone", |load| load.held == 0 && load.busy == 0).await;
    let facts = farm.orchestrator.until("", |_| true).await;
    assert!(facts.attempts[&id].last.is_none());
}

#[tokio::test]
async fn an_engine_that_dies_is_an_internal_fault_and_frees_its_slot() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    job.vanish();
    let attempt = farm.orchestrator.until_finished(&id).await;
    let (events, outcome) = told(&attempt);
    assert!(matches!(outcome, Outcome::Internal { .. }));
    assert!(matches!(&events[events.len() - 2], EventKind::StageFinished { .. }));
    agent.until("all is freed", |load| load.held == 0 && load.busy == 0).await;
}

#[tokio::test]
async fn the_reaper_works_at_the_start_and_after_each_attempt() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    agent.job().await.pass(b"").await;
    farm.orchestrator.until_finished(&id).await;
    agent.reaped(2).await;
}

#[tokio::test]
async fn a_job_whose_events_are_refused_ends_and_frees_its_slot() {
    let farm = Farm::new().await;
    farm.orchestrator.set(|facts| facts.reject_events = true);
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.stopped().await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    let (_, outcome) = told(&attempt);
    assert!(matches!(&outcome, Outcome::Internal { message } if message.contains("too long")), "{outcome}");
    job.finish(Outcome::Canceled { by: "it".into() }).await;
    agent.until("all is freed", |load| load.held == 0 && load.busy == 0).await;
}

#[tokio::test]
async fn neither_the_report_nor_the_next_job_waits_for_the_engine_to_clear_up() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let first = farm.orchestrator.offer();
    let cleared = agent.job().await.end_and_clear().await;
    farm.orchestrator.until_finished(&first).await;
    let facts = farm.orchestrator.until("", |_| true).await;
    farm.orchestrator
        .until("a heartbeat that names it as over", |now| {
            now.heartbeats[facts.heartbeats.len()..]
                .iter()
                .any(|beat| beat.held.iter().any(|held| held.phase() == pb::AttemptPhase::Reporting))
        })
        .await;
    farm.orchestrator.offer();
    let second = agent.job().await;
    cleared.send(buildr_engine::job::Finished { outcome: Outcome::Passed }).ok();
    second.pass(b"").await;
    agent.until("all is freed", |load| load.held == 0 && load.busy == 0).await;
}
