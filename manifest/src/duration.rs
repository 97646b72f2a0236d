//! Lengths of time as a manifest writes them: `90s`, `10m`, `1h30m`, `30d`.

use std::time::Duration;

/// Why a text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidDuration {
    /// Only digits: nobody can tell what they count.
    NoUnit,
    /// It is zero.
    Zero,
    /// More than [`MAX`].
    TooLong,
    /// Anything else.
    Malformed,
}

/// The longest that can be written.
const MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads days, hours, minutes and seconds, each at most once and in this order.
pub(crate) fn parse(text: &str) -> Result<Duration, InvalidDuration> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(InvalidDuration::NoUnit);
    }
    let mut units = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)].into_iter();
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let unit = rest[digits..].chars().next().ok_or(InvalidDuration::Malformed)?;
        let (_, seconds) = units.find(|(name, _)| *name == unit).ok_or(InvalidDuration::Malformed)?;
        if digits == 0 {
            return Err(InvalidDuration::Malformed);
        }
        let count: u64 = rest[..digits].parse().map_err(|_| InvalidDuration::TooLong)?;
        total = total.saturating_add(count.saturating_mul(seconds));
        rest = &rest[digits + unit.len_utf8()..];
    }
    match Duration::from_secs(total) {
        _ if text.is_empty() => Err(InvalidDuration::Malformed),
        Duration::ZERO => Err(InvalidDuration::Zero),
        long if long > MAX => Err(InvalidDuration::TooLong),
        duration => Ok(duration),
    }
}

/// A limit as a manifest would write it; what is no whole number of seconds has a fraction.
pub(crate) fn words(limit: Duration) -> String {
    if limit.subsec_nanos() != 0 || limit.is_zero() {
        return format!("{limit:?}");
    }
    let seconds = limit.as_secs();
    [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

impl InvalidDuration {
    /// What is wrong, to follow the text itself.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::NoUnit => "has no unit",
            Self::Zero => "is no time at all",
            Self::TooLong => "is longer than a year",
            Self::Malformed => "is not a length of time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_as_a_manifest_writes_it() {
        for text in ["45s", "1m", "1m30s", "24h", "1h30m", "1h1m1s"] {
            assert_eq!(words(parse(text).unwrap()), text);
        }
        assert_eq!(words(Duration::from_millis(1500)), "1.5s");
        assert_eq!(words(Duration::ZERO), "0ns");
    }

    #[test]
    fn hours_minutes_and_seconds_add_up() {
        for (text, seconds) in [
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("2h", 7200),
            ("1h1m1s", 3661),
            ("1h5s", 3605),
            ("30d", 2_592_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_says_what_is_wrong() {
        use InvalidDuration::{Malformed, NoUnit, TooLong, Zero};
        for (text, why) in [
            ("10", NoUnit),
            ("0s", Zero),
            ("0h0m", Zero),
            ("", Malformed),
            ("m", Malformed),
            ("10 m", Malformed),
            ("1.5h", Malformed),
            ("10m1h", Malformed),
            ("1m1m", Malformed),
            ("-1s", Malformed),
            ("10min", Malformed),
            ("9000h", TooLong),
            ("99999999999999999999h", TooLong),
            ("1é", Malformed),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }
}
