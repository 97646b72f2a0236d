//! The time since the machine was started, suspensions included: what can be compared over the ends of
//! processes, and is changed by nobody.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
