//! Times and durations. Both types of a pair are foreign to this crate, so these are functions.

use std::time::Duration;

use jiff::Timestamp;

use super::{Field, Invalid};

const NANOS_PER_SECOND: i128 = 1_000_000_000;

/// The longest duration that the protocol knows, as `google.protobuf.Duration` says: 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// A point in time on its way out.
pub fn timestamp_to_pb(at: Timestamp) -> prost_types::Timestamp {
    let nanoseconds = at.as_nanosecond();
    let seconds = nanoseconds.div_euclid(NANOS_PER_SECOND);
    let nanos = nanoseconds.rem_euclid(NANOS_PER_SECOND);
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).expect("jiff's range is years -9999 to 9999"),
        nanos: i32::try_from(nanos).expect("a remainder of 10^9"),
    }
}

/// A point in time that must be set.
pub fn timestamp_from_pb(field: Field, at: Option<prost_types::Timestamp>) -> Result<Timestamp, Invalid> {
    let prost_types::Timestamp { seconds, nanos } = field.require(at)?;
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| i128::from(*nanos) < NANOS_PER_SECOND)
        .ok_or_else(|| field.wrong(format!("{nanos} nanoseconds in a second")))?;
    Timestamp::from_nanosecond(i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos))
        .map_err(|_| field.wrong(format!("{seconds} seconds since 1970 is not in a year of four digits")))
}

/// A duration on its way out; one beyond the protocol's 10,000 years becomes that.
pub fn duration_to_pb(duration: Duration) -> prost_types::Duration {
    let duration = duration.min(Duration::from_secs(MAX_SECONDS));
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).expect("at most 10,000 years"),
        nanos: i32::try_from(duration.subsec_nanos()).expect("less than 10^9"),
    }
}

/// A duration that must be set.
pub fn duration_from_pb(field: Field, duration: Option<prost_types::Duration>) -> Result<Duration, Invalid> {
    let prost_types::Duration { seconds, nanos } = field.require(duration)?;
    let nanos = u32::try_from(nanos).ok().filter(|nanos| i128::from(*nanos) < NANOS_PER_SECOND);
    match (u64::try_from(seconds), nanos) {
        (Ok(seconds), Some(nanos)) if seconds < MAX_SECONDS || (seconds == MAX_SECONDS && nanos == 0) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => Err(field.wrong("a duration is not negative and at most 10,000 years")),
    }
}

/// A duration that is zero where it is not set.
pub(super) fn elapsed_from_pb(
    field: Field,
    duration: Option<prost_types::Duration>,
) -> Result<Duration, Invalid> {
    duration.map_or(Ok(Duration::ZERO), |duration| duration_from_pb(field, Some(duration)))
}
