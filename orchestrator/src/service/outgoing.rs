//! A client's stream on its way out. It is bounded, and who does not read it is cut.

use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::gate::Follower;

/// The sending end; the client keeps its place among the followers as long as this is there.
pub(super) struct Outgoing<T> {
    to: mpsc::Sender<Result<T, Status>>,
    follower: Follower,
}

impl<T> Outgoing<T> {
    /// Both ends; so many messages may wait in between.
    pub(super) fn new(follower: Follower, waiting: usize) -> (Self, ReceiverStream<Result<T, Status>>) {
        let (to, receiver) = mpsc::channel(waiting);
        (Self { to, follower }, ReceiverStream::new(receiver))
    }

    /// Hands the client something, if it still reads.
    pub(super) async fn hand(&self, message: T) -> Result<(), Status> {
        self.send(Ok(message)).await
    }

    /// Tells the client why the stream ends.
    pub(super) async fn end(&self, status: Status) {
        // It may have gone; then nobody needs to be told.
        drop(self.send(Err(status)).await);
    }

    /// As [`Outgoing::end`] for one that cannot be waited for.
    pub(super) fn end_now(&self, status: Status) {
        drop(self.to.try_send(Err(status)));
    }

    /// The client has gone.
    pub(super) async fn closed(&self) {
        self.to.closed().await;
    }

    async fn send(&self, message: Result<T, Status>) -> Result<(), Status> {
        match timeout(self.follower.patience(), self.to.send(message)).await {
            Ok(sent) => sent.map_err(|_| Status::cancelled("the client has gone")),
            Err(_) => {
                // What waits for it is freed with the connection alone.
                self.follower.cut();
                Err(Status::aborted("nothing was read for too long"))
            }
        }
    }
}
