//! `buildr-init SETTINGS [DIRECTORY]`: the first process of every build container; and, in a container
//! that it is in, `buildr-init listening PORT...`.
//!
//! It runs stages on the engine's orders and writes down what they print. It is single-threaded, so
//! that it can fork freely, and everything it waits for is in one poll loop ([`server`]). It never
//! looks at its environment and never trusts a file that a build can have touched.

mod clock;
mod control;
mod gauges;
mod launch;
mod line_reader;
mod link;
mod listening;
mod log;
mod own;
mod owning;
mod processes;
mod script;
mod server;
mod sessions;
mod stage;
mod sys;
mod user;

use std::{env, process::ExitCode};

use buildr_init::wire::{self, Settings};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.next_if(|first| first == "listening").is_some() {
        return listening::run(arguments);
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            sys::complain(&reason);
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let usage = "usage: buildr-init SETTINGS [DIRECTORY], where SETTINGS is JSON";
    let settings: Settings = serde_json::from_str(&arguments.next().ok_or(usage)?)
        .map_err(|error| format!("read the settings: {error}"))?;
    let directory = arguments.next().unwrap_or_else(|| wire::CONTROL_DIR.to_owned());
    let server = server::Server::start(settings, &directory)?;
    server.run().map_err(|error| format!("wait for events: {error}"))
}
