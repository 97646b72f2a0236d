//! An orchestrator in this process, and the verbs that tests speak in.

use std::time::Duration;

use buildr_orchestrator::{Config, Orchestrator, config::TokenPolicy, gate::Settings};
use buildr_proto::{
    AGENT_CREDENTIAL, AUTHORIZATION, InstanceId,
    pb::{
        self, agent_message, agent_service_client::AgentServiceClient,
        build_service_client::BuildServiceClient, job_event::Event as Kind, orchestrator_message,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status, Streaming,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

/// How long anything may take that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const CREDENTIAL: &str = "the credential of the first agent, 0123456789";

pub(crate) type Client = BuildServiceClient<InterceptedService<Channel, Metadata>>;
pub(crate) type AgentClient = AgentServiceClient<InterceptedService<Channel, Metadata>>;

/// Waits for what has to come.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// What goes with every call.
#[derive(Clone, Default)]
pub(crate) struct Metadata {
    pub(crate) token: Option<String>,
    pub(crate) credential: Option<String>,
}

impl tonic::service::Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        if let Some(credential) = &self.credential {
            request.metadata_mut().insert(AGENT_CREDENTIAL, credential.parse().unwrap());
        }
        Ok(request)
    }
}

/// An orchestrator with its data folder.
pub(crate) struct Farm {
    pub(crate) data: tempfile::TempDir,
    pub(crate) token: TokenPolicy,
    pub(crate) gate: Settings,
    metrics: Option<std::net::SocketAddr>,
    address: String,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Farm {
    pub(crate) async fn start() -> Self {
        Self::start_with(TokenPolicy::Open).await
    }

    pub(crate) async fn start_with(token: TokenPolicy) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut farm = Self::new(data, token, Settings::default());
        farm.up().await;
        farm
    }

    pub(crate) async fn start_gated(gate: Settings) -> Self {
        let mut farm = Self::new(tempfile::tempdir().unwrap(), TokenPolicy::Open, gate);
        farm.up().await;
        farm
    }

    fn new(data: tempfile::TempDir, token: TokenPolicy, gate: Settings) -> Self {
        Self { data, token, gate, metrics: None, address: String::new(), running: None }
    }

