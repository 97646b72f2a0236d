//! The agent against an orchestrator and an engine made for the purpose: real protocol, real disk,
//! real connections that break, no Docker.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod adoption;
mod cuts;
mod harness;
mod jobs;
mod orchestrator;
mod proxy;
mod restarts;
mod runner;
mod stops;
