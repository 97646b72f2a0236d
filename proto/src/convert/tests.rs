//! Everything survives the wire, and nothing wrong gets in.

mod hostile;
mod round_trip;
