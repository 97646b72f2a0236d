//! An agent whose process is no more and that comes back: its jobs go on, and the orchestrator gets each
//! event and each byte once.

use std::{fs, time::Duration};

use buildr_agent::{Shutdown, spool::Fence};
use buildr_engine::job::Stop;
use buildr_manifest::{EventKind, LogName, Outcome};
use buildr_proto::pb::{AttemptPhase, desired::State};

use tokio::time::timeout;

use crate::{
    harness::{Farm, Running},
    jobs::told,
    orchestrator::Attempt,
    runner::{Job, stage},
};

/// Waits until the orchestrator has so many bytes of the build's log.
async fn logged(farm: &Farm, id: &str, bytes: usize) {
    let has = |attempt: &Attempt| attempt.logs.get("build").map_or(0, Vec::len) >= bytes;
    farm.orchestrator.until("the log", |facts| facts.attempts.get(id).is_some_and(has)).await;
}

/// Waits until the orchestrator has so many events.
async fn reported(farm: &Farm, id: &str, events: usize) {
    let has = |attempt: &Attempt| attempt.events.len() >= events;
    farm.orchestrator.until("the events", |facts| facts.attempts.get(id).is_some_and(has)).await;
}

async fn hellos(farm: &Farm, count: usize) -> Vec<buildr_proto::pb::Hello> {
    farm.orchestrator.until("a hello", |facts| facts.hellos.len() >= count).await.hellos
}

/// A job whose stage has written ten bytes, all of it at the orchestrator. Dropping the job would be an
/// engine that fails.
async fn begun(farm: &Farm) -> (String, Running, Job) {
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    job.write("build", "0123456789").await;
    logged(farm, &id, 10).await;
    reported(farm, &id, 3).await;
    (id, agent, job)
}

/// The next process is given the job, and told what was kept of it.
async fn adopted(agent: &mut Running, id: &str, (events, bytes): (u64, u64)) -> Job {
    let job = agent.job().await;
    assert_eq!(job.request.run.as_str(), id);
    let log = LogName::from(stage("build"));
    assert_eq!((job.heard.events, job.heard.logs.get(&log).copied().unwrap_or(0)), (events, bytes));
    job
}

async fn all_is_gone(farm: &Farm, agent: &mut Running) {
    agent.until("all is freed", |load| load.held == 0 && load.busy == 0).await;
    assert_eq!(fs::read_dir(farm.spool()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_job_that_was_killed_in_a_stage_goes_on() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.kill().await;
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (3, 10)).await;
    let held = hellos(&farm, 2).await[1].held.clone();
    assert_eq!((held[0].attempt.as_str(), held[0].phase(), held.len()), (&id[..], AttemptPhase::Running, 1));
    assert_eq!((held[0].logs[0].log.as_str(), held[0].logs[0].offset), ("build", 10));
    job.write("build", "abc").await;
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    let (events, outcome) = told(&attempt);
    assert_eq!((events.len(), outcome), (5, Outcome::Passed), "{events:?}");
    assert_eq!(attempt.logs["build"], b"0123456789abc");
    assert_eq!(attempt.last.unwrap().logs[0].crc32c, crc32c::crc32c(b"0123456789abc"));
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_job_survives_two_deaths_one_before_its_first_stage() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let _job = agent.job().await;
    reported(&farm, &id, 2).await;
    agent.kill().await;
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (2, 0)).await;
    job.begin("build").await;
    job.write("build", "01234").await;
    logged(&farm, &id, 5).await;
    agent.kill().await;
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (3, 5)).await;
    job.write("build", "56").await;
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!((told(&attempt).0.len(), told(&attempt).1), (5, Outcome::Passed));
    assert_eq!(attempt.logs["build"], b"0123456");
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_job_that_was_not_run_yet_is_given_back() {
    let mut farm = Farm::new().await;
    farm.timing.call = Duration::from_secs(60);
    let agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.hold_plans = true);
    let id = farm.orchestrator.offer();
    reported(&farm, &id, 2).await;
    agent.kill().await;
    let mut agent = farm.start();
    assert!(hellos(&farm, 2).await[1].held.is_empty(), "the orchestrator queues it again");
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_job_that_had_its_end_is_only_reported() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.hold_logs = true);
    let id = farm.orchestrator.offer();
    agent.job().await.pass(b"0123456789").await;
    agent.until("it is over", |load| load.busy == 0).await;
    agent.kill().await;
    farm.orchestrator.set(|facts| facts.hold_logs = false);
    let mut agent = farm.start();
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!((told(&attempt).0.len(), told(&attempt).1), (5, Outcome::Passed));
    assert_eq!(attempt.logs["build"], b"0123456789");
    assert_eq!(hellos(&farm, 2).await[1].held[0].phase(), AttemptPhase::Reporting);
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_job_with_which_nobody_can_go_on_is_lost_and_its_log_is_not() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.kill().await;
    farm.runs.lock().unwrap().clear();
    let mut agent = farm.start();
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(told(&attempt).1, Outcome::AgentLost { agent: "test".into() });
    assert_eq!(attempt.logs["build"], b"0123456789");
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn an_adopted_job_has_its_slot_before_anything_is_offered() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.kill().await;
    let mut agent = farm.start();
    hellos(&farm, 2).await;
    let second = farm.orchestrator.offer();
    let facts = farm.orchestrator.until("a decline", |facts| facts.declined.contains_key(&second)).await;
    assert!(facts.declined[&second].contains("1 slots are busy"), "{:?}", facts.declined);
    let mut job = adopted(&mut agent, &id, (3, 10)).await;
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    agent.until("the slot is free", |load| load.busy == 0).await;
}

