//! A cancel that was answered ends as canceled, wherever the build was.

use buildr_proto::pb::{self, accept_attempt_response::Decision, build_event::Event};

use crate::harness::*;

#[tokio::test]
async fn a_queued_build_ends_at_once() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let answer = cancel(&mut client, build).await;
    assert!(!answer.already_finished);
    assert_eq!(answer.state(), pb::BuildState::Finished);
    assert_eq!(outcome_of(&get(&mut client, build).await), "canceled");
    let again = cancel(&mut client, build).await;
    assert!(again.already_finished);
    let events = watch(&mut client, build, 0).await;
    assert!(matches!(events[1].event, Some(Event::CancelRequested(_))));
    assert!(matches!(events[2].event, Some(Event::Finished(_))));
}

#[tokio::test]
async fn an_offer_is_answered_with_the_cancel() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let offer = agent.offer().await;
    cancel(&mut client, build).await;
    assert_eq!(agent.accept(&offer.attempt).await.unwrap(), Decision::Canceled);
    assert_eq!(outcome_of(&get(&mut client, build).await), "canceled");
    submit(&mut client, "two").await;
    assert_eq!(agent.offer().await.build, 2, "the slot is free again");
}

#[tokio::test]
async fn a_running_build_is_ended_by_its_agent_and_is_canceled_whatever_that_reports() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.plan(&attempt, vec![planned(&[])]).await.unwrap();
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    let answer = cancel(&mut client, build).await;
    assert_eq!(answer.state(), pb::BuildState::Running);
    let desired = agent.desired().await;
    assert_eq!((desired.state(), desired.canceled_by.as_str()), (pb::desired::State::Cancel, "eve"));
    let again = agent.heartbeat(std::slice::from_ref(&attempt)).await;
    assert_eq!(again[0].state(), pb::desired::State::Cancel, "repeated in every heartbeat");
    let last = pb::FinalReport { logs: Vec::new() };
    agent.report(&attempt, 6, end(0), Some(last)).await.unwrap();
    assert_eq!(outcome_of(&get(&mut client, build).await), "canceled");
}

#[tokio::test]
async fn a_plan_after_the_cancel_runs_nothing() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    cancel(&mut client, build).await;
    let decision = agent.plan(&attempt, vec![planned(&[])]).await.unwrap();
    assert_eq!(decision, pb::report_plan_response::Decision::Canceled);
}

#[tokio::test]
async fn a_build_that_ended_is_not_changed() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.finish(&attempt, b"x").await;
    let before = get(&mut client, build).await;
    assert!(cancel(&mut client, build).await.already_finished);
    assert_eq!(get(&mut client, build).await, before);
}
