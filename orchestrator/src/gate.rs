//! How much one caller may have: connections, streams that follow, calls per second. One address is
//! one caller, because all clients share a token; of IPv6 it is the network of 64 bits, which is
//! what one machine gets.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{
    RateLimiter,
    clock::{Clock, MonotonicClock},
    state::keyed::HashMapStateStore,
};

use crate::{error::Error, metrics::Metrics, peer::Peer};

/// A bucket holds what comes in this many seconds: a script that submits a few hundred builds at
/// once is no attack.
const BURST: u32 = 10;

/// What one address has at most of what all may have: half, so that nobody shuts the others out.
const SHARE: usize = 2;

/// What callers may have. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections of all callers. Each takes a file descriptor and some 50 KiB.
    pub connections: usize,
    /// Connections of one address; a proxy in front makes many callers one.
    pub connections_per_address: usize,
    /// Streams that follow builds and logs, of all callers. Each may hold 1 MiB for a slow reader.
    pub followers: usize,
    /// Submits of one address per second.
    pub submits: u32,
    /// Calls of one address per second that read: get, list, the beginnings of streams.
    pub reads: u32,
    /// How long callers are waited for.
    pub patience: Patience,
}

/// How long callers are waited for. Fixed in the program, and shorter in tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A new connection may take this long for its first bytes: HTTP/2's greeting and a frame's head.
    pub greeting: Duration,
    /// A connection without an open call is ended after this. Agents have a session open, and both
    /// they and clients connect again without being told.
    pub idle: Duration,
    /// A client that takes nothing of a stream for this long has to connect again and goes on from
    /// where it was: a pager that somebody left open holds memory here.
    pub reads: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            greeting: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            reads: Duration::from_secs(300),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_address: 4_000,
            followers: 2_000,
            submits: 100,
            reads: 1_000,
            patience: Patience::default(),
        }
    }
}

/// Lets callers in, or not.
pub struct Gate {
    submits: Rate,
    reads: Rate,
    followers: Quota,
    patience: Patience,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// With these settings.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Settings { connections: _, connections_per_address: _, followers, submits, reads, patience } =
            settings;
        Self {
            submits: Rate::new(submits),
            reads: Rate::new(reads),
            followers: Quota::new(followers, followers.div_ceil(SHARE)),
            patience,
            metrics,
        }
    }

    /// A submit of this caller.
    pub fn submit(&self, caller: &Peer) -> Result<(), Error> {
        self.submits
            .take(caller.address())
            .map_err(|after| self.refuse("submits", "submits", "--max-submits", after))
    }

    /// A call of this caller that reads.
    pub fn read(&self, caller: &Peer) -> Result<(), Error> {
        self.reads.take(caller.address()).map_err(|after| self.refuse("reads", "calls", "--max-reads", after))
    }

    /// A stream of this caller that follows, as long as the place is held.
    pub fn follow(&self, caller: &Peer) -> Result<Follower, Error> {
        self.read(caller)?;
        let full = |_| self.refuse("followers", "streams", "--max-followers", Duration::from_secs(5));
        let place = self.followers.take(caller.address()).map_err(full)?;
        self.metrics.followers.inc();
        let (metrics, peer, patience) = (self.metrics.clone(), caller.clone(), self.patience.reads);
        Ok(Follower { metrics, peer, patience, _place: place })
    }

    fn refuse(&self, limit: &'static str, what: &'static str, flag: &'static str, after: Duration) -> Error {
        self.metrics.refuse(limit);
        Error::TooMuch { what, flag, after }
    }
}

/// A place among the followers; free again when this is dropped.
pub struct Follower {
    metrics: Arc<Metrics>,
    peer: Peer,
    patience: Duration,
    _place: Place,
}

impl Follower {
    /// How long it may read nothing.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Ends the connection that it came on.
    pub fn cut(&self) {
        self.peer.cut();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.metrics.followers.dec();
    }
}

type Buckets = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, MonotonicClock>;

/// How often, by address.
struct Rate(Option<(Buckets, Mutex<Instant>)>);

/// How often full buckets, which say nothing, are thrown away.
const TIDY: Duration = Duration::from_secs(10);

