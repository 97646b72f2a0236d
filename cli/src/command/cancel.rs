//! `buildr cancel`.

use serde::Serialize;

use super::{Globals, user};
use crate::{Error, Exit, client::Which, screen::Screen};

/// End a build
///
/// What runs is given ten seconds to end by itself; stages that always run still do. Canceling a
/// build again, or one that has ended, changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr cancel 42
  buildr cancel latest")]
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
    already_finished: bool,
    finished: bool,
}

/// Asks for the end, and says what became of it.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let canceled = client.cancel(args.build, &user()).await?;
    let build = canceled.build;
    if args.json {
        screen.print_json(&Document {
            build: build.get(),
            already_finished: canceled.already_finished,
            finished: canceled.finished,
        })?;
    } else if canceled.already_finished {
        screen.print(&format!("build {build} had ended already; nothing was changed"))?;
    } else if canceled.finished {
        screen.print(&format!("build {build} is canceled"))?;
    } else {
        screen.print(&format!("build {build} is being canceled; `buildr tail {build}` shows its end"))?;
    }
    Ok(Exit::OK)
}
