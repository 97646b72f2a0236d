//! Which versions of the protocol this program speaks, and the metadata that every call carries.

use crate::{
    convert::{Invalid, Message},
    pb,
};

/// The metadata key of a call's token; its value is `Bearer TOKEN`.
pub const AUTHORIZATION: &str = "authorization";

/// The metadata key of an agent's secret, from which the orchestrator derives who the agent is.
pub const AGENT_CREDENTIAL: &str = "buildr-agent-credential";

/// What this program speaks. A version N program also speaks N-1.
pub const PROTOCOL: ProtocolRange = ProtocolRange { min: 1, max: 1 };

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolRange {
    /// The oldest that is understood.
    pub min: u32,
    /// The newest that is understood.
    pub max: u32,
}

impl ProtocolRange {
    /// The newest version that both understand; none where they have none in common.
    pub fn agree(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl From<ProtocolRange> for pb::ProtocolRange {
    fn from(range: ProtocolRange) -> Self {
        let ProtocolRange { min, max } = range;
        Self { min, max }
    }
}

impl TryFrom<pb::ProtocolRange> for ProtocolRange {
    type Error = Invalid;
    fn try_from(range: pb::ProtocolRange) -> Result<Self, Invalid> {
        let pb::ProtocolRange { min, max } = range;
        if min == 0 || max < min {
            return Err(Message("ProtocolRange").field("min").wrong(format!("{min} to {max} is no range")));
        }
        Ok(Self { min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let range = |min, max| ProtocolRange { min, max };
        assert_eq!(range(1, 3).agree(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).agree(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).agree(range(1, 1)), Some(1));
        assert_eq!(range(1, 1).agree(range(2, 3)), None);
    }

    #[test]
    fn a_range_that_is_none_is_refused() {
        for (min, max) in [(0, 1), (2, 1), (0, 0)] {
            assert!(ProtocolRange::try_from(pb::ProtocolRange { min, max }).is_err(), "{min} {max}");
        }
        assert_eq!(ProtocolRange::try_from(pb::ProtocolRange::from(PROTOCOL)), Ok(PROTOCOL));
    }
}
