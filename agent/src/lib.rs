//! The agent: joins a farm, runs its builds through the engine, and brings events and logs to the
//! orchestrator. Work is not tied to a connection: a broken one stops nothing.
//!
//! # Layout
//! - [`config`], [`identity`]: what the operator wants, who the agent is
//! - [`session`], [`link`]: the stream of hints and reconciliation; the calls that carry facts
//! - [`lifeline`]: how long the orchestrator has been silent
//! - [`fleet`], [`attempt`]: which attempts there are, in which slots, and what is wanted of them
//! - [`job`], [`runner`]: the life of one attempt; the seam to the engine
//! - [`spool`], [`delivery`]: what is not yet acknowledged, on disk; how it gets there
//! - [`agent`]: all of it together, and how it ends
//! - [`metrics`]: what can be measured of it; [`doctor`]: what is wrong with its machine
//! - [`program`]: the command line around it

pub mod agent;
pub mod attempt;
pub mod backoff;
pub mod config;
pub mod delivery;
pub mod doctor;
pub mod fleet;
pub mod identity;
pub mod job;
mod leftovers;
pub mod lifeline;
pub mod link;
pub mod metrics;
pub mod program;
pub mod runner;
pub mod session;
pub mod spool;

pub use self::{
    agent::{Agent, Shutdown},
    config::Config,
    program::main,
};
