//! What could be wrong with an agent: the machine, Docker, git, the way to the orchestrator. It may be
//! asked while the agent runs, and changes nothing.

use std::time::Duration;

use buildr_engine::{Engine, Finding, Weight};
use buildr_proto::{
    AUTHORIZATION,
    pb::{self, build_service_client::BuildServiceClient},
};
use buildr_telemetry::doctor::{Check, Report, clock, disk, folder, program};
use jiff::Timestamp;
use tonic::{Code, Request, Response, Status, transport::Endpoint};

use crate::{config::Config, link::describe};

/// How long the orchestrator may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Looks at all that these settings need.
pub async fn examine(config: &Config) -> Report {
    let mut checks = vec![
        folder(&config.data),
        disk(&config.data, config.min_free),
        cgroups(),
        program(
            "git",
            "--version",
            "install git: without it ~/.ssh/config and credential helpers are not used",
        ),
        program("ssh", "-V", "install an ssh client for repositories that are reached over ssh"),
        program("git-lfs", "--version", "install git-lfs if repositories keep large files with it"),
    ];
    checks.extend(docker(config).await);
    checks.extend(orchestrator(config).await);
    Report::new("buildr-agent", env!("CARGO_PKG_VERSION"), checks)
}

async fn docker(config: &Config) -> Vec<Check> {
    let engine = buildr_engine::Config::new(config.data.join("engine"), "doctor");
    match Engine::connect(engine).await {
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

/// Which control groups the machine has: what a stage used is read from them.
fn cgroups() -> Check {
    let version = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 };
    Check::ok("cgroup", format!("version {version}"))
}

/// Whether the orchestrator can be reached, lets this agent's token in, speaks the protocol, and has
/// the same time.
async fn orchestrator(config: &Config) -> Vec<Check> {
    const NAME: &str = "orchestrator";
    let at = &config.orchestrator;
    match ask(config).await {
        Ok(answer) => {
            let date = answer.metadata().get("date").and_then(|date| date.to_str().ok());
            let checks = [
                Check::ok(NAME, format!("{at} answers, and the token is right")),
                clock(date, Timestamp::now()),
            ];
            checks.into()
        }
        Err(status) => {
            let advice = match status.code() {
                Code::Unauthenticated => "give its token with BUILDR_TOKEN or --token-file",
                Code::Unimplemented => {
                    "it is no orchestrator, or one of another version: update the older of the two"
                }
                Code::ResourceExhausted => "wait a moment and try again",
                _ => "see that it runs there and that no firewall is in between",
            };
            vec![Check::problem(NAME, format!("{at}: {}", describe(&status)), advice)]
        }
    }
}

/// A question that every orchestrator answers.
async fn ask(config: &Config) -> Result<Response<pb::ListBuildsResponse>, Status> {
    let mut request = Request::new(pb::ListBuildsRequest { limit: 1, ..Default::default() });
    request.set_timeout(ANSWER);
    if let Some(token) = &config.token {
        let value = format!("Bearer {}", token.expose()).parse();
        request.metadata_mut().insert(
            AUTHORIZATION,
            value.map_err(|_| Status::unauthenticated("no token has such characters"))?,
        );
    }
    let endpoint = Endpoint::from_shared(config.orchestrator.clone());
    let endpoint = endpoint.map_err(|error| Status::unavailable(error.to_string()))?.connect_timeout(ANSWER);
    let channel = endpoint.connect_lazy();
    let answer =
        tokio::time::timeout(
            ANSWER,
            async move { BuildServiceClient::new(channel).list_builds(request).await },
        );
    answer.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("it did not answer within 5 seconds")))
}
