//! The orchestrator ends and comes back on the same data: nothing is lost.

use buildr_orchestrator::Orchestrator;
use buildr_proto::{InstanceId, pb, pb::build_event::Event};

use crate::harness::*;

#[tokio::test]
async fn a_running_build_goes_on_where_it_was() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let queued = submit(&mut client, "two").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.plan(&attempt, vec![planned(&[])]).await.unwrap();
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"before ")]).await;
    let instance = agent.instance;
    farm.down().await;
    farm.up().await;

    let mut client = farm.client().await;
    assert_eq!(submit(&mut client, "one").await, build);
    let mut agent = farm.agent_as(CREDENTIAL, instance, std::slice::from_ref(&attempt)).await;
    assert_eq!(agent.welcome.desired[0].state(), pb::desired::State::Run);
    let acks = agent.append(vec![agent.chunk(&attempt, "test", 0, b"")]).await;
    assert_eq!(acks[0].durable, 7);
    agent.append(vec![agent.chunk(&attempt, "test", 7, b"after")]).await;
    agent.report(&attempt, 6, end(12), Some(final_report(b"before after"))).await.unwrap();
    let found = get(&mut client, build).await;
    assert_eq!(outcome_of(&found), "passed");
    assert_eq!(found.jobs[0].stages[0].log_missing, 0);
    assert_eq!(read_log(&mut client, log_of(build, 0, true)).await.0, b"before after");
    let events = watch(&mut client, build, 0).await;
    assert!(events.iter().enumerate().all(|(place, event)| event.seq == place as u64 + 1));
    assert!(!events.iter().any(|event| matches!(event.event, Some(Event::AttemptLost(_)))));
    assert_eq!(agent.offer().await.build, queued);
}

#[tokio::test]
async fn a_cancel_survives_and_reaches_the_agent_when_it_comes_back() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    cancel(&mut client, build).await;
    let instance = agent.instance;
    farm.down().await;
    farm.up().await;
    let agent = farm.agent_as(CREDENTIAL, instance, std::slice::from_ref(&attempt)).await;
    assert_eq!(agent.welcome.desired[0].state(), pb::desired::State::Cancel);
}

#[tokio::test]
async fn an_agent_that_comes_back_without_an_attempt_of_which_nothing_had_begun_gets_it_again() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let lost = agent.take().await;
    farm.down().await;
    farm.up().await;
    let mut agent = farm.agent_as(CREDENTIAL, InstanceId::new(), &[]).await;
    let offer = agent.offer().await;
    assert_eq!(offer.build, build);
    assert_ne!(offer.attempt, lost);
    let mut client = farm.client().await;
    let event = watch_for(&mut client, build, |event| matches!(event, Event::AttemptLost(_))).await;
    let Some(Event::AttemptLost(lost)) = event.event else { panic!() };
    assert!(lost.requeued);
}

#[tokio::test]
async fn an_agent_that_comes_back_without_an_attempt_that_had_begun_has_lost_it() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"so far")]).await;
    farm.down().await;
    farm.up().await;
    let mut agent = farm.agent_as(CREDENTIAL, InstanceId::new(), &[]).await;
    let mut client = farm.client().await;
    let found = get(&mut client, build).await;
    assert_eq!(outcome_of(&found), "agent_lost");
    let (log, last) = read_log(&mut client, log_of(build, 0, true)).await;
    assert_eq!(log, b"so far", "what came is kept");
    assert!(last.end);
    let error = agent.report(&attempt, 6, end(0), None).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn it_ends_quickly_while_clients_watch() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let request = pb::WatchBuildRequest { build, after: 1 };
    let mut watching = client.watch_build(request).await.unwrap().into_inner();
    let mut reading = client.read_log(log_of(build, 0, true)).await.unwrap().into_inner();
    let agent = farm.agent().await;
    let begun = std::time::Instant::now();
    farm.down().await;
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    assert!(watching.message().await.is_err());
    assert!(reading.message().await.is_err());
    drop(agent);
}

#[tokio::test]
async fn two_never_share_a_data_folder() {
    let farm = Farm::start().await;
    let error = Orchestrator::open(farm.config()).await.err().expect("it is in use").to_string();
    assert!(error.contains("in use by another orchestrator"), "{error}");
}
