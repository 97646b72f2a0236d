//! The command line. Each command is a file in `command`: its arguments, whose doc comment is
//! the help, and a function. Results go to standard output, everything else to standard error.
//!
//! # Layout
//! - `command`: one file per command
//! - [`client`]: the orchestrator's other end; [`client::follow`] merges events and logs
//! - [`render`]: one way to show a build, local or remote
//! - [`error`]: errors, hints, exit codes
//! - `screen`: what standard output is, and the only way to print; `signals`: Ctrl-C and friends;
//!   `repository`: what the current folder says about a project
//!
//! It must never decide what a build means: that is `buildr-manifest`'s and `buildr-engine`'s.

pub mod client;
mod command;
pub mod error;
pub mod render;
mod repository;
mod screen;
mod show;
mod signals;

use std::process::ExitCode;

use clap::Parser;

pub use error::{Error, Exit};

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = match command::Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version end here as well; a reader that went away is nobody to tell.
            let _ = message.print();
            return ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2));
        }
    };
    let screen = screen::Screen::new(cli.globals.color);
    trace();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return screen.fail(&Error::io("start", error)),
    };
    let result = runtime.block_on(command::dispatch(cli, &screen));
    // What still blocks somewhere has no say in when we end.
    runtime.shutdown_background();
    match result {
        Ok(Exit(code)) => ExitCode::from(code),
        Err(error) => screen.fail(&error),
    }
}

/// Diagnostics for those who look for a fault: silent unless BUILDR_LOG asks for them.
fn trace() {
    let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("BUILDR_LOG") else { return };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
