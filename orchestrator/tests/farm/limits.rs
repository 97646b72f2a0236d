//! Who takes too much is told so or cut, and nobody else notices.

use buildr_orchestrator::gate::Settings;
use buildr_proto::pb;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::*;

async fn try_submit(client: &mut Client, key: usize) -> Result<(), Status> {
    submit_spec(client, &format!("key {key}"), spec()).await.map(drop)
}

/// Waits until something that is measured has come about.
async fn until(farm: &Farm, metric: &str, is: impl Fn(f64) -> bool) {
    let reached = async {
        while !is(farm.metric(metric).await) {
            tokio::task::yield_now().await;
        }
    };
    soon(metric, reached).await;
}

#[tokio::test]
async fn who_submits_too_fast_is_told_when_to_come_again() {
    let farm = Farm::start_gated(Settings { submits: 1, ..Settings::default() }).await;
    let mut client = farm.client().await;
    for key in 0..10 {
        try_submit(&mut client, key).await.unwrap();
    }
    let status = try_submit(&mut client, 10).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("--max-submits"), "{status}");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
    client.list_builds(pb::ListBuildsRequest::default()).await.unwrap();
    assert_eq!(farm.metric("buildr_refused_total").await, 1.0);
}

#[tokio::test]
async fn streams_that_follow_are_limited_and_free_again_when_their_clients_are_gone() {
    let farm = Farm::start_gated(Settings { followers: 4, ..Settings::default() }).await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let watch = pb::WatchBuildRequest { build, after: 0 };
    let first = client.watch_build(watch).await.unwrap();
    let second = client.watch_build(watch).await.unwrap();
    let status = client.watch_build(watch).await.expect_err("one address has half");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("--max-followers"), "{status}");
    drop((first, second));
    until(&farm, "buildr_followers", |followers| followers == 0.0).await;
    client.watch_build(watch).await.unwrap();
}

#[tokio::test]
async fn thousands_of_streams_of_one_client_are_refused_and_hold_up_nobody() {
    let farm = Farm::start_gated(Settings { followers: 100, reads: 0, ..Settings::default() }).await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let (mut held, mut refused) = (Vec::new(), 0);
    for _ in 0..1_000 {
        match client.watch_build(pb::WatchBuildRequest { build, after: 0 }).await {
            Ok(stream) => held.push(stream),
            Err(status) if status.code() == Code::ResourceExhausted => refused += 1,
            Err(status) => panic!("{status}"),
        }
    }
    assert_eq!((held.len(), refused), (50, 950));
    submit(&mut farm.client().await, "two").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_the_others_live() {
    let farm =
        Farm::start_gated(Settings { connections: 50, connections_per_address: 0, ..Settings::default() })
            .await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut silent = Vec::new();
    for _ in 0..49 {
        silent.push(TcpStream::connect(farm.listens()).await.unwrap());
    }
    until(&farm, "buildr_grpc_connections", |connections| connections == 50.0).await;
    for _ in 0..200 {
        let mut refused = TcpStream::connect(farm.listens()).await.unwrap();
        // Closed or reset: either way it is over.
        let read = soon("the end of the connection", refused.read(&mut [0; 64])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    get(&mut client, build).await;
    drop(silent);
    until(&farm, "buildr_grpc_connections", |connections| connections == 1.0).await;
    submit(&mut farm.client().await, "two").await;
    assert_eq!(farm.metric("buildr_refused_total").await, 200.0);
}

#[tokio::test]
async fn metadata_without_end_is_refused() {
    let farm = Farm::start().await;
    let mut client = farm.client_with(Metadata { token: Some("x".repeat(64 << 10)), credential: None }).await;
    let status = client.list_builds(pb::ListBuildsRequest::default()).await.unwrap_err();
    assert_ne!(status.code(), Code::Ok, "{status}");
    submit(&mut farm.client().await, "one").await;
}
