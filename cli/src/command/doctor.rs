//! `buildr doctor`.

use buildr_engine::{Engine, Finding, Weight};
use buildr_telemetry::doctor::{Check, Format, Report, clock, disk, program};
use jiff::Timestamp;

use super::Globals;
use crate::{Error, Exit, screen::Screen};

/// Below this much free disk a local build has little room.
const ROOM: u64 = 1 << 30;

/// Look for what is wrong with this machine and the way to the orchestrator
///
/// Each finding says what to do. Exits with 0 where there is no problem, with 4 where there is one;
/// a warning is none. `buildr-agent doctor` and `buildr-orchestrator doctor` do the same for theirs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr doctor
  buildr --orchestrator ci.example.com:50051 doctor --json")]
pub(super) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Looks, and tells what it found.
pub(super) async fn run(args: &Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let mut checks = docker().await;
    checks.extend([
        disk(&std::env::temp_dir(), ROOM),
        program(
            "git",
            "--version",
            "install git: without it ~/.ssh/config and credential helpers are not used",
        ),
    ]);
    checks.extend(orchestrator(globals).await);
    let report = Report::new("buildr", env!("CARGO_PKG_VERSION"), checks);
    let format = if args.json { Format::Json } else { Format::Human };
    screen.print(report.tell(format).trim_end())?;
    Ok(Exit(report.exit_code()))
}

async fn docker() -> Vec<Check> {
    // A folder that is there already, so that looking makes nothing.
    match Engine::connect(buildr_engine::Config::new(std::env::temp_dir(), "doctor")).await {
        Ok(engine) => {
            let found = engine.examine().await;
            let well = found.is_empty().then(|| Check::ok("docker", "answers, and is as builds need it"));
            found.into_iter().map(told).chain(well).collect()
        }
        Err(error) => {
            let advice = error.hint().unwrap_or("see that the Docker daemon of this machine runs");
            let cause =
                std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            vec![Check::problem("docker", format!("{error}{cause}"), advice)]
        }
    }
}

fn told(Finding { subject, weight, problem, what_to_do }: Finding) -> Check {
    match weight {
        Weight::Fatal => Check::problem(subject, problem, what_to_do),
        Weight::Warning => Check::warning(subject, problem, what_to_do),
    }
}

async fn orchestrator(globals: &Globals) -> Vec<Check> {
    const NAME: &str = "orchestrator";
    let asked = async {
        let client = globals.connect().await?;
        let date = client.date().await?;
        Ok::<_, Error>((client.address().to_owned(), date))
    };
    match asked.await {
        Ok((address, date)) => {
            vec![
                Check::ok(NAME, format!("{address} answers and lets you in")),
                clock(date.as_deref(), Timestamp::now()),
            ]
        }
        Err(error) if globals.is_usual_orchestrator() => vec![Check::warning(
            NAME,
            error.to_string(),
            "`buildr run` needs none; for the farm set BUILDR_ORCHESTRATOR, or start one here with `buildr up`",
        )],
        Err(error) => {
            let advice = error.hint().unwrap_or_else(|| "see that it runs there".to_owned());
            vec![Check::problem(NAME, error.to_string(), advice)]
        }
    }
}
