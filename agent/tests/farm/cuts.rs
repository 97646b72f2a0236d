//! Broken connections: work goes on, and everything is delivered once.

use buildr_manifest::Outcome;

use crate::{harness::Farm, jobs::told};

fn numbered(lines: std::ops::Range<u32>) -> String {
    lines.map(|line| format!("line {line}\n")).collect()
}

#[tokio::test]
async fn a_cut_in_the_middle_loses_and_doubles_nothing() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    for round in 0..10 {
        job.write("build", numbered(round * 1000..(round + 1) * 1000)).await;
        farm.proxy.cut();
    }
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(attempt.logs["build"], numbered(0..10_000).into_bytes());
    assert_eq!((told(&attempt).0.len(), told(&attempt).1), (5, Outcome::Passed));
    assert_eq!(attempt.last.unwrap().logs[0].missing, 0);
}

#[tokio::test]
async fn an_orchestrator_that_is_away_is_waited_for() {
    let mut farm = Farm::new().await;
    farm.timing.log_patience = std::time::Duration::from_secs(5);
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    farm.proxy.close();
    job.pass(b"said while nobody listened\n").await;
    agent.until("the slot is free though nothing is delivered", |load| load.busy == 0).await;
    assert_eq!(agent.load.borrow().held, 1);
    farm.proxy.open();
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(attempt.logs["build"], b"said while nobody listened\n");
    assert_eq!(attempt.last.unwrap().logs[0].missing, 0);
}

#[tokio::test]
async fn an_agent_that_starts_first_waits_for_the_orchestrator() {
    let farm = Farm::new().await;
    farm.proxy.close();
    let mut agent = farm.start();
    farm.proxy.open();
    farm.orchestrator.until("a hello", |facts| !facts.hellos.is_empty()).await;
    let id = farm.orchestrator.offer();
    agent.job().await.pass(b"").await;
    farm.orchestrator.until_finished(&id).await;
}

#[tokio::test]
async fn what_runs_is_named_when_the_agent_comes_back() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let job = agent.job().await;
    farm.proxy.cut();
    let facts = farm.orchestrator.until("a second hello", |facts| facts.hellos.len() >= 2).await;
    assert_eq!(facts.hellos[1].held[0].attempt, id);
    assert_eq!(facts.hellos[0].instance, facts.hellos[1].instance);
    job.pass(b"").await;
    farm.orchestrator.until_finished(&id).await;
}

#[tokio::test]
async fn a_log_stream_that_breaks_goes_on_from_the_durable_offset() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    farm.orchestrator.set(|facts| facts.break_logs_after = Some(5));
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    let mut log: Vec<u8> = Vec::new();
    for chunk in 0..20u8 {
        let data = vec![chunk; 200 << 10];
        log.extend(&data);
        job.write("build", data).await;
    }
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(attempt.logs["build"], log);
    let facts = farm.orchestrator.until("", |_| true).await;
    assert!(facts.log_streams >= 2, "{}", facts.log_streams);
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_byte_for_byte() {
    let farm = Farm::new().await;
    let mut agent = farm.join().await;
    let id = farm.orchestrator.offer();
    let mut job = agent.job().await;
    job.begin("build").await;
    let mut crc = 0;
    for n in 0..400u32 {
        let mut data = vec![b'.'; 256 << 10];
        data[..4].copy_from_slice(&n.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &data);
        job.write("build", data).await;
    }
    job.end("build").await;
    job.finish(Outcome::Passed).await;
    let attempt = farm.orchestrator.until_finished(&id).await;
    assert_eq!(crc32c::crc32c(&attempt.logs["build"]), crc);
    assert_eq!(attempt.last.unwrap().logs[0].crc32c, crc);
}