    /// Where it listens, as HOST:PORT.
    pub(crate) fn listens(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// The status and body that those who watch get.
    pub(crate) async fn watched(&self, path: &str) -> (u16, String) {
        let address = self.metrics.expect("it is watched");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        soon("the answer", stream.read_to_string(&mut text)).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What a metric without labels is at, or the sum of one with them.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.watched("/metrics").await;
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next() == Some(name) || sample == name).then(|| value.parse::<f64>().unwrap())
        });
        samples.sum()
    }

    pub(crate) fn config(&self) -> Config {
        let metrics = Some("127.0.0.1:0".parse().unwrap());
        Config {
            metrics,
            gate: self.gate,
            token: self.token.clone(),
            ..Config::local(self.data.path().join("data"))
        }
    }

    pub(crate) async fn up(&mut self) {
        let orchestrator = Orchestrator::open(self.config()).await.unwrap();
        self.metrics = orchestrator.metrics_address();
        self.address = format!("http://{}", orchestrator.address());
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { orchestrator.run(token).await.unwrap() });
        self.running = Some((stop, task));
    }

    pub(crate) async fn down(&mut self) {
        let (stop, task) = self.running.take().expect("it runs");
        stop.cancel();
        soon("the end of the orchestrator", task).await.unwrap();
    }

    pub(crate) async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(Metadata::default()).await
    }

    pub(crate) async fn client_with(&self, metadata: Metadata) -> Client {
        BuildServiceClient::with_interceptor(self.channel().await, metadata)
    }

    pub(crate) async fn agent_client(&self, credential: &str) -> AgentClient {
        let metadata = Metadata { token: None, credential: Some(credential.to_owned()) };
        AgentServiceClient::with_interceptor(self.channel().await, metadata)
    }

    /// An agent with one slot that has said hello and was welcomed.
    pub(crate) async fn agent(&self) -> Agent {
        self.agent_as(CREDENTIAL, InstanceId::new(), &[]).await
    }

    pub(crate) async fn agent_as(&self, credential: &str, instance: InstanceId, held: &[String]) -> Agent {
        let (agent, first) = self.connect(credential, instance, held).await;
        match first {
            orchestrator_message::Message::Welcome(welcome) => Agent { welcome, ..agent },
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// Says hello and gives the first answer.
    pub(crate) async fn connect(
        &self,
        credential: &str,
        instance: InstanceId,
        held: &[String],
    ) -> (Agent, orchestrator_message::Message) {
        let hello = pb::Hello { held: held_attempts(held), ..hello(instance) };
        let mut agent = self.say_first(credential, instance, agent_message::Message::Hello(hello)).await;
        let first = agent.next().await;
        (agent, first)
    }

    /// Opens a session with this message.
    pub(crate) async fn say_first(
        &self,
        credential: &str,
        instance: InstanceId,
        first: agent_message::Message,
    ) -> Agent {
        let mut client = self.agent_client(credential).await;
        let (to, messages) = mpsc::channel(16);
        to.send(message(first)).await.unwrap();
        let from = client.session(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Agent { client, instance, to, from, welcome: pb::Welcome::default() }
    }
}

pub(crate) fn hello(instance: InstanceId) -> pb::Hello {
    pb::Hello {
        name: "ant".into(),
        instance: instance.to_string(),
        protocol: Some(buildr_proto::PROTOCOL.into()),
        version: "1".into(),
        slots: 1,
        labels: [("os".to_owned(), "linux".to_owned())].into(),
        held: Vec::new(),
        draining: false,
    }
}

pub(crate) fn message(message: agent_message::Message) -> pb::AgentMessage {
    pb::AgentMessage { message: Some(message) }
}

fn held_attempts(held: &[String]) -> Vec<pb::HeldAttempt> {
    let phase = pb::AttemptPhase::Running.into();
    held.iter().map(|id| pb::HeldAttempt { attempt: id.clone(), phase, logs: Vec::new() }).collect()
}

/// Somebody who plays an agent.
pub(crate) struct Agent {
    pub(crate) client: AgentClient,
    pub(crate) instance: InstanceId,
    pub(crate) to: mpsc::Sender<pb::AgentMessage>,
    pub(crate) from: Streaming<pb::OrchestratorMessage>,
    pub(crate) welcome: pb::Welcome,
}

impl Agent {
    pub(crate) async fn next(&mut self) -> orchestrator_message::Message {
        let message = soon("a message to the agent", self.from.message()).await;
        message.unwrap().expect("the session goes on").message.unwrap()
    }

    pub(crate) async fn offer(&mut self) -> pb::Offer {
        loop {
            if let orchestrator_message::Message::Offer(offer) = self.next().await {
                return offer;
            }
        }
    }

    pub(crate) async fn desired(&mut self) -> pb::Desired {
        loop {
            if let orchestrator_message::Message::Desired(desired) = self.next().await {
                return desired;
            }
        }
    }

    pub(crate) async fn heartbeat(&mut self, held: &[String]) -> Vec<pb::Desired> {
        let beat = pb::Heartbeat { seq: 7, held: held_attempts(held), draining: false };
        self.to.send(message(agent_message::Message::Heartbeat(beat))).await.unwrap();
        loop {
            if let orchestrator_message::Message::HeartbeatReply(reply) = self.next().await {
                assert_eq!(reply.seq, 7);
                return reply.desired;
            }
        }
    }

    pub(crate) async fn decline(&mut self, attempt: &str) {
        let decline = pb::Decline { attempt: attempt.to_owned(), reason: "no".to_owned() };
        self.to.send(message(agent_message::Message::Decline(decline))).await.unwrap();
    }

    pub(crate) async fn accept(
        &mut self,
        attempt: &str,
    ) -> Result<pb::accept_attempt_response::Decision, Status> {
        let instance = self.instance.to_string();
        let request = pb::AcceptAttemptRequest { attempt: attempt.to_owned(), instance };
        Ok(self.client.accept_attempt(request).await?.into_inner().decision())
    }

    /// Takes the next offer and gives the attempt.
    pub(crate) async fn take(&mut self) -> String {
        let offer = self.offer().await;
        let decision = self.accept(&offer.attempt).await.unwrap();
        assert_eq!(decision, pb::accept_attempt_response::Decision::Go);
        offer.attempt
    }

    pub(crate) async fn plan(
        &mut self,
        attempt: &str,
        jobs: Vec<pb::PlannedJob>,
    ) -> Result<pb::report_plan_response::Decision, Status> {
        let request = pb::ReportPlanRequest {
            attempt: attempt.to_owned(),
            instance: self.instance.to_string(),
            commit: "a".repeat(40),
            jobs,
            ..Default::default()
        };
        Ok(self.client.report_plan(request).await?.into_inner().decision())
    }

    pub(crate) async fn report(
        &mut self,
        attempt: &str,
        first_seq: u64,
        kinds: Vec<Kind>,
        last: Option<pb::FinalReport>,
    ) -> Result<pb::ReportEventsResponse, Status> {
        let at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
        let events = kinds.into_iter().map(|kind| pb::JobEvent { at, event: Some(kind) }).collect();
        let request = pb::ReportEventsRequest {
            attempt: attempt.to_owned(),
            instance: self.instance.to_string(),
            first_seq,
            events,
            r#final: last,
        };
        Ok(self.client.report_events(request).await?.into_inner())
    }

    pub(crate) fn chunk(&self, attempt: &str, stage: &str, offset: u64, data: &[u8]) -> pb::LogChunk {
        let at = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
        pb::LogChunk {
            attempt: attempt.to_owned(),
            instance: self.instance.to_string(),
            log: stage.to_owned(),
            offset,
            data: data.to_vec().into(),
            times: vec![pb::TimeMark { offset, at }],
        }
    }

    /// Sends chunks and gives every ack until the orchestrator has ended the stream.
    pub(crate) async fn append(&mut self, chunks: Vec<pb::LogChunk>) -> Vec<pb::LogAck> {
        let mut acks = self.client.append_log(tokio_stream::iter(chunks)).await.unwrap().into_inner();
        let mut all = Vec::new();
        while let Some(ack) = soon("an ack", acks.message()).await.unwrap() {
            all.push(ack);
        }
        all
    }

    /// Plays a whole job with one stage that prints this and passes, the final report included.
    pub(crate) async fn finish(&mut self, attempt: &str, log: &[u8]) {
        let decision = self.plan(attempt, vec![planned(&[])]).await.unwrap();
        assert_eq!(decision, pb::report_plan_response::Decision::Go);
        self.report(attempt, 1, begin(), None).await.unwrap();
        let acks = self.append(vec![self.chunk(attempt, "test", 0, log)]).await;
        assert_eq!(acks.last().unwrap().durable, log.len() as u64);
        let last = Some(final_report(log));
        self.report(attempt, 6, end(log.len() as u64), last).await.unwrap();
    }
}

pub(crate) fn planned(labels: &[(&str, &str)]) -> pb::PlannedJob {
    pb::PlannedJob {
        labels: labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        image: "busybox".into(),
        stages: vec!["test".into()],
        name: "main".into(),
        ..Default::default()
    }
}

/// The five events with which a job begins.
pub(crate) fn begin() -> Vec<Kind> {
    use pb::job_event as event;
    vec![
        Kind::JobStarted(event::JobStarted {}),
        Kind::Planned(event::Planned {
            image: "busybox".into(),
            stages: vec!["test".into()],
            services: Vec::new(),
        }),
        Kind::PullProgress(event::PullProgress { image: "busybox".into(), current: 1, total: 2 }),
        Kind::StageStarted(event::StageStarted { stage: "test".into() }),
        Kind::StepStarted(event::StepStarted {
            stage: "test".into(),
            step: 0,
            command: "make".into(),
            offset: 0,
        }),
    ]
}

/// The two events with which it ends.
pub(crate) fn end(log_bytes: u64) -> Vec<Kind> {
    use pb::{job_event as event, outcome, stage_state};
    let passed = stage_state::State::Passed(stage_state::Plain {});
    vec![
        Kind::StageFinished(event::StageFinished {
            stage: "test".into(),
            state: Some(pb::StageState { state: Some(passed) }),
            allowed: false,
            log_bytes,
            duration: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            usage: None,
        }),
        Kind::JobFinished(event::JobFinished {
            outcome: Some(pb::Outcome { outcome: Some(outcome::Outcome::Passed(outcome::Plain {})) }),
            duration: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            containers_removed: 1,
        }),
    ]
}

pub(crate) fn final_report(log: &[u8]) -> pb::FinalReport {
    let crc32c = crc32c::crc32c(log);
    let summary = pb::LogSummary { log: "test".into(), length: log.len() as u64, crc32c, missing: 0 };
    pb::FinalReport { logs: vec![summary] }
}

pub(crate) fn spec() -> pb::BuildSpec {
    pb::BuildSpec {
        source: Some(pb::Source {
            repository: "https://example.org/ant.git".into(),
            r#ref: Some(pb::source::Ref::Branch("main".into())),
            commit: String::new(),
        }),
        trigger: pb::Trigger::Manual.into(),
        ..Default::default()
    }
}

pub(crate) async fn submit(client: &mut Client, key: &str) -> u64 {
    submit_spec(client, key, spec()).await.unwrap()
}

pub(crate) async fn submit_spec(client: &mut Client, key: &str, spec: pb::BuildSpec) -> Result<u64, Status> {
    let request =
        pb::SubmitRequest { idempotency_key: key.into(), spec: Some(spec), submitted_by: "eve".into() };
    Ok(client.submit(request).await?.into_inner().build)
}

pub(crate) async fn get(client: &mut Client, build: u64) -> pb::Build {
    client.get_build(pb::GetBuildRequest { build }).await.unwrap().into_inner().build.unwrap()
}

pub(crate) async fn cancel(client: &mut Client, build: u64) -> pb::CancelBuildResponse {
    let request = pb::CancelBuildRequest { build, by: "eve".into() };
    client.cancel_build(request).await.unwrap().into_inner()
}

/// All stored events after a cursor, to the end of the build.
pub(crate) async fn watch(client: &mut Client, build: u64, after: u64) -> Vec<pb::BuildEvent> {
    let request = pb::WatchBuildRequest { build, after };
    let mut stream = client.watch_build(request).await.unwrap().into_inner();
    let mut events = Vec::new();
    while let Some(event) = soon("an event", stream.message()).await.unwrap() {
        if event.seq > 0 {
            events.push(event);
        }
    }
    events
}

/// Watches until an event comes that is wanted.
pub(crate) async fn watch_for(
    client: &mut Client,
    build: u64,
    wanted: impl Fn(&pb::build_event::Event) -> bool,
) -> pb::BuildEvent {
    let request = pb::WatchBuildRequest { build, after: 0 };
    let mut stream = client.watch_build(request).await.unwrap().into_inner();
    loop {
        let event = soon("an event", stream.message()).await.unwrap().expect("the build goes on");
        if event.event.as_ref().is_some_and(&wanted) {
            return event;
        }
    }
}

pub(crate) async fn read_log(
    client: &mut Client,
    request: pb::ReadLogRequest,
) -> (Vec<u8>, pb::ReadLogResponse) {
    let mut stream = client.read_log(request).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    let mut last = None;
    while let Some(piece) = soon("a piece of the log", stream.message()).await.unwrap() {
        bytes.extend_from_slice(&piece.data);
        last = Some(piece);
    }
    (bytes, last.expect("there is a last piece"))
}

pub(crate) fn log_of(build: u64, offset: u64, follow: bool) -> pb::ReadLogRequest {
    pb::ReadLogRequest { build, log: "test".into(), offset, follow, ..Default::default() }
}

pub(crate) fn outcome_of(build: &pb::Build) -> &'static str {
    let outcome: buildr_manifest::Outcome =
        build.outcome.clone().expect("it has an outcome").try_into().unwrap();
    outcome.word()
}
