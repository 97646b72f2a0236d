//! Who is at the other end of a connection: where it comes from, what it has open, and how it is cut.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The other end of a connection; in the extensions of each of its calls.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    calls: Arc<Mutex<Calls>>,
    cut: CancellationToken,
}

/// The open calls of a connection.
#[derive(Debug)]
struct Calls {
    open: usize,
    since: Instant,
}

/// A call that is open; over when this is dropped.
#[derive(Debug)]
pub struct OpenCall(Peer);

impl Peer {
    /// A new connection from there.
    pub fn new(address: IpAddr) -> Self {
        let calls = Arc::new(Mutex::new(Calls { open: 0, since: Instant::now() }));
        Self { address, calls, cut: CancellationToken::new() }
    }

    /// The peer of a request; one from nowhere is of this machine.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self::new(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// Where it comes from.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Ends the connection with all its calls.
    pub fn cut(&self) {
        self.cut.cancel();
    }

    /// Cancelled when the connection is to end.
    pub fn is_cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// A call begins.
    pub fn open(&self) -> OpenCall {
        self.count(|open| open + 1);
        OpenCall(self.clone())
    }

    /// When no call has been open for this long, if nothing happens until then.
    pub fn idle_at(&self, limit: Duration) -> Instant {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let since = if calls.open > 0 { Instant::now() } else { calls.since };
        since + limit
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls = Calls { open: change(calls.open), since: Instant::now() };
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.count(|open| open.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_only_without_an_open_call() {
        let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let call = peer.open();
        let now = Instant::now();
        assert!(peer.idle_at(Duration::ZERO) >= now, "it is busy for as long as one looks");
        drop(call);
        let since = peer.idle_at(Duration::ZERO);
        assert_eq!(peer.idle_at(Duration::ZERO), since, "it is idle since then");
        assert_eq!(peer.idle_at(Duration::from_secs(9)), since + Duration::from_secs(9));
    }
}
