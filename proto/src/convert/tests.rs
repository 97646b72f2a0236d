//! Round trips and hostile values.
