//! Logs: what was acknowledged stays, readers see all of it once, from any offset.

use buildr_proto::pb;

use crate::harness::*;

async fn running(farm: &Farm) -> (Client, Agent, u64, String) {
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.plan(&attempt, vec![planned(&[])]).await.unwrap();
    agent.report(&attempt, 1, begin(), None).await.unwrap();
    (client, agent, build, attempt)
}

#[tokio::test]
async fn the_first_ack_says_where_to_go_on_from() {
    let farm = Farm::start().await;
    let (_client, mut agent, _, attempt) = running(&farm).await;
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"0123456789")]).await;
    let acks = agent.append(vec![agent.chunk(&attempt, "test", 0, b"")]).await;
    assert_eq!(acks[0].durable, 10);
    assert!(!acks[0].gap && !acks[0].fenced);
}

#[tokio::test]
async fn duplicates_overlaps_and_gaps_leave_no_trace_in_the_log() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    let chunks = vec![
        agent.chunk(&attempt, "test", 0, b"01234"),
        agent.chunk(&attempt, "test", 0, b"01234"),
        agent.chunk(&attempt, "test", 3, b"34567"),
        agent.chunk(&attempt, "test", 20, b"too far"),
        agent.chunk(&attempt, "test", 8, b"89"),
    ];
    let acks = agent.append(chunks).await;
    assert_eq!(acks.iter().filter(|ack| ack.gap).count(), 1);
    assert_eq!(acks.last().unwrap().durable, 10);
    agent.report(&attempt, 6, end(10), Some(final_report(b"0123456789"))).await.unwrap();
    for offset in 0..=11 {
        let (log, last) = read_log(&mut client, log_of(build, offset, true)).await;
        assert_eq!(log, b"0123456789"[(offset as usize).min(10)..], "from {offset}");
        assert!(last.end);
    }
}

#[tokio::test]
async fn a_reader_that_follows_gets_what_comes_and_then_the_end() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    let mut stream = client.read_log(log_of(build, 0, true)).await.unwrap().into_inner();
    for (offset, line) in [(0, b"one\n"), (4, b"two\n")] {
        agent.append(vec![agent.chunk(&attempt, "test", offset, line)]).await;
        let piece = soon("a line", stream.message()).await.unwrap().unwrap();
        assert_eq!((piece.offset, &piece.data[..]), (offset, &line[..]));
    }
    agent.report(&attempt, 6, end(8), Some(final_report(b"one\ntwo\n"))).await.unwrap();
    let last = soon("the end", stream.message()).await.unwrap().unwrap();
    assert!(last.end && last.missing == 0 && last.offset == 8);
    assert!(soon("nothing", stream.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_reader_may_come_before_the_agent() {
    let farm = Farm::start().await;
    let mut client = farm.client().await;
    let build = submit(&mut client, "one").await;
    let mut stream = client.read_log(log_of(build, 0, true)).await.unwrap().into_inner();
    let mut agent = farm.agent().await;
    let attempt = agent.take().await;
    agent.finish(&attempt, b"hello\n").await;
    let piece = soon("the log", stream.message()).await.unwrap().unwrap();
    assert_eq!(&piece.data[..], b"hello\n");
    assert!(soon("the end", stream.message()).await.unwrap().unwrap().end);
}

#[tokio::test]
async fn a_reader_that_does_not_follow_is_told_that_more_may_come() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"hello")]).await;
    let (log, last) = read_log(&mut client, log_of(build, 0, false)).await;
    assert_eq!(log, b"hello");
    assert!(!last.end);
    let found = get(&mut client, build).await;
    assert_eq!(found.jobs[0].stages[0].log_bytes, 5, "the length of what is there");
}

#[tokio::test]
async fn bytes_that_never_came_are_counted() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"hello")]).await;
    let summary = pb::LogSummary { log: "test".into(), length: 12, crc32c: 1, missing: 7 };
    let last = pb::FinalReport { logs: vec![summary] };
    agent.report(&attempt, 6, end(12), Some(last)).await.unwrap();
    let (log, last) = read_log(&mut client, log_of(build, 0, true)).await;
    assert_eq!(log, b"hello");
    assert!(last.end);
    assert_eq!(last.missing, 7);
    let stage = &get(&mut client, build).await.jobs[0].stages[0];
    assert_eq!((stage.log_bytes, stage.log_missing), (5, 7));
}

#[tokio::test]
async fn a_log_that_is_not_what_the_agent_sent_is_said_to_be_damaged() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"hello")]).await;
    agent.report(&attempt, 6, end(5), Some(final_report(b"jello"))).await.unwrap();
    let warned = watch(&mut client, build, 0).await.into_iter().any(|event| match event.event {
        Some(pb::build_event::Event::JobEvent(pb::JobEvent {
            event: Some(pb::job_event::Event::Warning(warning)),
            ..
        })) => warning.message.contains("damaged"),
        _ => false,
    });
    assert!(warned);
}

#[tokio::test]
async fn a_chunk_that_comes_too_late_is_fenced() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    agent.append(vec![agent.chunk(&attempt, "test", 0, b"hello")]).await;
    agent.report(&attempt, 6, end(5), Some(final_report(b"hello"))).await.unwrap();
    let acks = agent.append(vec![agent.chunk(&attempt, "test", 5, b" again")]).await;
    assert!(acks[0].fenced);
    assert_eq!(read_log(&mut client, log_of(build, 0, true)).await.0, b"hello");
}

#[tokio::test]
async fn times_are_given_where_they_are_asked_for() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    agent.finish_log(&attempt, b"hello").await;
    let request = pb::ReadLogRequest { times: true, ..log_of(build, 0, true) };
    let mut stream = client.read_log(request).await.unwrap().into_inner();
    let piece = soon("the log", stream.message()).await.unwrap().unwrap();
    assert_eq!(piece.times.len(), 1);
    assert_eq!(piece.times[0].at.unwrap().seconds, 1_700_000_000);
}

#[tokio::test]
async fn a_large_log_arrives_byte_for_byte() {
    let farm = Farm::start().await;
    let (mut client, mut agent, build, attempt) = running(&farm).await;
    let log: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let size = buildr_proto::MAX_CHUNK;
    let chunks = log.chunks(size).enumerate();
    let chunks = chunks.map(|(n, data)| agent.chunk(&attempt, "test", (n * size) as u64, data)).collect();
    let acks = agent.append(chunks).await;
    assert_eq!(acks.last().unwrap().durable, log.len() as u64);
    let last = Some(final_report(&log));
    agent.report(&attempt, 6, end(log.len() as u64), last).await.unwrap();
    let (read, last) = read_log(&mut client, log_of(build, 0, true)).await;
    assert!(read == log && last.end && last.missing == 0);
}

impl Agent {
    async fn finish_log(&mut self, attempt: &str, log: &[u8]) {
        self.append(vec![self.chunk(attempt, "test", 0, log)]).await;
        let last = Some(final_report(log));
        self.report(attempt, 6, end(log.len() as u64), last).await.unwrap();
    }
}
