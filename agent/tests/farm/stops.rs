//! How an agent ends: drained, canceled, refused.

use buildr_agent::{Shutdown, agent::Error};
use buildr_engine::job::Stop;
use buildr_manifest::Outcome;
use buildr_proto::pb;

use crate::{harness::Farm, jobs::told};

#[tokio::test]
async fn a_draining_agent_finishes_takes_nothing_new_and_ends() {
    let mut farm = Farm::new().await;
    farm.slots = 2;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    agent.tell(Shutdown::Drain);
    farm.orchestrator
        .until("the orchestrator hears of it", |facts| facts.heartbeats.iter().any(|beat| beat.draining))
        .await;
    let second = farm.orchestrator.offer();
    let facts = farm.orchestrator.until("a decline", |facts| facts.declined.contains_key(&second)).await;
    assert!(facts.declined[&second].contains("draining"));
    job.pass(b"done\n").await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(told(&attempt).1, Outcome::Passed);
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn the_operators_drain_ends_the_agent_too() {
    let farm = Farm::new().await;
    let agent = farm.join().await;
    farm.orchestrator.drain();
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn a_second_signal_cancels_what_runs_and_delivers() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    agent.tell(Shutdown::Drain);
    agent.tell(Shutdown::Cancel);
    let stop = job.stopped().await;
    assert!(matches!(&stop, Stop::Cancel { by } if by.contains("test")), "{stop:?}");
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    farm.orchestrator.until_finished(&id).await;
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn a_drain_ends_though_the_orchestrator_is_gone_and_the_results_stay() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    farm.proxy.close();
    agent.tell(Shutdown::Drain);
    job.pass(b"kept\n").await;
    agent.ended().await.unwrap();
    assert!(farm.spool().join(id).exists());
}

#[tokio::test]
async fn an_agent_that_was_never_let_in_can_be_stopped() {
    let farm = Farm::new().await;
    farm.proxy.close();
    let agent = farm.start();
    agent.tell(Shutdown::Drain);
    agent.ended().await.unwrap();
}

#[tokio::test]
async fn a_missing_token_ends_the_agent_and_says_what_to_do() {
    let farm = Farm::new().await;
    farm.orchestrator.set(|facts| facts.unauthenticated = true);
    let error = farm.start().ended().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)));
    assert!(error.to_string().contains("BUILDR_TOKEN"), "{error}");
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_agent_and_its_jobs() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.offer();
    let mut job = agent.job().await;
    let reason = "your version is too old".to_owned();
    farm.orchestrator.set(|facts| facts.refuse = Some(pb::Refused { reason, permanent: true }));
    farm.proxy.cut();
    assert!(matches!(job.stopped().await, Stop::Cancel { .. }));
    job.finish(Outcome::Canceled { by: "x".into() }).await;
    let error = agent.ended().await.unwrap_err();
    assert!(error.to_string().contains("your version is too old"), "{error}");
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again() {
    let farm = Farm::new().await;
    let reason = "another process of this agent is connected".to_owned();
    farm.orchestrator.set(|facts| facts.refuse = Some(pb::Refused { reason, permanent: false }));
    let agent = farm.start();
    farm.orchestrator.set(|facts| facts.refuse = None);
    farm.orchestrator.until("a hello", |facts| !facts.hellos.is_empty()).await;
    agent.tell(Shutdown::Drain);
    agent.ended().await.unwrap();
}
