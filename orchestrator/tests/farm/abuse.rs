//! Clients and agents that are wrong, hostile or deaf get the right answer, and nobody else notices.

use std::collections::HashMap;

use buildr_proto::{
    InstanceId,
    limits::{MAX_LABELS, MAX_LOGS},
    pb::{self, agent_message::Message as Said, job_event as event, orchestrator_message::Message},
};
use tonic::{Code, Status};

use crate::harness::*;

/// How a session that begins like this ends.
async fn session_end(farm: &Farm, first: Said, next: Option<Said>) -> Status {
    let mut agent =
        farm.say_first("the credential of somebody hostile, 0123456789", InstanceId::new(), first).await;
    if let Some(next) = next {
        agent.to.send(message(next)).await.unwrap();
    }
    loop {
        match soon("the end of the session", agent.from.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::ok("it ended"),
            Err(status) => return status,
        }
    }
}

fn labels(count: usize) -> HashMap<String, String> {
    (0..count).map(|n| (format!("l{n}"), String::new())).collect()
}

#[tokio::test]
async fn sessions_that_make_no_sense_end_with_a_reason() {
    let farm = Farm::start().await;
    let good = || hello(InstanceId::new());
    let beat = || Said::Heartbeat(pb::Heartbeat::default());
    let held = vec![pb::HeldAttempt { attempt: "../../etc".into(), ..Default::default() }];
    let cases = [
        ("no hello", beat(), None),
        ("a second hello", Said::Hello(good()), Some(Said::Hello(good()))),
        ("too many labels", Said::Hello(pb::Hello { labels: labels(MAX_LABELS + 1), ..good() }), None),
        ("a name of lines", Said::Hello(pb::Hello { name: "a\nb".into(), ..good() }), None),
        ("a name of a megabyte", Said::Hello(pb::Hello { name: "a".repeat(1 << 20), ..good() }), None),
        ("no instance", Said::Hello(pb::Hello { instance: String::new(), ..good() }), None),
        ("an attempt that is none", Said::Hello(pb::Hello { held, ..good() }), None),
        ("a decline of nothing", Said::Hello(good()), Some(Said::Decline(pb::Decline::default()))),
    ];
    for (what, first, next) in cases {
        let end = session_end(&farm, first, next).await;
        assert_eq!(end.code(), Code::InvalidArgument, "{what}: {end}");
    }
    let million = Said::Hello(pb::Hello { labels: labels(1_000_000), ..good() });
    let end = session_end(&farm, million, None).await;
    assert_eq!(end.code(), Code::OutOfRange, "a message beyond the limit: {end}");
    farm.agent().await;
}

#[tokio::test]
async fn an_agent_with_many_slots_gets_all_its_offers_on_one_session() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    for n in 0..300 {
        submit(&mut client, &format!("build {n}")).await;
    }
    let instance = InstanceId::new();
    let first = Said::Hello(pb::Hello { slots: 300, ..hello(instance) });
    let mut agent = farm.say_first(CREDENTIAL, instance, first).await;
    assert!(matches!(agent.next().await, Message::Welcome(_)));
    for _ in 0..300 {
        agent.offer().await;
    }
}

#[tokio::test]
async fn an_attempt_that_is_over_on_its_agent_takes_no_slot() {
    let farm = Farm::start().await;
    let mut agent = farm.agent().await;
    let over = pb::HeldAttempt {
        attempt: buildr_proto::AttemptId::new().to_string(),
        phase: pb::AttemptPhase::Reporting.into(),
        logs: Vec::new(),
    };
    let beat = pb::Heartbeat { seq: 1, held: vec![over], draining: false };
    agent.to.send(message(Said::Heartbeat(beat))).await.unwrap();
    assert!(matches!(agent.next().await, Message::HeartbeatReply(_)));
    submit(&mut farm.client().await, "one").await;
    agent.offer().await;
}

#[tokio::test]
async fn a_stream_of_logs_of_ever_more_names_is_refused() {
    let farm = Farm::start().await;
    submit(&mut farm.client().await, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let chunks: Vec<_> =
        (0..=MAX_LOGS).map(|n| agent.chunk(&attempt, &format!("stage{n}"), 0, b"")).collect();
    let mut acks = agent.client.append_log(tokio_stream::iter(chunks)).await.unwrap().into_inner();
    let end = loop {
        match soon("an ack", acks.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("all was taken"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::InvalidArgument, "{end}");
}

#[tokio::test]
async fn events_out_of_order_change_no_outcome() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let mut ended = end(0);
    ended.reverse();
    ended.push(event::Event::StageStarted(event::StageStarted { stage: "late".into() }));
    agent.report(&attempt, 1, ended, Some(pb::FinalReport::default())).await.unwrap();
    assert_eq!(outcome_of(&get(&mut client, build).await), "internal", "it passed without a stage");
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let watcher = client.watch_build(pb::WatchBuildRequest { build, after: 0 }).await.unwrap();
        deaf.push((watcher, client.read_log(log_of(build, 0, true)).await.unwrap()));
    }
    let log = vec![b'x'; 4 << 20];
    let piece = 256 << 10;
    let chunks = log
        .chunks(piece)
        .enumerate()
        .map(|(n, data)| agent.chunk(&attempt, "test", (n * piece) as u64, data));
    let acks = agent.append(chunks.collect()).await;
    assert_eq!(acks.last().unwrap().durable, log.len() as u64);
    agent.report(&attempt, 6, end(log.len() as u64), Some(final_report(&log))).await.unwrap();
    let mut other = farm.client().await;
    assert_eq!(outcome_of(&get(&mut other, build).await), "passed");
    assert_eq!(read_log(&mut other, log_of(build, 0, true)).await.0.len(), log.len());
}
