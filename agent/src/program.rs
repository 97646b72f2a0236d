//! The program around the agent: arguments, the agent's own log, signals, exit codes.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use buildr_engine::{Engine, Finding, Lifetime, Weight};
use buildr_telemetry::{doctor, listener::Listener, log};
use clap::Parser;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Shutdown},
    config::{Args, Command, Config, DockerSocket, LogFormat, Pull},
    identity::Identity,
    metrics::Watched,
    session::Connection,
};

const USAGE: u8 = 2;
const FAULT: u8 = 4;

/// How long the end waits for a call that blocks and cannot be interrupted.
const LINGER: Duration = Duration::from_secs(2);

/// A build whose agent's process is gone ends itself after this time.
const DEAD_MAN: Duration = Duration::from_secs(600);

/// The program `buildr-agent`.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let format = match args.log_format {
        LogFormat::Human => log::Format::Human,
        LogFormat::Json => log::Format::Json,
    };
    log::start(format, &args.log_filter);
    let command = args.command.clone();
    let environment: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let config = match Config::new(args, &environment) {
        Ok(config) => config,
        Err(error) => return failed(&error.into(), USAGE),
    };
    let ended = match command {
        Some(Command::Doctor { json }) => {
            let format = if json { doctor::Format::Json } else { doctor::Format::Human };
            block_on(doctor(config, format))
        }
        None => block_on(work(config)).map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(code) => code,
        Err(error) => failed(&error, FAULT),
    }
}

fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    // Nothing is left to do where even standard error is closed.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    if let Some(hint) = error.downcast_ref::<buildr_engine::Error>().and_then(buildr_engine::Error::hint) {
        let _ = writeln!(io::stderr(), " hint: {hint}");
    }
    ExitCode::from(code)
}

/// Tells what is wrong. 0: nothing; 4: something.
async fn doctor(config: Config, format: doctor::Format) -> anyhow::Result<ExitCode> {
    let report = crate::doctor::examine(&config).await;
    // Who closed standard output does not want to know; the exit code says it too.
    let _ = io::stdout().write_all(report.tell(format).as_bytes());
    Ok(ExitCode::from(report.exit_code()))
}

fn block_on<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let end = runtime.block_on(program);
    runtime.shutdown_timeout(LINGER);
    end
}

async fn work(config: Config) -> anyhow::Result<()> {
    let identity = Identity::open(&config.data)?;
    warn_of_risks(&config);
    let engine = engine(&config, &identity).await.context("no builds can be run here")?;
    refuse_what_cannot_work(&engine).await?;
    let (name, metrics) = (config.name.clone(), config.metrics);
    let agent = Agent::new(config, identity, engine)?;
    let unwatched = CancellationToken::new();
    let _unwatched = unwatched.clone().drop_guard();
    if let Some(address) = metrics {
        let listener =
            Listener::bind(address).await.with_context(|| format!("listen on {address} (--metrics)"))?;
        tracing::info!(address = %listener.address()?, "metrics and probes");
        tokio::spawn(listener.serve(Arc::new(Watched(agent.metrics())), unwatched));
    }
    let (shutdown, wanted) = watch::channel(Shutdown::No);
    let signals = Signals::listen().context("listen to signals")?;
    let signals = tokio::spawn(signals.obey(shutdown));
    let ready = tokio::spawn(announce(name, agent.connection()));
    let end = agent.run(wanted).await;
    signals.abort();
    ready.abort();
    Ok(end?)
}

async fn engine(config: &Config, identity: &Identity) -> Result<Engine, buildr_engine::Error> {
    let socket = match config.docker_socket {
        DockerSocket::Raw => buildr_engine::DockerSocket::Raw,
        DockerSocket::None => buildr_engine::DockerSocket::None,
    };
    let pull = match config.pull {
        Pull::Missing => buildr_engine::Pull::Missing,
        Pull::Always => buildr_engine::Pull::Always,
        Pull::Never => buildr_engine::Pull::Never,
    };
    let usual = buildr_engine::Config::new(identity.folder.join("engine"), identity.agent.to_string());
    Engine::connect(buildr_engine::Config {
        docker_socket: socket,
        pull,
        log_limit: config.log_limit,
        pids_limit: config.pids_limit,
        lifetime: Lifetime::Detached { dead_man: Some(DEAD_MAN) },
        allow_file_urls: config.allow_file_urls,
        ..usual
    })
    .await
}

/// Looks at this machine before a build fails on it.
async fn refuse_what_cannot_work(engine: &Engine) -> anyhow::Result<()> {
    for Finding { problem, what_to_do, weight, .. } in engine.examine().await {
        match weight {
            Weight::Fatal => anyhow::bail!("no builds can be run here: {problem}; {what_to_do}"),
            Weight::Warning => tracing::warn!(problem, what_to_do, "this machine is not as builds need it"),
        }
    }
    Ok(())
}

/// What an operator should know of the settings that open the machine to builds.
fn warn_of_risks(config: &Config) {
    if config.docker_socket == DockerSocket::Raw {
        tracing::warn!(
            "builds get this machine's Docker socket and can do whatever root can; --docker-socket none takes it away"
        );
    }
    if !config.inheritable.is_empty() {
        let names: Vec<_> = config.inheritable.keys().map(String::as_str).collect();
        tracing::warn!(names = names.join(" "), "manifests may inherit these variables of this process");
    }
    if config.allow_file_urls {
        tracing::warn!("builds may name repositories on this machine's disk that this user can read");
    }
    if config.token.is_some() {
        tracing::warn!(
            "traffic to the orchestrator, the token included, is not encrypted: keep the network private"
        );
    }
}

/// The signals that the program obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Each signal to end asks for more than the one before; to detach can be asked for at any time.
    async fn obey(mut self, shutdown: watch::Sender<Shutdown>) {
        loop {
            let wanted = tokio::select! {
                _ = self.terminate.recv() => further,
                _ = self.interrupt.recv() => further,
                _ = self.hangup.recv() => |_: Shutdown| Shutdown::Detach,
            };
            shutdown.send_modify(|now| *now = wanted(*now));
        }
    }
}

fn further(wanted: Shutdown) -> Shutdown {
    match wanted {
        Shutdown::No => Shutdown::Drain,
        Shutdown::Drain | Shutdown::Cancel => Shutdown::Cancel,
        Shutdown::Detach => Shutdown::Detach,
    }
}

/// The program's one line on standard output.
async fn announce(name: String, mut connection: watch::Receiver<Connection>) {
    let Ok(up) = connection.wait_for(|now| matches!(now, Connection::Up(_))).await.map(|now| now.clone())
    else {
        return;
    };
    if let Connection::Up(agent) = up {
        let mut out = io::stdout();
        // Who closed standard output does not want to know.
        let _ = writeln!(out, "ready {name} {agent}").and_then(|()| out.flush());
    }
}
