//! The orchestrator: accepts builds, queues them durably, hands them to agents, keeps logs and
//! results. It never clones a repository and knows nothing of containers.
//!
//! # Layout
//! - [`program`]: the program around it all; [`config`]: its settings; [`server`]: the parts together
//! - [`core`]: the state machine, pure
//! - [`hub`]: the task that owns it: one batch of inputs, one commit, then replies
//! - [`store`]: builds, attempts, stages, events; [`logs`]: the bytes of logs
//! - [`service`]: gRPC; [`auth`]: who calls; [`gate`]: how much one caller may have
//! - [`metrics`]: what can be measured of it all; [`doctor`]: what is wrong before it starts

pub mod auth;
pub mod config;
pub mod core;
pub mod doctor;
pub mod error;
pub mod gate;
pub mod hub;
pub mod logs;
pub mod metrics;
pub mod peer;
pub mod program;
pub mod server;
pub mod service;
pub mod store;

pub use config::Config;
pub use error::Error;
pub use program::main as cli_main;
pub use server::Orchestrator;

use tokio_util::sync::CancellationToken;

/// Opens the data folder, listens and serves until it is told to stop.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    Orchestrator::open(config).await?.run(shutdown).await
}
