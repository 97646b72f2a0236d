//! Nobody writes for an attempt but the process of the agent that has it now.

use buildr_proto::{InstanceId, pb, pb::orchestrator_message::Message};
use tonic::Code;

use crate::harness::*;

const OTHER: &str = "the credential of another agent, 0123456789";

#[tokio::test]
async fn another_agent_is_denied() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    // A thief knows the attempt and even the process.
    let mut thief = farm.agent_as(OTHER, agent.instance, &[]).await;
    let denied = Code::PermissionDenied;
    assert_eq!(thief.accept(&attempt).await.unwrap_err().code(), denied);
    assert_eq!(thief.plan(&attempt, vec![planned(&[])]).await.unwrap_err().code(), denied);
    assert_eq!(thief.report(&attempt, 1, begin(), None).await.unwrap_err().code(), denied);
    let acks = thief.append(vec![thief.chunk(&attempt, "test", 0, b"x")]).await;
    assert!(acks[0].fenced);
    agent.finish(&attempt, b"mine").await;
    assert_eq!(read_log(&mut client, log_of(1, 0, true)).await.0, b"mine");
}

#[tokio::test]
async fn another_process_of_the_agent_is_fenced() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let own = std::mem::replace(&mut agent.instance, InstanceId::new());
    let fenced = Code::FailedPrecondition;
    assert_eq!(agent.accept(&attempt).await.unwrap_err().code(), fenced);
    assert_eq!(agent.report(&attempt, 1, begin(), None).await.unwrap_err().code(), fenced);
    let acks = agent.append(vec![agent.chunk(&attempt, "test", 0, b"x")]).await;
    assert!(acks[0].fenced);
    agent.instance = own;
    agent.finish(&attempt, b"x").await;
}

#[tokio::test]
async fn an_acceptance_that_is_repeated_is_answered_again() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let again = agent.accept(&attempt).await.unwrap();
    assert_eq!(again, pb::accept_attempt_response::Decision::Go);
}

#[tokio::test]
async fn events_seen_before_are_answered_and_a_gap_is_an_error() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    assert_eq!(agent.report(&attempt, 1, begin(), None).await.unwrap().acked_seq, 5);
    let before = get(&mut client, build).await;
    assert_eq!(agent.report(&attempt, 1, begin(), None).await.unwrap().acked_seq, 5);
    assert_eq!(agent.report(&attempt, 3, begin()[2..].to_vec(), None).await.unwrap().acked_seq, 5);
    assert_eq!(get(&mut client, build).await, before);
    let gap = agent.report(&attempt, 7, end(0), None).await.unwrap_err();
    assert_eq!(gap.code(), Code::OutOfRange);
    assert!(gap.message().contains('6'), "{gap}");
    let last = pb::FinalReport { logs: Vec::new() };
    assert_eq!(agent.report(&attempt, 6, end(0), Some(last.clone())).await.unwrap().acked_seq, 7);
    // The answer was lost: the agent reports the same again.
    assert_eq!(agent.report(&attempt, 6, end(0), Some(last)).await.unwrap().acked_seq, 7);
    let late = agent.report(&attempt, 8, begin(), None).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    let events = watch(&mut client, build, 0).await;
    assert_eq!(events.len(), 2 + 4 + 2 + 1, "queued, accepted, four that are stored, two, finished");
}

#[tokio::test]
async fn a_second_process_is_refused_while_the_first_lives() {
    let farm = Farm::start().await;
    let mut first = farm.agent().await;
    let (_second, answer) = farm.connect(CREDENTIAL, InstanceId::new(), &[]).await;
    let Message::Refused(refused) = answer else { panic!("{answer:?}") };
    assert!(!refused.permanent);
    assert!(refused.reason.contains("another process"), "{}", refused.reason);
    first.heartbeat(&[]).await;
}

#[tokio::test]
async fn a_process_that_comes_after_the_first_has_gone_is_welcome() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut first = farm.agent().await;
    let attempt = first.take().await;
    first.report(&attempt, 1, begin(), None).await.unwrap();
    drop(first);
    // The end of the first connection and the second hello travel apart: try until one is seen.
    let mut second = soon("a welcome", async {
        loop {
            let instance = InstanceId::new();
            let (agent, answer) = farm.connect(CREDENTIAL, instance, std::slice::from_ref(&attempt)).await;
            if let Message::Welcome(welcome) = answer {
                return Agent { welcome, ..agent };
            }
        }
    })
    .await;
    assert_eq!(second.welcome.desired[0].state(), pb::desired::State::Run);
    second.append(vec![second.chunk(&attempt, "test", 0, b"x")]).await;
    second.report(&attempt, 6, end(1), Some(final_report(b"x"))).await.unwrap();
    assert_eq!(outcome_of(&get(&mut client, build).await), "passed");
}

#[tokio::test]
async fn the_same_process_takes_over_its_own_session() {
    let farm = Farm::start().await;
    let mut first = farm.agent().await;
    let mut second = farm.agent_as(CREDENTIAL, first.instance, &[]).await;
    let ended = soon("the end of the first session", first.from.message()).await;
    assert!(ended.is_err());
    second.heartbeat(&[]).await;
}

#[tokio::test]
async fn what_an_agent_holds_without_a_right_it_must_abandon() {
    let farm = Farm::start().await;
    let stray = buildr_proto::AttemptId::new().to_string();
    let mut agent = farm.agent_as(CREDENTIAL, InstanceId::new(), std::slice::from_ref(&stray)).await;
    assert_eq!(agent.welcome.desired[0].state(), pb::desired::State::Abandon);
    // It takes the agent's only slot until it is gone.
    let mut client = farm.client().await;
    submit(&mut client, "one").await;
    assert_eq!(agent.heartbeat(&[stray]).await[0].state(), pb::desired::State::Abandon);
    assert!(agent.heartbeat(&[]).await.is_empty());
    assert_eq!(agent.offer().await.build, 1);
}

#[tokio::test]
async fn an_agent_of_another_time_is_told_so() {
    let farm = Farm::start().await;
    let mut client = farm.agent_client(CREDENTIAL).await;
    let hello = pb::Hello {
        name: "ant".into(),
        instance: InstanceId::new().to_string(),
        protocol: Some(pb::ProtocolRange { min: 98, max: 99 }),
        slots: 1,
        ..Default::default()
    };
    let message = pb::agent_message::Message::Hello(hello);
    // Dropping the sending half would end the session, so it is kept.
    let (_to, messages) = {
        let (to, messages) = tokio::sync::mpsc::channel(1);
        to.send(pb::AgentMessage { message: Some(message) }).await.unwrap();
        (to, tokio_stream::wrappers::ReceiverStream::new(messages))
    };
    let mut from = client.session(messages).await.unwrap().into_inner();
    let answer = soon("the answer", from.message()).await.unwrap().unwrap().message.unwrap();
    let Message::Refused(refused) = answer else { panic!("{answer:?}") };
    assert!(refused.permanent && refused.reason.contains("upgrade"), "{refused:?}");
}
