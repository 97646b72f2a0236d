//! Whole jobs in the Docker of this machine. A machine without Docker fails these tests.

#![expect(clippy::unwrap_used, reason = "what a test needs is there, or the test fails")]

mod clean;
mod conditions;
mod ends;
mod environment;
mod faults;
mod harness;
mod hostile;
mod images;
mod leftovers;
mod order;
mod output;
mod own_containers;
mod stops;
mod users;
