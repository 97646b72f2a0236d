//! The command line as clap sees it. What it means is decided in [`super::Config::new`].

use std::{path::PathBuf, str::FromStr, time::Duration};

use buildr_telemetry::log;
use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  Join the farm of an orchestrator on this machine:
    buildr-agent --orchestrator 127.0.0.1:50051

  Join one elsewhere, with its token, as a machine that has a GPU and runs two jobs at once:
    buildr-agent --orchestrator ci.example.com:50051 --token-file /etc/buildr/token --label gpu=true --slots 2

  Let manifests inherit proxy settings, and give builds no Docker socket:
    buildr-agent --inherit-env 'HTTP*_PROXY' --inherit-env NO_PROXY --docker-socket none

  Look for what is wrong, with the flags of the agent itself:
    buildr-agent --orchestrator ci.example.com:50051 doctor

Signals:
  SIGTERM or SIGINT, first    takes nothing new, finishes what runs, delivers, exits with 0
  SIGTERM or SIGINT, second   cancels what runs, cleans up, delivers what it can, exits with 0
  SIGHUP                      exits with 0 at once; what runs goes on, and the next start adopts it

Standard output has one line, `ready NAME AGENT_ID`, when the orchestrator has let the agent in.

Exit codes: 0 drained or detached, 2 wrong usage, 4 refused by the orchestrator or a fault of this machine.";

/// Joins a farm: clones repositories, runs their manifests in Docker, and streams back logs and
/// results.
///
/// Git keys and registry logins are those of the user who runs it (~/.ssh, ~/.docker/config.json).
#[derive(Debug, Parser)]
#[command(name = "buildr-agent", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    /// The orchestrator to work for
    #[arg(long, env = "BUILDR_ORCHESTRATOR", value_name = "HOST:PORT", default_value = "127.0.0.1:50051")]
    pub orchestrator: String,
    /// The agent's name, for people [default: the host name]
    #[arg(long, env = "BUILDR_AGENT_NAME")]
    pub name: Option<String>,
    /// How many jobs to run at once [default: the number of cores]
    #[arg(long, env = "BUILDR_AGENT_SLOTS", value_name = "N")]
    pub slots: Option<u32>,
    /// What builds can ask for; `os` and `arch` are there of themselves
    #[arg(long = "label", env = "BUILDR_AGENT_LABELS", value_name = "KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Where to keep the agent's identity, repositories, workspaces and undelivered results
    /// [default: $XDG_DATA_HOME/buildr/agent or ~/.local/share/buildr/agent]
    #[arg(long, env = "BUILDR_AGENT_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The orchestrator's token; better in the environment or a file than on the command line
    #[arg(long, env = "BUILDR_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// A file that holds the token
    #[arg(long, env = "BUILDR_TOKEN_FILE", value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Variables of this process that manifests may inherit (`*` and `?` match); none by default
    #[arg(long, env = "BUILDR_AGENT_INHERIT_ENV", value_name = "GLOB", value_delimiter = ',')]
    pub inherit_env: Vec<String>,
    /// What builds get at /var/run/docker.sock: the machine's own socket, which makes them root
    /// here, or nothing
    #[arg(long, env = "BUILDR_AGENT_DOCKER_SOCKET", value_enum, default_value_t = DockerSocket::Raw)]
    pub docker_socket: DockerSocket,
    /// When images come from their registries
    #[arg(long, env = "BUILDR_AGENT_PULL", value_enum, default_value_t = Pull::Missing)]
    pub pull: Pull,
    /// Let builds name repositories that are folders of this machine (file:// URLs)
    #[arg(long, env = "BUILDR_AGENT_ALLOW_FILE_URLS")]
    pub allow_file_urls: bool,
    /// The most that one stage may write
    #[arg(long, env = "BUILDR_AGENT_LOG_LIMIT", value_name = "SIZE", default_value = "1GiB")]
    pub log_limit: ByteSize,
    /// The most processes and threads in a container of a build whose manifest says none (`resources: pids`)
    #[arg(long, env = "BUILDR_AGENT_PIDS_LIMIT", value_name = "N", default_value_t = buildr_engine::Config::PIDS_LIMIT, value_parser = clap::value_parser!(u32).range(64..=4_194_304))]
    pub pids_limit: u32,
    /// The most time that one job may take, whatever its manifest says
    #[arg(long, env = "BUILDR_AGENT_JOB_TIMEOUT", value_name = "TIME", default_value = "24h")]
    pub job_timeout: Span,
    /// Take no builds while less than this is free on the disk of the data folder
    #[arg(long, env = "BUILDR_AGENT_MIN_FREE", value_name = "SIZE", default_value = "1GiB")]
    pub min_free: ByteSize,
    /// Answer /metrics (Prometheus), /livez and /readyz over HTTP here; anybody who reaches it may read
    #[arg(long, env = "BUILDR_AGENT_METRICS", value_name = "[HOST:]PORT")]
    pub metrics: Option<String>,
    /// What of the agent's own log to write: a level, or levels by part, as in warn,buildr_agent=debug
    #[arg(long = "log", env = "BUILDR_LOG", default_value = "info", value_name = "FILTER")]
    pub log_filter: log::Filter,
    /// How to write the agent's own log on standard error
    #[arg(long, env = "BUILDR_AGENT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// What to do in place of the daemon's work
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the program can do beside being a daemon.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Look for what is wrong with these settings and this machine; put it behind the usual flags
    ///
    /// Exits with 0 where there is no problem, with 4 where there is one.
    Doctor {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
}

/// What builds get for a Docker socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DockerSocket {
    /// The machine's own.
    Raw,
    /// None.
    None,
}

/// When images come from their registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Where they are not on this machine.
    Missing,
    /// For each job; an older one that is here does not do.
    Always,
    /// Never: builds use what is here.
    Never,
}

/// How the agent writes its own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// A length of time as people write it: `90s`, `45m`, `24h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a length of time: write 90s, 45m or 24h");
        let span: jiff::SignedDuration = text.parse().map_err(|_| wrong())?;
        match Duration::try_from(span) {
            Ok(span) if !span.is_zero() => Ok(Self(span)),
            _ => Err(wrong()),
        }
    }
}
