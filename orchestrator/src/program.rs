//! The program around the library: arguments, log, signals, exit code.

use std::{io::Write, process::ExitCode};

use buildr_telemetry::{doctor, log};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Args, Command, Config, LogFormat},
    error::chain,
    server::Orchestrator,
};

/// More threads than this only cost memory: the state has one owner and SQLite threads of its own.
const MAX_WORKERS: usize = 4;

/// Runs the orchestrator with the process's arguments until SIGTERM or SIGINT. 0: it was told to
/// stop; 2: the settings are wrong; 1: it could not go on.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let format = match args.log_format {
        LogFormat::Human => log::Format::Human,
        LogFormat::Json => log::Format::Json,
    };
    log::start(format, &args.log_filter);
    raise_file_limit();
    // Variables and logs are nobody else's business, also where the folder was there before.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let command = args.command.clone();
    let config = match Config::try_from(args) {
        Ok(config) => config,
        Err(error) => return failed(&error, 2),
    };
    if let Some(Command::Doctor { json }) = command {
        return doctor(&config, if json { doctor::Format::Json } else { doctor::Format::Human });
    }
    let workers = std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, MAX_WORKERS));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, 1),
    };
    match runtime.block_on(run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error, 1),
    }
}

/// Tells what is wrong. 0: nothing; 4: something.
fn doctor(config: &Config, format: doctor::Format) -> ExitCode {
    let report = crate::doctor::examine(config);
    // Who closed standard output does not want to know; the exit code says it too.
    let _ = std::io::stdout().write_all(report.tell(format).as_bytes());
    ExitCode::from(report.exit_code())
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let orchestrator = Orchestrator::open(config).await?;
    let mut out = std::io::stdout();
    if let Some(address) = orchestrator.metrics_address() {
        tracing::info!(%address, "metrics and probes");
    }
    writeln!(out, "ready {}", orchestrator.address())?;
    out.flush()?;
    let shutdown = CancellationToken::new();
    let serving = orchestrator.run(shutdown.clone());
    tokio::pin!(serving);
    let stopped_by = tokio::select! {
        served = &mut serving => return Ok(served?),
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!(signal = stopped_by, "stopping");
    shutdown.cancel();
    Ok(serving.await?)
}

/// Every agent, client and open log takes a file descriptor; the usual soft limit of 1024 is for
/// programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

#[expect(clippy::print_stderr, reason = "the one place where this program reports why it ended")]
fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {}", chain(error));
    ExitCode::from(code)
}
