//! The orchestrator as a command sees it: calls with domain types, and errors that say what to do.
//! The only home of generated types in this crate. It never prints.

pub mod farm;
pub mod follow;
mod lines;
mod watch;

use std::{error::Error as _, io, time::Duration};

use buildr_proto::{
    BuildId,
    build::{Build, BuildSpec},
    pb::{self, build_service_client::BuildServiceClient},
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use ulid::Ulid;

use crate::Error;

/// A connection that is not there after this time will hardly come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a single question takes milliseconds; a server that is silent for so long hangs.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a connection is tested, so that a follower notices a machine that is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How often a submit is tried again, with [`SUBMIT_PAUSE`] in between, doubled each time.
const SUBMIT_TRIES: u32 = 5;
const SUBMIT_PAUSE: Duration = Duration::from_millis(200);

/// Where the orchestrator is, and how to get in.
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// The token, if there is one.
    pub token: Option<MetadataValue<Ascii>>,
}

/// A connection to the orchestrator. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    service: BuildServiceClient<InterceptedService<Channel, Bearer>>,
    address: String,
    has_token: bool,
}

/// Which build a user means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest.
    Latest,
    /// The one with this number.
    Number(BuildId),
}

/// Which builds a list is to have.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// At most so many.
    pub limit: u32,
    /// Only those with a lower number.
    pub before: Option<BuildId>,
    /// Only of this repository.
    pub repository: Option<String>,
    /// Only in this state.
    pub state: Option<ListState>,
}

/// A build's state, for filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ListState {
    /// Waits for a slot.
    Queued,
    /// An agent has it.
    Running,
    /// Has ended.
    Finished,
}

/// What became of a cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canceled {
    /// The build.
    pub build: BuildId,
    /// It had ended before, and nothing was changed.
    pub already_finished: bool,
    /// It ended with the request, as nothing of it had begun.
    pub finished: bool,
}

/// Adds the token to each call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Target {
    /// Takes the address as users write it (a scheme and a port may be missing) and the bare token.
    pub fn new(address: &str, token: Option<&str>) -> Result<Self, Error> {
        if address.starts_with("https://") {
            return Err(Error::usage_with(
                format!("`{address}`: TLS is not spoken yet"),
                "use HOST:PORT, through a tunnel or a private network",
            ));
        }
        let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
        let port_at = bare.rfind(':').filter(|&at| !bare[at..].contains(']'));
        let address = match port_at {
            Some(_) => bare.to_owned(),
            None => format!("{bare}:50051"),
        };
        let token =
            token.map(|token| format!("Bearer {}", token.trim()).parse()).transpose().map_err(|_| {
                Error::usage_with(
                    "the token has characters that no token has",
                    "give exactly what the orchestrator printed",
                )
            })?;
        Ok(Self { address, token })
    }
}

impl Client {
    /// Connects. An orchestrator that cannot be reached is told apart from what is none.
    pub async fn connect(target: Target) -> Result<Self, Error> {
        let Target { address, token } = target;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| {
                Error::usage_with(
                    format!("`{address}` is not an address"),
                    "give HOST:PORT, as 127.0.0.1:50051",
                )
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| Error::Unreachable { address: address.clone(), why: root_cause(&error) })?;
        let has_token = token.is_some();
        let service = BuildServiceClient::with_interceptor(channel, Bearer(token));
        Ok(Self { service, address, has_token })
    }

    /// The time by the orchestrator's clock, as its answer's `date` has it.
    pub async fn date(&self) -> Result<Option<String>, Error> {
        let request = pb::ListBuildsRequest { limit: 1, ..Default::default() };
        let answer = self.service.clone().list_builds(timed(request)).await;
        let answer = answer.map_err(|status| self.error(&status, "ask the orchestrator", None))?;
        Ok(answer.metadata().get("date").and_then(|date| date.to_str().ok()).map(str::to_owned))
    }

    /// The address that it is connected to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Queues a build. The key is made once, so that trying again never makes a second build.
    pub async fn submit(&self, spec: BuildSpec, submitted_by: &str) -> Result<BuildId, Error> {
        let request = pb::SubmitRequest {
            idempotency_key: Ulid::new().to_string(),
            spec: Some(spec.into()),
            submitted_by: submitted_by.to_owned(),
        };
        let mut pause = SUBMIT_PAUSE;
        for _ in 1..SUBMIT_TRIES {
            match self.service.clone().submit(timed(request.clone())).await {
                Err(status) if is_transient(&status) && !speaks_no_http2(&status) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answer => return self.submitted(answer),
            }
        }
        self.submitted(self.service.clone().submit(timed(request)).await)
    }