impl Rate {
    fn new(per_second: u32) -> Self {
        Self(NonZeroU32::new(per_second).map(|rate| {
            let burst = rate.saturating_mul(NonZeroU32::new(BURST).unwrap_or(rate));
            let quota = governor::Quota::per_second(rate).allow_burst(burst);
            (RateLimiter::hashmap_with_clock(quota, MonotonicClock), Mutex::new(Instant::now()))
        }))
    }

    fn take(&self, caller: IpAddr) -> Result<(), Duration> {
        let Some((buckets, tidied)) = &self.0 else { return Ok(()) };
        let mut tidied = lock(tidied);
        if tidied.elapsed() > TIDY {
            buckets.retain_recent();
            *tidied = Instant::now();
        }
        drop(tidied);
        buckets.check_key(&network(caller)).map_err(|not_yet| not_yet.wait_time_from(MonotonicClock.now()))
    }
}

/// So many in all, and so many of one address.
#[derive(Clone)]
pub struct Quota(Arc<Counts>);

struct Counts {
    total: usize,
    each: usize,
    taken: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That of all.
    Total,
    /// That of one address.
    Address,
}

/// A place; free again when this is dropped.
pub struct Place {
    counts: Arc<Counts>,
    address: IpAddr,
}

impl Quota {
    /// So many in all, and so many of one address; 0 is no limit.
    pub fn new(total: usize, each: usize) -> Self {
        let limit = |count| if count == 0 { usize::MAX } else { count };
        Self(Arc::new(Counts { total: limit(total), each: limit(each), taken: Mutex::default() }))
    }

    /// One more of this address.
    pub fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let address = network(address);
        let (total, each) = &mut *lock(&self.0.taken);
        if *total >= self.0.total {
            return Err(Full::Total);
        }
        if each.get(&address).is_some_and(|count| *count >= self.0.each) {
            return Err(Full::Address);
        }
        *total += 1;
        *each.entry(address).or_default() += 1;
        Ok(Place { counts: self.0.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (total, each) = &mut *lock(&self.counts.taken);
        *total = total.saturating_sub(1);
        if let Some(count) = each.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                each.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after every statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::new(ip(text))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn gate(settings: Settings) -> Gate {
        Gate::new(settings, Arc::default())
    }

    #[test]
    fn a_bucket_is_one_addresss_alone_and_says_when_to_come_again() {
        let gate = gate(Settings { submits: 1, ..Settings::default() });
        for _ in 0..BURST {
            gate.submit(&peer("10.0.0.1")).unwrap();
        }
        let error = gate.submit(&peer("10.0.0.1")).unwrap_err();
        let Error::TooMuch { after, .. } = error else { panic!("{error}") };
        assert!(after > Duration::ZERO && after <= Duration::from_secs(1), "{after:?}");
        gate.submit(&peer("10.0.0.2")).unwrap();
        gate.read(&peer("10.0.0.1")).unwrap();
    }

    #[test]
    fn no_limit_is_none() {
        let gate = gate(Settings { submits: 0, followers: 0, reads: 0, ..Settings::default() });
        for _ in 0..10_000 {
            gate.submit(&peer("10.0.0.1")).unwrap();
        }
        let followers: Vec<_> = (0..5_000).map(|_| gate.follow(&peer("::1")).unwrap()).collect();
        assert_eq!(gate.metrics.followers.get(), 5_000);
        drop(followers);
        assert_eq!(gate.metrics.followers.get(), 0);
    }

    #[test]
    fn a_place_is_free_when_its_holder_is_gone() {
        let quota = Quota::new(3, 2);
        let first = quota.take(ip("10.0.0.1")).unwrap();
        let second = quota.take(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(quota.take(ip("10.0.0.1")).err(), Some(Full::Address));
        let third = quota.take(ip("10.0.0.2")).unwrap();
        assert_eq!(quota.take(ip("10.0.0.3")).err(), Some(Full::Total));
        drop((first, second, third));
        assert!(quota.take(ip("10.0.0.3")).is_ok());
        assert!(lock(&quota.0.taken).1.is_empty());
    }

    #[test]
    fn a_machine_with_many_ipv6_addresses_is_one() {
        assert_eq!(network(ip("2001:db8::1")), network(ip("2001:db8::ffff")));
        assert_ne!(network(ip("2001:db8:0:1::1")), network(ip("2001:db8::1")));
    }
}
