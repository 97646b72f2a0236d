//! `buildr-agent`: joins a farm and runs its builds. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    buildr_agent::main()
}