    fn submitted(
        &self,
        answer: Result<tonic::Response<pb::SubmitResponse>, Status>,
    ) -> Result<BuildId, Error> {
        let number =
            answer.map_err(|status| self.error(&status, "submit the build", None))?.into_inner().build;
        BuildId::new(number).ok_or_else(|| self.nonsense("submit the build", "it gave no number"))
    }

    /// One build, with its jobs and stages.
    pub async fn get(&self, which: Which) -> Result<Build, Error> {
        let what = "show the build";
        let request = pb::GetBuildRequest { build: which.number() };
        let answer = self.service.clone().get_build(timed(request)).await;
        let build = answer.map_err(|status| self.error(&status, what, Some(which)))?.into_inner().build;
        let build = build.ok_or_else(|| self.nonsense(what, "the answer is empty"))?;
        Build::try_from(build).map_err(|invalid| self.nonsense(what, &invalid.to_string()))
    }

    /// Builds without their jobs, newest first.
    pub async fn list(&self, filter: ListFilter) -> Result<Vec<Build>, Error> {
        let what = "list the builds";
        let state = match filter.state {
            None => pb::BuildState::Unspecified,
            Some(ListState::Queued) => pb::BuildState::Queued,
            Some(ListState::Running) => pb::BuildState::Running,
            Some(ListState::Finished) => pb::BuildState::Finished,
        };
        let request = pb::ListBuildsRequest {
            limit: filter.limit,
            before: filter.before.map_or(0, BuildId::get),
            repository: filter.repository.unwrap_or_default(),
            state: state.into(),
        };
        let answer = self.service.clone().list_builds(timed(request)).await;
        let builds = answer.map_err(|status| self.error(&status, what, None))?.into_inner().builds;
        builds
            .into_iter()
            .map(|build| Build::try_from(build).map_err(|invalid| self.nonsense(what, &invalid.to_string())))
            .collect()
    }

    /// Asks for a build's end. Asking again changes nothing.
    pub async fn cancel(&self, which: Which, by: &str) -> Result<Canceled, Error> {
        let what = "cancel the build";
        let request = pb::CancelBuildRequest { build: which.number(), by: by.to_owned() };
        let answer = self.service.clone().cancel_build(timed(request)).await;
        let answer = answer.map_err(|status| self.error(&status, what, Some(which)))?.into_inner();
        let finished = answer.state() == pb::BuildState::Finished;
        let build = BuildId::new(answer.build).ok_or_else(|| self.nonsense(what, "it gave no number"))?;
        Ok(Canceled { build, already_finished: answer.already_finished, finished })
    }

    fn nonsense(&self, what: &'static str, why: &str) -> Error {
        Error::Orchestrator { address: self.address.clone(), what, why: why.to_owned() }
    }

    /// What a failed call means to a user.
    fn error(&self, status: &Status, what: &'static str, which: Option<Which>) -> Error {
        let address = self.address.clone();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Error::Token { address, given: self.has_token },
            Code::NotFound if which.is_some() => {
                let build = match which {
                    Some(Which::Number(build)) => Some(build),
                    _ => None,
                };
                Error::NoSuchBuild { address, build }
            }
            Code::Unimplemented => Error::NotAnOrchestrator {
                address,
                why: "it does not know buildr's protocol, or another version of it".to_owned(),
            },
            _ if speaks_no_http2(status) => {
                Error::NotAnOrchestrator { address, why: "it does not speak HTTP/2".to_owned() }
            }
            Code::InvalidArgument => Error::Refused(status.message().to_owned()),
            Code::Unavailable | Code::Unknown if status.source().is_some() => {
                Error::Unreachable { address, why: root_cause(status) }
            }
            Code::DeadlineExceeded | Code::Cancelled => {
                Error::Unreachable { address, why: format!("no answer within {CALL_TIMEOUT:?}") }
            }
            _ => self.nonsense(what, status.message()),
        }
    }
}

impl Which {
    /// The number as the protocol has it.
    fn number(self) -> u64 {
        match self {
            Self::Latest => 0,
            Self::Number(build) => build.get(),
        }
    }
}

impl std::str::FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("latest") || text.eq_ignore_ascii_case("last") {
            return Ok(Self::Latest);
        }
        let number = text.strip_prefix('#').unwrap_or(text).parse();
        number.map(Self::Number).map_err(|_| "give a build's number, as 42, or `latest`".to_owned())
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// True where trying again may help.
fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

/// True where the other side broke off with something that is no HTTP/2, as web servers do.
fn speaks_no_http2(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return !error.is_io() && !error.is_remote();
        }
        cause = error.source();
    }
    false
}

/// The innermost reason, without what we know already.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        Some(error) if error.kind() == io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => innermost.to_string(),
    }
}

#[cfg(test)]
mod tests;
