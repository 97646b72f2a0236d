//! The command line, `buildr`.

use std::process::ExitCode;

fn main() -> ExitCode {
    buildr_cli::main()
}
