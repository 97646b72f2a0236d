//! The orchestrator from outside: a real server on a free port, and real gRPC clients that play
//! agents and users.

#![expect(clippy::unwrap_used, reason = "a test fails where something is not there")]

mod abuse;
mod access;
mod cancel;
mod fencing;
mod harness;
mod life;
mod limits;
mod logs;
mod queue;
mod restart;
mod watched;
