//! What time it is: for deadlines, and for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since the machine started, sleep included: a dead man's time goes on while a laptop is closed.
pub(crate) fn now() -> Duration {
    crate::sys::boot_time()
}

/// Since the Unix epoch, in nanoseconds.
pub(crate) fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
