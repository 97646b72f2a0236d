use std::time::Duration;

use buildr_init::wire::{EndCause, StageEnd};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream};
use tokio_util::io::ReaderStream;

use super::*;

/// The far end of a connection: a container that a test speaks for.
struct FakeInit {
    reports: DuplexStream,
    orders: BufReader<DuplexStream>,
}

fn connection() -> (Connection, FakeInit) {
    let (reports, ours) = tokio::io::duplex(64);
    let (input, orders) = tokio::io::duplex(1 << 16);
    let output = ReaderStream::new(ours).filter_map(|chunk| async { chunk.ok() });
    let connection = Connection { output: Box::pin(output), input: Box::pin(input) };
    (connection, FakeInit { reports, orders: BufReader::new(orders) })
}

impl FakeInit {
    async fn say(&mut self, report: &Report) {
        let text = serde_json::to_string(report).unwrap() + "\n";
        self.reports.write_all(text.as_bytes()).await.unwrap();
    }

    async fn hear(&mut self) -> Command {
        loop {
            let mut line = String::new();
            assert_ne!(self.orders.read_line(&mut line).await.unwrap(), 0, "the link closed");
            if !line.trim().is_empty() {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

struct Never;

impl Connect for Never {
    async fn connect(&mut self) -> Option<Connection> {
        None
    }
}

struct Once(Option<Connection>);

impl Connect for Once {
    async fn connect(&mut self) -> Option<Connection> {
        self.0.take()
    }
}

fn status(stage: u32, log_bytes: u64) -> StageStatus {
    StageStatus { stage, log_bytes, steps: vec![0], end: None }
}

fn bounds(stages: usize) -> Bounds {
    Bounds { steps: vec![1; stages], log: 1000 }
}

fn stop(stage: u32) -> Order {
    Order::Stop { stage, grace: Duration::from_secs(1) }
}

#[tokio::test]
async fn the_board_shows_the_newest_state_and_at_last_that_it_is_over() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(2), None);
    init.say(&Report::State { version: 1, seq: 0, stages: vec![] }).await;
    assert!(link.shows(|board| board.ready).await);
    init.say(&Report::Stage(status(0, 10))).await;
    init.say(&Report::Stage(status(0, 20))).await;
    assert!(link.shows(|board| board.stages.get(&0).is_some_and(|s| s.log_bytes == 20)).await);
    drop(init);
    assert!(!link.shows(|board| board.owned.is_some()).await);
    link.closed().await;
}

#[tokio::test]
async fn orders_are_numbered_from_one_after_a_first_query() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), None);
    assert_eq!(init.hear().await, Command { seq: 0, order: Order::Query });
    link.send(stop(0)).await;
    link.send(Order::Exit).await;
    assert_eq!(init.hear().await, Command { seq: 1, order: stop(0) });
    assert_eq!(init.hear().await, Command { seq: 2, order: Order::Exit });
}

#[tokio::test]
async fn an_order_that_was_not_acknowledged_is_sent_again_over_the_next_connection() {
    let (first, mut init) = connection();
    let (second, mut again) = connection();
    let link = Link::open(first, Once(Some(second)), bounds(2), None);
    link.send(stop(0)).await;
    link.send(stop(1)).await;
    for _ in 0..3 {
        init.hear().await;
    }
    init.say(&Report::Ack { seq: 1 }).await;
    drop(init);
    assert_eq!(again.hear().await, Command { seq: 0, order: Order::Query });
    assert_eq!(again.hear().await, Command { seq: 2, order: stop(1) });
    link.send(Order::Exit).await;
    assert_eq!(again.hear().await.seq, 3);
}

#[tokio::test]
async fn what_is_no_report_or_of_no_stage_of_ours_is_ignored() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), None);
    init.reports.write_all(b"\x00\xff garbage\n{\"report\":\"new\"}\n\n").await.unwrap();
    init.say(&Report::Stage(status(7, 1))).await;
    init.say(&Report::Stage(status(0, 5))).await;
    assert!(link.shows(|board| board.stages.contains_key(&0)).await);
    assert_eq!(link.board().borrow().stages.len(), 1);
}

#[tokio::test]
async fn a_stage_that_ended_does_not_live_again() {
    let end = StageEnd {
        cause: EndCause::Exit(0),
        stopped: false,
        duration: Duration::ZERO,
        user_cpu: Duration::ZERO,
        system_cpu: Duration::ZERO,
        max_rss: 0,
        oom_kills: 0,
        peak_memory: None,
        network: None,
    };
    let mut board = Board::default();
    note(&mut board, StageStatus { end: Some(end), ..status(0, 5) }, &bounds(1));
    note(&mut board, status(0, 50), &bounds(1));
    assert_eq!(board.stages[&0].log_bytes, 5);
}

#[tokio::test]
async fn init_hears_a_sign_of_life_as_often_as_it_wants() {
    tokio::time::pause();
    let (first, mut init) = connection();
    let _link = Link::open(first, Never, bounds(1), Some(Duration::from_secs(5)));
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(init.hear().await.order, Order::Query);
    }
    assert_eq!(begin.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_link_that_was_closed_shows_it() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), None);
    link.close();
    link.closed().await;
    let mut rest = Vec::new();
    init.orders.read_to_end(&mut rest).await.unwrap();
}

#[test]
fn lines_are_whole_wherever_the_stream_was_cut() {
    let text = b"one\n\ntwo\nthree";
    for cut in 0..text.len() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for part in [&text[..cut], &text[cut..]] {
            lines.feed(part, |line| seen.push(String::from_utf8(line.to_vec()).unwrap()));
        }
        assert_eq!(seen, ["one", "", "two"]);
    }
}

#[test]
fn a_line_without_end_is_dropped_and_takes_no_memory() {
    let mut lines = Lines::default();
    let mut seen = Vec::new();
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..20 {
        lines.feed(&chunk, |_| panic!("no line yet"));
    }
    assert!(lines.begun.capacity() < MAX_LINE);
    lines.feed(b"tail\nnext\n", |line| seen.push(line.to_vec()));
    assert_eq!(seen, [b"next".to_vec()]);
}

#[test]
fn a_report_is_not_believed_beyond_what_can_be() {
    let forged = |cause| StageStatus {
        stage: 0,
        log_bytes: u64::MAX,
        steps: vec![0; 100_000],
        end: Some(StageEnd {
            cause,
            stopped: false,
            duration: Duration::MAX,
            user_cpu: Duration::MAX,
            system_cpu: Duration::MAX,
            max_rss: u64::MAX,
            oom_kills: 0,
            peak_memory: None,
            network: None,
        }),
    };
    let reason = "x\u{1b}]0;title\u{7}".repeat(1 << 20);
    for cause in [
        EndCause::LogFailed { reason: reason.clone() },
        EndCause::CannotStart { reason: reason.clone(), no_shell: false },
    ] {
        let mut board = Board::default();
        note(&mut board, forged(cause), &bounds(1));
        let believed = &board.stages[&0];
        assert_eq!((believed.log_bytes, believed.steps.len()), (1000, 1));
        let (EndCause::LogFailed { reason } | EndCause::CannotStart { reason, .. }) =
            &believed.end.as_ref().unwrap().cause
        else {
            panic!()
        };
        assert!(reason.len() <= 1000 && !reason.contains(char::is_control));
    }
    assert_eq!(bounds::complaints(vec![reason; 50]).concat().len(), 10_000);
}
