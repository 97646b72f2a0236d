use std::time::Duration;

use buildr_init::wire::{Command, EndCause, Heard, Owner, Report, StageEnd};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream},
    time::Instant,
};
use tokio_util::io::ReaderStream;

use super::{session::note, *};

/// The far end of a connection: a container that a test speaks for.
struct FakeInit {
    reports: DuplexStream,
    orders: BufReader<DuplexStream>,
    /// Of the command that was heard last.
    session: u64,
}

fn connection() -> (Connection, FakeInit) {
    let (reports, ours) = tokio::io::duplex(64);
    let (input, orders) = tokio::io::duplex(1 << 16);
    let output = ReaderStream::new(ours).filter_map(|chunk| async { chunk.ok() });
    let connection = Connection { output: Box::pin(output), input: Box::pin(input) };
    (connection, FakeInit { reports, orders: BufReader::new(orders), session: 0 })
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
                let command: Command = serde_json::from_str(&line).unwrap();
                self.session = command.session;
                return command;
            }
        }
    }

    /// The next order with its number.
    async fn order(&mut self) -> (u64, Order) {
        let command = self.hear().await;
        (command.seq, command.order)
    }

    async fn state(&mut self, up_to: u64) {
        let sessions = vec![Heard { session: self.session, up_to }];
        self.say(&Report::State { version: 1, sessions, stages: vec![] }).await;
    }

    async fn acknowledge(&mut self, seq: u64) {
        self.say(&Report::Ack { session: self.session, seq }).await;
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
    init.hear().await;
    init.state(0).await;
    assert!(link.shows(|board| board.ready).await);
    init.say(&Report::Stage(status(0, 10))).await;
    init.say(&Report::Stage(status(0, 20))).await;
    assert!(link.shows(|board| board.stages.get(&0).is_some_and(|s| s.log_bytes == 20)).await);
    drop(init);
    assert!(!link.shows(|board| board.stages.contains_key(&1)).await);
    link.closed().await;
}

#[tokio::test]
async fn orders_are_numbered_from_one_after_a_first_query() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), None);
    assert_eq!(init.order().await, (0, Order::Query));
    link.send(stop(0)).await;
    link.send(Order::Exit).await;
    assert_eq!(init.order().await, (1, stop(0)));
    assert_eq!(init.order().await, (2, Order::Exit));
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
    init.acknowledge(1).await;
    drop(init);
    assert_eq!(again.order().await, (0, Order::Query));
    assert_eq!(again.order().await, (2, stop(1)));
    link.send(Order::Exit).await;
    assert_eq!(again.order().await.0, 3);
}

#[tokio::test]
async fn an_order_that_was_lost_on_a_connection_that_holds_is_sent_again_with_the_next_sign_of_life() {
    tokio::time::pause();
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), Some(Duration::from_secs(5)));
    for order in [stop(0), Order::Exit] {
        link.send(order).await;
    }
    assert_eq!((init.order().await.0, init.order().await.0, init.order().await.0), (0, 1, 2));
    init.acknowledge(2).await;
    assert_eq!((init.order().await.0, init.order().await), (0, (1, stop(0))));
    init.state(2).await;
    assert_eq!((init.order().await.0, init.order().await.0), (0, 0));
}

#[tokio::test]
async fn what_init_said_to_an_engine_before_us_is_not_mistaken_for_an_answer() {
    let (first, mut init) = connection();
    let (second, mut again) = connection();
    let link = Link::open(first, Once(Some(second)), bounds(1), None);
    link.send(stop(0)).await;
    assert_eq!((init.order().await.0, init.order().await.0), (0, 1));
    let sessions = vec![Heard { session: init.session ^ 1, up_to: 9 }];
    init.say(&Report::State { version: 1, sessions, stages: vec![status(0, 5)] }).await;
    init.say(&Report::Ack { session: init.session ^ 1, seq: 1 }).await;
    assert!(link.shows(|board| board.stages.contains_key(&0)).await);
    assert!(!link.board().borrow().ready);
    drop(init);
    assert_eq!((again.order().await.0, again.order().await), (0, (1, stop(0))));
}

#[tokio::test]
async fn each_order_to_give_files_away_gets_its_own_answer() {
    let (first, mut init) = connection();
    let link = Link::open(first, Never, bounds(1), None);
    let to = || NewOwner::Ids(Owner { uid: 1, gid: 2 });
    let answers = async {
        tokio::join!(link.own("/a", vec![], to()), link.own("/b", vec![3], to()), async {
            init.hear().await;
            let (a, b) = (init.hear().await, init.hear().await);
            let session = init.session;
            init.acknowledge(a.seq).await;
            for (seq, text) in [(b.seq, "b is bad"), (77, "nobody asked"), (a.seq, "a is bad")] {
                init.say(&Report::Owned { session, seq, errors: vec![text.to_owned()] }).await;
            }
        })
    };
    let (a, b, ()) = answers.await;
    assert_eq!((a.unwrap(), b.unwrap()), (vec!["a is bad".to_owned()], vec!["b is bad".to_owned()]));
    drop(init);
    assert_eq!(link.own("/c", vec![], to()).await, None);
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
