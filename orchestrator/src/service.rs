//! The gRPC edge: messages in, inputs to the hub; what is committed, out again as messages.
//!
//! Generated types are used only below here. Every stream ends when the orchestrator stops.

pub mod agents;
pub mod builds;
mod explain;
mod farm;
mod incoming;
mod log_reader;
mod log_writer;
mod outgoing;
mod session;
mod watch;

use std::sync::Arc;

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{gate::Gate, hub::Hub, logs::Logs, metrics::Metrics};

/// What both services need.
#[derive(Clone)]
pub struct Context {
    /// The owner of the state.
    pub hub: Hub,
    /// The logs.
    pub logs: Arc<Logs>,
    /// What callers may have.
    pub gate: Arc<Gate>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// The tasks behind streams.
    pub tasks: TaskTracker,
    /// Ends every stream.
    pub stop: CancellationToken,
}

/// What a stream says when the orchestrator stops.
fn stopping() -> Status {
    Status::unavailable("the orchestrator is stopping: connect again in a moment")
}
