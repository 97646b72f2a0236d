//! The agent: joins a farm, runs its builds through the engine, and delivers events and logs.
pub mod backoff;
pub mod config;
pub mod identity;
pub mod spool;

use std::process::ExitCode;
/// The program.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
