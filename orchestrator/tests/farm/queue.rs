//! Why something waits, and what operators want of agents.

use buildr_proto::pb::{self, job_explanation::Standing, obstacle::Obstacle};
use tonic::Code;

use crate::harness::*;

async fn explain(client: &mut Client, build: u64) -> pb::ExplainResponse {
    client.explain(pb::ExplainRequest { build }).await.unwrap().into_inner()
}

async fn obstacle(client: &mut Client, build: u64) -> Obstacle {
    let job = explain(client, build).await.jobs.remove(0);
    match job.standing {
        Some(Standing::Waiting(waiting)) => waiting.obstacles[0].obstacle.clone().unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn drain(client: &mut Client, agent: &str, resume: bool) -> Result<pb::Agent, tonic::Status> {
    let request = pb::DrainAgentRequest { agent: agent.into(), by: "eve".into(), resume };
    Ok(client.drain_agent(request).await?.into_inner().agent.unwrap())
}

#[tokio::test]
async fn a_build_s_wait_is_explained_until_it_ends_and_then_estimated_for_the_next() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    assert!(matches!(obstacle(&mut client, build).await, Obstacle::NoAgents(_)));
    assert_eq!(explain(&mut client, build).await.estimate, None);
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let running = explain(&mut client, build).await.jobs.remove(0).standing;
    assert!(matches!(running, Some(Standing::Running(running)) if running.agent_name == "ant"));
    let next = submit(&mut client, "two").await;
    let Obstacle::AgentUnfit(unfit) = obstacle(&mut client, next).await else { panic!() };
    assert_eq!((unfit.agent_name.as_str(), unfit.why.as_str()), ("ant", "its only slot is busy"));
    agent.finish(&attempt, b"x").await;
    assert!(explain(&mut client, build).await.jobs.is_empty());
    let estimate = explain(&mut client, next).await.estimate.unwrap();
    assert_eq!((estimate.builds, estimate.same_branch), (1, true));
    let error = client.explain(pb::ExplainRequest { build: 99 }).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn labels_that_nobody_has_are_named() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let labels = [("os".to_owned(), "linux".to_owned()), ("gpu".to_owned(), "true".to_owned())];
    let spec = pb::BuildSpec { labels: labels.into(), ..spec() };
    let build = submit_spec(&mut client, "one", spec).await.unwrap();
    let _agent = farm.agent().await;
    let Obstacle::NoSuchAgent(nobody) = obstacle(&mut client, build).await else { panic!() };
    assert_eq!(nobody.missing, ["gpu=true"]);
}

#[tokio::test]
async fn a_drained_agent_gets_nothing_until_it_is_resumed_also_after_a_restart() {
    let mut farm = Farm::start().await;
    let mut client = farm.client().await;
    let agent = farm.agent().await;
    let drained = drain(&mut client, "ant", false).await.unwrap();
    assert_eq!((drained.connected, drained.drained_by.as_str()), (true, "eve"));
    drop(agent);
    farm.down().await;
    farm.up().await;
    let mut client = farm.client().await;
    let mut agent = farm.agent().await;
    let build = submit(&mut client, "one").await;
    let Obstacle::AgentUnfit(unfit) = obstacle(&mut client, build).await else { panic!() };
    assert_eq!(unfit.why, "it was drained by eve");
    let id = drained.id.clone();
    assert_eq!(drain(&mut client, &id[..8], true).await.unwrap().drained_by, "");
    assert_eq!(agent.offer().await.build, build);
    assert_eq!(drain(&mut client, "nobody", true).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn an_agent_is_listed_with_what_it_has_and_removed_only_while_it_is_away() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    let list = client.list_agents(pb::ListAgentsRequest {}).await.unwrap().into_inner().agents;
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].attempts, [pb::AgentAttempt { build, job: 1, attempt }]);
    assert_eq!(list[0].labels["os"], "linux");
    let remove = || pb::RemoveAgentRequest { agent: "ant".into() };
    let error = client.remove_agent(remove()).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("ant is connected"), "{error}");
    drop(agent);
    let removed = soon("the end of the session", async {
        loop {
            match client.remove_agent(remove()).await {
                Ok(removed) => return removed.into_inner().agent.unwrap(),
                Err(error) => assert_eq!(error.code(), Code::FailedPrecondition),
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!removed.connected);
    let lost = |event: &pb::build_event::Event| matches!(event, pb::build_event::Event::AttemptLost(_));
    watch_for(&mut client, build, lost).await;
    assert!(client.list_agents(pb::ListAgentsRequest {}).await.unwrap().into_inner().agents.is_empty());
}

#[tokio::test]
async fn a_retry_is_a_build_of_its_own_at_the_same_commit() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.finish(&attempt, b"x").await;
    let retry =
        || pb::RetryBuildRequest { build, idempotency_key: "again".into(), submitted_by: "eve".into() };
    let answer = client.retry_build(retry()).await.unwrap().into_inner();
    assert_eq!((answer.build, answer.repeats), (build + 1, build));
    assert_eq!(client.retry_build(retry()).await.unwrap().into_inner().build, answer.build);
    let offer = agent.offer().await;
    assert_eq!((offer.build, offer.spec.unwrap().source.unwrap().commit), (build + 1, "a".repeat(40)));
}
