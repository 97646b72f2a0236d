//! The other end of init: orders go down its standard input, and what it reports is kept on a
//! board that always shows the newest state. Reports carry the whole of what is known, and orders are
//! repeated until they were answered, so a reader of the board that is slow, or a connection that was
//! torn at any byte, loses nothing, and nothing is carried out twice.
//!
//! All that comes up is untrusted: a build with root can write there. It is bounded and never
//! believed beyond the build itself.

mod bounds;
mod lines;
mod outstanding;
mod session;

use std::{collections::BTreeMap, pin::Pin, time::Duration};

use buildr_init::wire::{NewOwner, Order, StageStatus};
use bytes::Bytes;
use futures_util::Stream;
use tokio::{
    io::AsyncWrite,
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};

pub(crate) use bounds::Bounds;
use outstanding::Sending;
use session::Session;

/// Orders waiting to be written. A job has two or three per stage.
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
    /// Init has answered us; what it knew of stages at that time is here.
    pub(crate) ready: bool,
    /// The stages that were started, by number.
    pub(crate) stages: BTreeMap<u32, StageStatus>,
    /// Nothing will come any more.
    pub(crate) closed: bool,
}

/// A container with an init in it. Dropping it ends the connection.
#[derive(Debug)]
pub(crate) struct Link {
    orders: mpsc::Sender<Sending>,
    board: watch::Receiver<Board>,
    /// Ends with the link.
    _tasks: JoinSet<()>,
    task: AbortHandle,
}

impl Link {
    /// Serves `first`, and what `connect` makes after it, and believes no report beyond `bounds`.
    /// With a `sign_of_life` init hears from us at least that often. The container may have been
    /// another engine's before, which is no more: nothing of what that one sent is mistaken for ours.
    pub(crate) fn open(
        first: Connection,
        connect: impl Connect,
        bounds: Bounds,
        sign_of_life: Option<Duration>,
    ) -> Self {
        let (orders, orders_out) = mpsc::channel(ORDERS);
        let (board_in, board) = watch::channel(Board::default());
        let mut tasks = JoinSet::new();
        let session = Session::new(board_in, bounds, sign_of_life);
        let task = tasks.spawn(session.serve(first, connect, orders_out));
        Self { orders, board, _tasks: tasks, task }
    }

    /// Sends an order; it is repeated until init has acknowledged it. Lost where the link has
    /// closed, which the board tells.
    pub(crate) async fn send(&self, order: Order) {
        let _closed = self.orders.send(Sending { order, answer: None }).await;
    }

    /// Has every file below `path` that belongs to one of `from` (to anybody, where that is empty)
    /// given to `to`, and tells what could not be; none where the link closed before it was known.
    pub(crate) async fn own(&self, path: &str, from: Vec<u32>, to: NewOwner) -> Option<Vec<String>> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Own { path: path.to_owned(), from, to };
        self.orders.send(Sending { order, answer: Some(answer) }).await.ok()?;
        answered.await.ok()
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

#[cfg(test)]
mod tests;
#[cfg(test)]
mod torn;
