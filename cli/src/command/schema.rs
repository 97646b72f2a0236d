//! `buildr schema`.

use crate::{Error, Exit, screen::Screen};

/// Print the JSON Schema of manifests, for editors
///
/// An editor with YAML support completes and checks manifests with it. `buildr lint` knows more: a
/// schema cannot say which stage another one needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr schema > buildr.schema.json
  # the first line of a manifest, for editors with yaml-language-server:
  # yaml-language-server: $schema=buildr.schema.json")]
pub(super) struct Args {}

/// Prints the schema.
pub(super) fn run(_args: &Args, screen: &Screen) -> Result<Exit, Error> {
    screen.print(buildr_manifest::schema::text().trim_end())?;
    Ok(Exit::OK)
}