#[tokio::test]
async fn a_cancel_that_came_meanwhile_reaches_the_adopted_job() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.kill().await;
    farm.orchestrator.set(|facts| facts.desired.extend([(id.clone(), State::Cancel)]));
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (3, 10)).await;
    assert_eq!(job.stopped().await, Stop::Cancel { by: "ann".into() });
    job.finish(Outcome::Canceled { by: "ann".into() }).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(told(&attempt).1, Outcome::Canceled { by: "ann".into() });
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_job_that_was_given_up_meanwhile_is_killed_and_not_reported() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.kill().await;
    farm.orchestrator.set(|facts| {
        facts.desired.insert(id.clone(), State::Abandon);
        facts.fenced.insert(id.clone());
    });
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (3, 10)).await;
    assert!(matches!(job.stopped().await, Stop::Kill { .. }));
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    all_is_gone(&farm, &mut agent).await;
    let facts = farm.orchestrator.until("", |_| true).await;
    assert!(facts.attempts[&id].last.is_none());
}

#[tokio::test]
async fn a_job_that_another_agent_may_have_by_now_is_ended_by_the_next_process_too() {
    let farm = Farm::new().await;
    let limit = Duration::from_secs(60);
    farm.orchestrator.set(|facts| facts.fence_after = Some(limit));
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    assert_eq!(job.unattended, Some(limit / 3));
    farm.proxy.close();
    agent.kill().await;
    // As if the last word had come when the machine was started.
    let path = farm.spool().join(&id).join("fence");
    let mut fence: Fence = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(fence.after, limit);
    fence.answered = Duration::ZERO;
    fs::write(&path, serde_json::to_vec(&fence).unwrap()).unwrap();
    let mut agent = farm.start();
    let mut job = agent.job().await;
    let stop = timeout(limit / 2, job.stopped()).await.expect("it does not begin to count anew");
    assert!(matches!(stop, Stop::Kill { .. }), "{stop:?}");
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn an_agent_that_detaches_ends_at_once_and_the_next_one_goes_on() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    job.write("build", "0123456789").await;
    agent.tell(Shutdown::Detach);
    agent.ended().await.unwrap();
    assert_eq!(*job.stop.borrow(), Stop::No, "the job is not told to end");
    drop(job);
    let mut agent = farm.start();
    let mut job = adopted(&mut agent, &id, (3, 10)).await;
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    let (events, outcome) = told(&attempt);
    assert!(matches!(&events[3], EventKind::StageFinished { log_bytes: 10, .. }), "{events:?}");
    assert_eq!((outcome, attempt.logs["build"].as_slice()), (Outcome::Passed, &b"0123456789"[..]));
    all_is_gone(&farm, &mut agent).await;
}

#[tokio::test]
async fn a_draining_agent_can_still_be_told_to_detach() {
    let farm = Farm::new().await;
    let (id, agent, _job) = begun(&farm).await;
    agent.tell(Shutdown::Drain);
    farm.orchestrator.until("it drains", |facts| facts.heartbeats.iter().any(|beat| beat.draining)).await;
    agent.tell(Shutdown::Detach);
    agent.ended().await.unwrap();
    let mut agent = farm.start();
    let _job = adopted(&mut agent, &id, (3, 10)).await;
}
