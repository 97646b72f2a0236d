//! The engine: turns a project with a manifest into a finished job in containers, and tells what
//! happens as one ordered stream. `buildr run` and the agent use it alike; it knows nothing of the
//! farm, the network protocol or the terminal.
//!
//! # Layout
//! - [`engine`]: settings, and the three things that can be asked: prepare, run, reap
//! - [`job`]: the request and the stream
//! - `prepare`: with [`source`], `manifest_file` and [`planning`], up to a plan
//! - `run`: `boot`, `conductor`, `stage`, `finish`; how a job stands is in `state`, what an end means
//!   in `verdict`, what is known after a crash in `journal`
//! - `link`, `watch`, `control`: init's other end, a stage as a stream, the log files
//! - `docker`, `container`, `image`, `network`, `labels`, `credentials`: Docker
//! - `examine`: what is wrong with this machine
//! - `run_folder`, `claim`, `reaper`, `janitor`, `removal`: what a run owns, and how it goes away

mod claim;
mod clock;
mod container;
mod control;
mod credentials;
mod docker;
pub mod engine;
mod environment;
mod error;
mod estate;
mod examine;
mod feed;
mod handed_on;
mod image;
mod init_program;
mod janitor;
pub mod job;
mod journal;
mod labels;
mod link;
mod manifest_file;
mod network;
mod past;
pub mod planning;
mod prepare;
mod reaper;
mod removal;
mod run;
mod run_folder;
mod services;
pub mod source;
mod state;
#[cfg(test)]
mod testing;
mod texts;
mod verdict;
mod watch;

pub use claim::Claim;
pub use engine::{Config, DockerSocket, Engine, Lifetime, Pull};
pub use error::Error;
pub use estate::Estate;
pub use examine::{Finding, Weight};
pub use job::{
    Afterwards, EventFacts, FailedIn, Finished, GitReference, GitSource, Heard, Identity, Item, JobRequest,
    Kept, NotAdopted, Output, Prepared, RunId, SourceSpec, Stop,
};
pub use reaper::Reaped;

/// Does what blocks on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}
