//! `buildr retry`.

use serde::Serialize;

use super::{Globals, user};
use crate::{Error, Exit, client::Which, screen::Screen};

/// Build the same commit again
///
/// The new build has a number of its own; an outcome never changes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr retry 42
  buildr tail $(buildr retry 42)")]
pub(super) struct Args {
    /// The build's number, or `latest`
    #[arg(value_name = "ID")]
    build: Which,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document {
    build: u64,
    repeats: u64,
}

/// Queues it, and prints its number.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let (build, repeats) = client.retry(args.build, &user()).await?;
    if args.json {
        screen.print_json(&Document { build: build.get(), repeats: repeats.get() })?;
    } else {
        screen.print(&build.to_string())?;
        screen.say(&format!("build {build} repeats build {repeats}; `buildr tail {build}` follows it"));
    }
    Ok(Exit::OK)
}
