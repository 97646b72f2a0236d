//! The program `buildr-orchestrator`.

fn main() -> std::process::ExitCode {
    buildr_orchestrator::cli_main()
}
