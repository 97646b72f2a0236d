//! The orchestrator's side for clients.

use std::collections::HashMap;

use buildr_proto::{
    BuildId,
    build::{Build, BuildSpec, BuildState, Reference, StageProgress},
    convert::{Message, build_state_to_pb},
    limits::{DEFAULT_LIST, MAX_IDEMPOTENCY_KEY, MAX_LIST, MAX_NAME, MAX_REPOSITORY},
    pb::{
        self, CancelBuildRequest, CancelBuildResponse, DrainAgentRequest, DrainAgentResponse, ExplainRequest,
        ExplainResponse, GetBuildRequest, GetBuildResponse, ListAgentsRequest, ListAgentsResponse,
        ListBuildsRequest, ListBuildsResponse, ReadLogRequest, ReadLogResponse, RemoveAgentRequest,
        RemoveAgentResponse, RetryBuildRequest, RetryBuildResponse, SubmitRequest, SubmitResponse,
        WatchBuildRequest, build_service_server::BuildService,
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    Context, explain, farm,
    log_reader::{self, Reading},
    watch,
};
use crate::{
    core::input::{Refusal, Submit},
    error::Error,
    logs::LogKey,
    peer::Peer,
    store::Filter,
};

/// Who submits or cancels where the client does not say.
pub(super) const UNKNOWN: &str = "unknown";

/// What clients call.
pub struct Builds(pub Context);

#[tonic::async_trait]
impl BuildService for Builds {
    type WatchBuildStream = ReceiverStream<Result<pb::BuildEvent, Status>>;
    type ReadLogStream = ReceiverStream<Result<ReadLogResponse, Status>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        self.0.gate.submit(&Peer::of(&request))?;
        let submit = checked_submit(request.into_inner())?;
        let build = self.0.hub.submit(submit).await?;
        Ok(Response::new(SubmitResponse { build: build.get() }))
    }

    async fn get_build(
        &self,
        request: Request<GetBuildRequest>,
    ) -> Result<Response<GetBuildResponse>, Status> {
        self.0.gate.read(&Peer::of(&request))?;
        let mut build = self.find(request.into_inner().build).await?;
        self.add_live_lengths(&mut build).await;
        self.add_times(&mut build).await?;
        Ok(Response::new(GetBuildResponse { build: Some(build.into()) }))
    }

    async fn list_builds(
        &self,
        request: Request<ListBuildsRequest>,
    ) -> Result<Response<ListBuildsResponse>, Status> {
        self.0.gate.read(&Peer::of(&request))?;
        let ListBuildsRequest { limit, before, repository, state } = request.into_inner();
        let field = Message("ListBuildsRequest").field("repository");
        let repository = field.optional_line(repository, MAX_REPOSITORY).map_err(Error::from)?;
        let state = match pb::BuildState::try_from(state) {
            Ok(pb::BuildState::Unspecified) => None,
            Ok(pb::BuildState::Queued) => Some("queued"),
            Ok(pb::BuildState::Running) => Some("running"),
            Ok(pb::BuildState::Finished) => Some("finished"),
            Err(error) => {
                return Err(Error::from(Message("ListBuildsRequest").field("state").wrong(error)).into());
            }
        };
        let limit = if limit == 0 { DEFAULT_LIST } else { limit.min(MAX_LIST) };
        let filter = Filter { limit, before: BuildId::new(before), repository, state };
        let builds = self.0.hub.store().list(filter).await.map_err(Error::from)?;
        Ok(Response::new(ListBuildsResponse { builds: builds.into_iter().map(Into::into).collect() }))
    }

    async fn watch_build(
        &self,
        request: Request<WatchBuildRequest>,
    ) -> Result<Response<Self::WatchBuildStream>, Status> {
        let follower = self.0.gate.follow(&Peer::of(&request))?;
        let WatchBuildRequest { build, after } = request.into_inner();
        let build = self.find(build).await?.number;
        Ok(Response::new(watch::start(self.0.clone(), follower, build, after)))
    }

    async fn read_log(
        &self,
        request: Request<ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let follower = self.0.gate.follow(&Peer::of(&request))?;
        const READ: Message = Message("ReadLogRequest");
        let ReadLogRequest { build, job, attempt, log, offset, follow, times } = request.into_inner();
        let log = READ.field("log").log(log).map_err(Error::from)?;
        let attempt = match attempt.as_str() {
            "" => None,
            id => Some(READ.field("attempt").parse(id).map_err(Error::from)?),
        };
        let build = self.find(build).await?;
        let job = job.max(1);
        if build.jobs.iter().all(|known| known.index != job) {
            return Err(Error::NotFound(format!("job {}.{job}", build.number)).into());
        }
        let reading = Reading { build: build.number, job, attempt, log, offset, follow, times };
        Ok(Response::new(log_reader::start(self.0.clone(), follower, reading)))
    }

    async fn cancel_build(
        &self,
        request: Request<CancelBuildRequest>,
    ) -> Result<Response<CancelBuildResponse>, Status> {
        self.0.gate.submit(&Peer::of(&request))?;
        let CancelBuildRequest { build, by } = request.into_inner();
        let field = Message("CancelBuildRequest").field("by");
        let by = field.optional_line(by, MAX_NAME).map_err(Error::from)?;
        let number = self.number(build).await?;
        let (already_finished, state) =
            match self.0.hub.cancel(number, by.unwrap_or_else(|| UNKNOWN.to_owned())).await {
                Ok(state) => (false, state),
                Err(Error::Refused(Refusal::NoSuchBuild(_))) => (true, self.find(number.get()).await?.state),
                Err(error) => return Err(error.into()),
            };
        let state = build_state_to_pb(state).0.into();
        Ok(Response::new(CancelBuildResponse { build: number.get(), already_finished, state }))
    }

    async fn retry_build(
        &self,
        request: Request<RetryBuildRequest>,
    ) -> Result<Response<RetryBuildResponse>, Status> {
        const RETRY: Message = Message("RetryBuildRequest");
        let RetryBuildRequest { build, idempotency_key, submitted_by } = request.into_inner();
        let key = RETRY.field("idempotency_key").line(idempotency_key, MAX_IDEMPOTENCY_KEY);
        let submitted_by = RETRY.field("submitted_by").optional_line(submitted_by, MAX_NAME);
        let (key, submitted_by) = (key.map_err(Error::from)?, submitted_by.map_err(Error::from)?);
        let old = self.find(build).await?;
        let mut spec = old.spec;
        spec.source.commit = old.commit;
        let submitted_by = submitted_by.unwrap_or_else(|| UNKNOWN.to_owned());
        let build = self.0.hub.submit(Submit { key, spec, submitted_by }).await?;
        Ok(Response::new(RetryBuildResponse { build: build.get(), repeats: old.number.get() }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let build = self.find(request.into_inner().build).await?;
        Ok(Response::new(explain::explain(&self.0.hub, build).await?))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let ListAgentsRequest {} = request.into_inner();
        Ok(Response::new(ListAgentsResponse { agents: farm::agents(&self.0.hub).await? }))
    }

    async fn drain_agent(
        &self,
        request: Request<DrainAgentRequest>,
    ) -> Result<Response<DrainAgentResponse>, Status> {
        let agent = farm::drain(&self.0.hub, request.into_inner()).await?;
        Ok(Response::new(DrainAgentResponse { agent: Some(agent) }))
    }

    async fn remove_agent(
        &self,
        request: Request<RemoveAgentRequest>,
    ) -> Result<Response<RemoveAgentResponse>, Status> {
        let RemoveAgentRequest { agent } = request.into_inner();
        let agent = farm::remove(&self.0.hub, &agent).await?;
        Ok(Response::new(RemoveAgentResponse { agent: Some(agent) }))
    }
}

impl Builds {
    /// The number that a client means: 0 is the newest.
    async fn number(&self, build: u64) -> Result<BuildId, Error> {
        match BuildId::new(build) {
            Some(number) => Ok(number),
            None => {
                let newest = self.0.hub.store().newest().await?;
                newest.ok_or_else(|| Error::NotFound("build yet".to_owned()))
            }
        }
    }

    async fn find(&self, build: u64) -> Result<Build, Error> {
        let number = self.number(build).await?;
        let build = self.0.hub.store().build(number).await?;
        build.ok_or_else(|| Error::NotFound(format!("build {number}")))
    }

    /// Says where the time of each job's attempt went.
    async fn add_times(&self, build: &mut Build) -> Result<(), Error> {
        let times: HashMap<_, _> = self.0.hub.store().times(build.number).await?.into_iter().collect();
        for job in &mut build.jobs {
            let known = job.attempt.as_ref().and_then(|attempt| times.get(&attempt.id));
            job.times = known.copied().unwrap_or_default();
        }
        Ok(())
    }

    /// Of stages that run now the length of the log is that of its file.
    async fn add_live_lengths(&self, build: &mut Build) {
        for job in &mut build.jobs {
            let (Some(attempt), BuildState::Running) = (&job.attempt, &job.state) else { continue };
            for stage in job.stages.iter_mut().filter(|stage| stage.progress == StageProgress::Running) {
                let key = LogKey { attempt: attempt.id, log: stage.name.clone().into() };
                stage.log_bytes = self.0.logs.length(&key).await;
            }
        }
    }
}

fn checked_submit(request: SubmitRequest) -> Result<Submit, Error> {
    const SUBMIT: Message = Message("SubmitRequest");
    let SubmitRequest { idempotency_key, spec, submitted_by } = request;
    let key = SUBMIT.field("idempotency_key").line(idempotency_key, MAX_IDEMPOTENCY_KEY)?;
    let spec: BuildSpec = SUBMIT.field("spec").require(spec)?.try_into()?;
    let submitted_by = SUBMIT.field("submitted_by").optional_line(submitted_by, MAX_NAME)?;
    let repository = &spec.source.repository;
    if repository.trim().is_empty() {
        return Err(Message("Source").field("repository").missing().into());
    }
    not_an_option("repository", repository)?;
    match &spec.source.reference {
        Reference::Default => {}
        Reference::Branch(name) => not_an_option("branch", name)?,
        Reference::Tag(name) => not_an_option("tag", name)?,
    }
    Ok(Submit { key, spec, submitted_by: submitted_by.unwrap_or_else(|| UNKNOWN.to_owned()) })
}

/// Refuses what git would take for an option.
fn not_an_option(field: &'static str, text: &str) -> Result<(), Error> {
    if !text.starts_with('-') {
        return Ok(());
    }
    let why = format!("`{text}` begins with `-`: git would take it for an option");
    Err(Message("Source").field(field).wrong(why).into())
}
