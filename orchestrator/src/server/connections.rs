//! Connections as they come in: counted, refused beyond the limits, and ended when they say nothing.
//!
//! A connection has to speak soon after it was made; one on which no call is open is ended after a
//! while. Dead peers are HTTP/2's own pings' business.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::{
    gate::{Full, Patience, Place, Quota},
    metrics::Metrics,
    peer::Peer,
};

/// How long HTTP/2's greeting and the head of the frame behind it are, in bytes.
const GREETING: usize = 24 + 9;

/// Between two tries to accept where the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log says that connections are refused.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Connections as they are accepted, for as long as somebody asks for the next one.
pub(super) fn accept(
    listener: TcpListener,
    quota: Quota,
    patience: Patience,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = io::Result<Connection>> {
    let door = Door { listener, quota, patience, metrics, said: None };
    stream::unfold(door, |mut door| async move { Some((Ok(door.next().await), door)) })
}

struct Door {
    listener: TcpListener,
    quota: Quota,
    patience: Patience,
    metrics: Arc<Metrics>,
    said: Option<Instant>,
}

impl Door {
    async fn next(&mut self) -> Connection {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.say(|| tracing::warn!(%error, "a connection could not be accepted"));
                    sleep(PAUSE).await;
                    continue;
                }
            };
            match self.quota.take(address.ip()) {
                Ok(place) => {
                    // Without it a small answer waits for an acknowledgement; it works all the same.
                    let _ = stream.set_nodelay(true);
                    return Connection::new(
                        stream,
                        Peer::new(address.ip()),
                        place,
                        self.patience,
                        self.metrics.clone(),
                    );
                }
                // It is closed: there is no gRPC to say more with before the greeting.
                Err(full) => self.refuse(full, address.ip()),
            }
        }
    }

    fn refuse(&mut self, full: Full, address: IpAddr) {
        let (limit, flag) = match full {
            Full::Total => ("connections", "--max-connections"),
            Full::Address => ("connections_per_address", "--max-connections-per-address"),
        };
        self.metrics.refuse(limit);
        self.say(|| tracing::warn!(%address, limit, flag, "connections are refused"));
    }

    fn say(&mut self, what: impl FnOnce()) {
        if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said = Some(Instant::now());
            what();
        }
    }
}

/// A connection that is counted.
pub(super) struct Connection {
    stream: TcpStream,
    peer: Peer,
    metrics: Arc<Metrics>,
    _place: Place,
    /// How much of the greeting is still to come.
    greeting: usize,
    idle: Duration,
    alarm: Pin<Box<Sleep>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn new(stream: TcpStream, peer: Peer, place: Place, patience: Patience, metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        let cut = Box::pin(peer.is_cut().clone().cancelled_owned());
        let alarm = Box::pin(sleep(patience.greeting));
        Self { stream, peer, metrics, _place: place, greeting: GREETING, idle: patience.idle, alarm, cut }
    }

    /// Ready when the connection is to end whatever it has to say.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.cut.as_mut().poll(cx).map(|()| io::ErrorKind::ConnectionAborted.into())
    }

    /// Ready when the connection has said nothing for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            if self.greeting > 0 {
                return Poll::Ready(());
            }
            let idle_at = self.peer.idle_at(self.idle);
            if idle_at <= Instant::now() {
                return Poll::Ready(());
            }
            self.alarm.set(sleep_until(idle_at));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_cut(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                self.greeting = self.greeting.saturating_sub(buffer.filled().len() - before);
                Poll::Ready(result)
            }
            // Reading its end is how a connection that says nothing ends.
            Poll::Pending => self.poll_silent(cx).map(Ok),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_cut(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_cut(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
