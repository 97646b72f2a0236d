//! The other end of init: orders go down its standard input, and what it reports is kept on a
//! board that always shows the newest state. Reports carry the whole of what is known, so a reader
//! of the board that is slow, or a connection that was torn, misses nothing.
//!
//! All that comes up is untrusted: a build with root can write there. It is bounded and never
//! believed beyond the build itself.

mod bounds;

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use buildr_init::wire::{Command, MAX_LINE, Order, Report, StageStatus};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval_at},
};

pub(crate) use bounds::Bounds;

/// Orders waiting to be written. A job has two or three per stage, one at a time.
const ORDERS: usize = 16;

/// One connection to a container: what it writes, and its standard input.
pub(crate) struct Connection {
    pub(crate) output: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    pub(crate) input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// Makes connections: the first, and another one where one was lost and the container lives on.
pub(crate) trait Connect: Send + 'static {
    /// The next connection; none where there is nothing to connect to any more.
    fn connect(&mut self) -> impl Future<Output = Option<Connection>> + Send;
}

/// What is known of a container from the inside.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Board {
    /// Init has spoken.
    pub(crate) ready: bool,
    /// The stages that were started, by number.
    pub(crate) stages: BTreeMap<u32, StageStatus>,
    /// The answer to the last [`Order::Own`].
    pub(crate) owned: Option<Vec<String>>,
    /// Nothing will come any more.
    pub(crate) closed: bool,
}

/// A container with an init in it. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    board: watch::Receiver<Board>,
    /// Ends with the link.
    _tasks: JoinSet<()>,
    task: AbortHandle,
}

impl Link {
    /// Serves `first`, and what `connect` makes after it, and believes no report beyond `bounds`.
    /// With a `sign_of_life` init hears from us at least that often.
    pub(crate) fn open(
        first: Connection,
        connect: impl Connect,
        bounds: Bounds,
        sign_of_life: Option<Duration>,
    ) -> Self {
        let (orders, orders_out) = mpsc::channel(ORDERS);
        let (board_in, board) = watch::channel(Board::default());
        let mut tasks = JoinSet::new();
        let session = Session { board: board_in, unacknowledged: Mutex::default(), bounds, sign_of_life };
        let task = tasks.spawn(session.serve(first, connect, orders_out));
        Self { orders, board, _tasks: tasks, task }
    }

    /// Sends an order; it is repeated until init has acknowledged it. Lost where the link has
    /// closed, which the board tells.
    pub(crate) async fn send(&self, order: Order) {
        let _closed = self.orders.send(order).await;
    }

    /// A view of the board.
    pub(crate) fn board(&self) -> watch::Receiver<Board> {
        self.board.clone()
    }

    /// Waits until the board shows what is wanted, or has closed; tells which.
    pub(crate) async fn shows(&self, mut wanted: impl FnMut(&Board) -> bool) -> bool {
        let mut board = self.board();
        match board.wait_for(|board| board.closed || wanted(board)).await {
            Ok(board) => wanted(&board),
            Err(_) => false,
        }
    }

    /// Waits until nothing will come any more.
    pub(crate) async fn closed(&self) {
        self.shows(|_| false).await;
    }

    /// Ends the connection for good.
    pub(crate) fn close(&self) {
        self.task.abort();
    }
}

/// The state of a link over all its connections.
struct Session {
    board: watch::Sender<Board>,
    unacknowledged: Mutex<VecDeque<Command>>,
    bounds: Bounds,
    sign_of_life: Option<Duration>,
}

/// Says on the board that it is over, however the task ends.
struct Closing<'a>(&'a watch::Sender<Board>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|board| board.closed = true);
    }
}

impl Session {
    async fn serve(self, first: Connection, mut connect: impl Connect, mut orders: mpsc::Receiver<Order>) {
        let _closing = Closing(&self.board);
        let mut next_number = 1;
        let mut connection = Some(first);
        while let Some(Connection { output, input }) = connection {
            tokio::select! {
                () = self.read(output) => {}
                () = self.write(input, &mut orders, &mut next_number) => {}
            }
            tracing::debug!("the connection to init ended");
            connection = connect.connect().await;
        }
    }

    /// Until the end of the output.
    async fn read(&self, mut output: Pin<Box<dyn Stream<Item = Bytes> + Send>>) {
        let mut lines = Lines::default();
        while let Some(chunk) = output.next().await {
            lines.feed(&chunk, |line| {
                if let Ok(report) = serde_json::from_slice(line) {
                    self.take(report);
                }
            });
        }
    }

    fn take(&self, report: Report) {
        match report {
            Report::Ack { seq } => self.acknowledge(seq),
            Report::State { seq, stages, .. } => {
                self.acknowledge(seq);
                self.board.send_modify(|board| {
                    board.ready = true;
                    stages.into_iter().for_each(|stage| note(board, stage, &self.bounds));
                });
            }
            Report::Stage(stage) => self.board.send_modify(|board| note(board, stage, &self.bounds)),
            Report::Owned { errors, .. } => {
                self.board.send_modify(|board| board.owned = Some(bounds::complaints(errors)));
            }
        }
    }

    fn acknowledge(&self, seq: u64) {
        self.unacknowledged().retain(|command| command.seq > seq);
    }

    fn unacknowledged(&self) -> MutexGuard<'_, VecDeque<Command>> {
        self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the input takes no more. What was not acknowledged over an earlier connection goes
    /// first; before it an empty line, which ends a line that may have been torn.
    async fn write(
        &self,
        mut input: Pin<Box<dyn AsyncWrite + Send>>,
        orders: &mut mpsc::Receiver<Order>,
        next_number: &mut u64,
    ) {
        let query = Command { seq: 0, order: Order::Query };
        let repeated: Vec<_> = self.unacknowledged().iter().cloned().collect();
        let mut text = vec![b'\n'];
        for command in std::iter::once(&query).chain(&repeated) {
            append_line(&mut text, command);
        }
        let mut signs = SignsOfLife::every(self.sign_of_life);
        loop {
            if input.write_all(&text).await.is_err() || input.flush().await.is_err() {
                tracing::debug!("init takes no more orders");
                return std::future::pending().await;
            }
            text.clear();
            tokio::select! {
                Some(order) = orders.recv() => {
                    let command = Command { seq: *next_number, order };
                    *next_number += 1;
                    append_line(&mut text, &command);
                    self.unacknowledged().push_back(command);
                }
                () = signs.next() => append_line(&mut text, &query),
                else => return std::future::pending().await,
            }
        }
    }
}

/// Ticks, or never does.
struct SignsOfLife(Option<tokio::time::Interval>);

impl SignsOfLife {
    fn every(period: Option<Duration>) -> Self {
        Self(period.map(|period| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Takes a stage's news, where it is a stage of ours and the news is newer.
fn note(board: &mut Board, news: StageStatus, bounds: &Bounds) {
    let Some(news) = bounds.stage(news) else { return };
    match board.stages.get(&news.stage) {
        Some(known) if known.end.is_some() || known.log_bytes > news.log_bytes => {}
        _ => {
            board.stages.insert(news.stage, news);
        }
    }
}

fn append_line(text: &mut Vec<u8>, command: &Command) {
    let line = serde_json::to_vec(command).expect("an order has only strings for keys");
    text.extend_from_slice(&line);
    text.push(b'\n');
}

/// Cuts a stream of bytes into lines. A line that is too long is dropped as a whole.
#[derive(Debug, Default)]
struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            if !self.too_long {
                line(&self.begun);
            }
            self.begun.clear();
            self.too_long = false;
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.too_long || self.begun.len() + bytes.len() > MAX_LINE {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests;
