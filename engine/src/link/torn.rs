//! Connections that are torn at any byte, in both directions, with an init at their other end that
//! keeps its part of the contract: nothing may be lost or carried out twice.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use buildr_init::wire::{Command, EndCause, Heard, Owner, Report, StageEnd};
use futures_util::{StreamExt, future::join_all};
use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch as tokio_watch,
};
use tokio_util::io::ReaderStream;

use super::{lines::Lines, *};

/// How many bytes of each direction come through.
#[derive(Clone, Copy, Debug)]
struct Budget {
    orders: usize,
    reports: usize,
}

/// Init as far as a link can tell. It lives on over connections, and so does a line that was torn.
#[derive(Default)]
struct Model {
    lines: Lines,
    seen: BTreeSet<(u64, u64)>,
    carried_out: Vec<Order>,
}

impl Model {
    fn take(&mut self, piece: &[u8]) -> Vec<Report> {
        let mut commands = Vec::new();
        self.lines.feed(piece, |line| commands.extend(serde_json::from_slice::<Command>(line)));
        commands.into_iter().flat_map(|command| self.obey(command)).collect()
    }

    fn obey(&mut self, Command { session, seq, order }: Command) -> Vec<Report> {
        if order == Order::Query {
            return vec![self.state(session)];
        }
        if self.seen.insert((session, seq)) {
            self.carried_out.push(order.clone());
        }
        let mut reports = vec![Report::Ack { session, seq }];
        if let Order::Own { path, .. } = order {
            reports.push(Report::Owned { session, seq, errors: vec![path] });
        }
        reports
    }

    /// The whole, with as many stages that have ended as orders were carried out.
    fn state(&self, session: u64) -> Report {
        let up_to = (1..).take_while(|seq| self.seen.contains(&(session, *seq))).count() as u64;
        let stages = (0..self.carried_out.len() as u32).map(ended).collect();
        Report::State { version: 1, sessions: vec![Heard { session, up_to }], stages }
    }
}

fn ended(stage: u32) -> StageStatus {
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
    StageStatus { stage, log_bytes: 0, steps: vec![], end: Some(end) }
}

type Shared = Arc<(Mutex<Model>, tokio_watch::Sender<usize>)>;

/// Gives connections that tear, then one that holds, then none.
struct Tearing {
    model: Shared,
    budgets: VecDeque<Budget>,
}

impl Connect for Tearing {
    async fn connect(&mut self) -> Option<Connection> {
        let budget = self.budgets.pop_front()?;
        let (reports, ours) = tokio::io::duplex(16);
        let (input, orders) = tokio::io::duplex(16);
        tokio::spawn(speak(Arc::clone(&self.model), orders, reports, budget));
        let output = ReaderStream::new(ours).filter_map(|chunk| async { chunk.ok() });
        Some(Connection { output: Box::pin(output), input: Box::pin(input) })
    }
}

/// One connection, until either direction has no bytes left.
async fn speak(model: Shared, mut orders: DuplexStream, mut reports: DuplexStream, mut budget: Budget) {
    // What an engine that died had been told comes first.
    let mut said = b"d\":[],\"x\":1}\n{\"report\":\"ack\",\"session\":1,\"seq\":1}\n".to_vec();
    let mut buffer = [0; 64];
    loop {
        let length = said.len().min(budget.reports);
        if reports.write_all(&said[..length]).await.is_err() || length < said.len() {
            return;
        }
        budget.reports -= length;
        let room = budget.orders.min(buffer.len());
        let Ok(length) = orders.read(&mut buffer[..room]).await else { return };
        if length == 0 {
            return;
        }
        budget.orders -= length;
        let mut model_now = model.0.lock().unwrap();
        let answers = model_now.take(&buffer[..length]);
        model.1.send_replace(model_now.carried_out.len());
        let line = |report: &Report| serde_json::to_string(report).unwrap() + "\n";
        said = answers.iter().map(line).collect::<String>().into_bytes();
    }
}

fn order(number: usize, owns: bool) -> Order {
    if owns {
        let to = NewOwner::Ids(Owner { uid: 1, gid: 1 });
        Order::Own { path: format!("/{number}"), from: vec![], to }
    } else {
        Order::Stop { stage: number as u32, grace: Duration::from_secs(number as u64) }
    }
}

async fn check(kinds: Vec<bool>, budgets: Vec<Budget>) {
    let model: Shared = Arc::new((Mutex::default(), tokio_watch::channel(0).0));
    let mut connect = Tearing { model: Arc::clone(&model), budgets: budgets.into() };
    connect.budgets.push_back(Budget { orders: usize::MAX, reports: usize::MAX });
    let first = connect.connect().await.unwrap();
    let count = kinds.len();
    let bounds = Bounds { steps: vec![0; count], log: 0 };
    let link = Link::open(first, connect, bounds, Some(Duration::from_secs(1)));
    let wanted: Vec<Order> = kinds.iter().enumerate().map(|(number, owns)| order(number, *owns)).collect();
    let all = join_all(wanted.clone().into_iter().map(async |order| match order {
        Order::Own { path, from, to } => assert_eq!(link.own(&path, from, to).await, Some(vec![path])),
        order => link.send(order).await,
    }));
    let done = async {
        all.await;
        model.1.subscribe().wait_for(|carried_out| *carried_out == count).await.unwrap();
        assert!(link.shows(|board| board.ready && board.stages.len() == count).await);
    };
    tokio::time::timeout(Duration::from_secs(600), done).await.expect("all orders are answered");
    assert_eq!(model.0.lock().unwrap().carried_out, wanted);
}

fn budget() -> impl Strategy<Value = Budget> {
    (0..700_usize, 0..700_usize).prop_map(|(orders, reports)| Budget { orders, reports })
}

proptest! {
    #[test]
    fn a_connection_that_is_torn_at_any_byte_loses_nothing_and_repeats_nothing(
        kinds in vec(any::<bool>(), 1..12),
        budgets in vec(budget(), 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(check(kinds, budgets));
    }
}
