//! Who takes too much is told so or cut, and nobody else notices.

use std::time::Duration;

use buildr_orchestrator::gate::{Patience, Settings};
use buildr_proto::pb;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
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

/// Waits for so long and no longer.
fn impatient(patience: Patience) -> Settings {
    Settings { patience, ..Settings::default() }
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_a_greeting_is_ended() {
    let greeting = Duration::from_millis(50);
    let farm = Farm::start_gated(impatient(Patience { greeting, ..Patience::default() })).await;
    for said in ["", "PRI * HTTP/2.0"] {
        let mut stream = TcpStream::connect(farm.listens()).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let read = soon("the end of the connection", async {
            // What the server has to say first is not its end.
            while let Ok(1..) = stream.read(&mut [0; 1024]).await {}
        });
        read.await;
    }
    until(&farm, "buildr_grpc_connections", |connections| connections == 0.0).await;
    submit(&mut farm.client().await, "one").await;
}

#[tokio::test]
async fn a_connection_is_ended_when_it_is_idle_and_not_while_a_call_is_open() {
    let idle = Duration::from_millis(200);
    let farm = Farm::start_gated(impatient(Patience { idle, ..Patience::default() })).await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut watcher = farm.client().await;
    let mut stream =
        watcher.watch_build(pb::WatchBuildRequest { build, after: 0 }).await.unwrap().into_inner();
    until(&farm, "buildr_grpc_connections", |connections| connections == 1.0).await;
    assert!(soon("the first event", stream.message()).await.unwrap().is_some(), "the stream lives");
    submit(&mut client, "two").await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_and_its_place_is_free() {
    let reads = Duration::from_millis(100);
    let farm = Farm::start_gated(impatient(Patience { reads, ..Patience::default() })).await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    let log = vec![b'x'; 8 << 20];
    let piece = 256 << 10;
    let chunks = log.chunks(piece).enumerate();
    let chunks = chunks.map(|(n, data)| agent.chunk(&attempt, "test", (n * piece) as u64, data)).collect();
    agent.append(chunks).await;
    let mut deaf = farm.client().await;
    let mut stream = deaf.read_log(log_of(build, 0, true)).await.unwrap().into_inner();
    until(&farm, "buildr_followers", |followers| followers == 1.0).await;
    until(&farm, "buildr_followers", |followers| followers == 0.0).await;
    let cut = soon("the end of the stream", async {
        loop {
            match stream.message().await {
                Ok(Some(piece)) => assert!(!piece.end, "all of it came: it was not cut"),
                end => break end,
            }
        }
    });
    let status = cut.await.expect_err("a stream that was cut has no good end");
    assert_ne!(status.code(), Code::Ok, "{status}");
    assert_eq!(get(&mut client, build).await.number, build, "the others live");
}
