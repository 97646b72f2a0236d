//! Durations in JSON: seconds, as a number with a fraction. Exact to the nanosecond below 48 days,
//! where whatever a build can last is.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes a duration as seconds.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// Reads a duration from seconds.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// As above, where a duration may be unknown.
pub mod option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// Writes a duration as seconds.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
    }

    /// Reads a duration from seconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(deserializer)?;
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, Deserialize)]
    struct Took(#[serde(with = "super")] Duration);

    #[test]
    fn a_duration_is_a_number_of_seconds_and_comes_back_as_it_was() {
        for (seconds, nanos, json) in [
            (0, 0, "0.0"),
            (0, 6_082_459, "0.006082459"),
            (3600, 0, "3600.0"),
            (4_000_000, 999_999_999, "4000000.999999999"),
        ] {
            let took = Took(Duration::new(seconds, nanos));
            assert_eq!(serde_json::to_string(&took).unwrap(), json);
            assert_eq!(serde_json::from_str::<Took>(json).unwrap(), took);
        }
        assert!(serde_json::from_str::<Took>("-1").is_err());
        assert_eq!(serde_json::from_str::<Took>("2").unwrap(), Took(Duration::from_secs(2)));
    }
}
