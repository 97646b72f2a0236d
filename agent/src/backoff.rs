//! How long to wait before the next try. Pure but for its randomness; never sleeps itself.

use std::time::Duration;

/// The shortest and the longest wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Before the second try.
    pub first: Duration,
    /// However often it failed.
    pub most: Duration,
}

/// Waits that double from the first to the longest, each shortened by up to a half at random, so
/// that a thousand agents do not come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    limits: Limits,
    next: Duration,
}

impl Backoff {
    /// Begins with the shortest wait.
    pub fn new(limits: Limits) -> Self {
        Self { limits, next: limits.first }
    }

    /// The wait before the next try.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next.min(self.limits.most);
        self.next = (whole * 2).min(self.limits.most);
        whole.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Something worked: the next failure begins with the shortest wait again.
    pub fn reset(&mut self) {
        self.next = self.limits.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { first: Duration::from_millis(100), most: Duration::from_secs(5) };

    #[test]
    fn waits_double_up_to_the_longest_and_lose_at_most_a_half() {
        let mut backoff = Backoff::new(LIMITS);
        for whole in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.pause().as_millis();
            assert!((whole / 2..=whole).contains(&wait), "{wait} of {whole}");
        }
    }

    #[test]
    fn a_success_brings_back_the_shortest_wait() {
        let mut backoff = Backoff::new(LIMITS);
        (0..10).for_each(|_| {
            backoff.pause();
        });
        backoff.reset();
        assert!(backoff.pause() <= LIMITS.first);
    }

    #[test]
    fn two_agents_do_not_wait_the_same_time() {
        let waits: Vec<_> = (0..20).map(|_| Backoff::new(LIMITS).pause()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
