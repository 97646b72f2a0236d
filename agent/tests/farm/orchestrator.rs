//! An orchestrator that keeps what it is told in memory, strictly by the protocol's rules, and does
//! what a test wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use buildr_proto::{
    AGENT_CREDENTIAL, AttemptId, MAX_CHUNK,
    convert::duration_to_pb,
    pb::{
        self,
        agent_message::Message as FromAgent,
        agent_service_server::{AgentService, AgentServiceServer},
        desired::State,
        orchestrator_message::Message as ToAgent,
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// Longer than anything may take, shorter than a test's patience.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the orchestrator knows, and what it is to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) hellos: Vec<pb::Hello>,
    pub(crate) heartbeats: Vec<pb::Heartbeat>,
    pub(crate) accepts: u32,
    pub(crate) declined: BTreeMap<String, String>,
    pub(crate) attempts: BTreeMap<String, Attempt>,
    /// Attempts that are not current any more.
    pub(crate) fenced: BTreeSet<String>,
    /// Streams of logs that were opened, and broken on purpose.
    pub(crate) log_streams: u32,
    /// Logs are taken only while this is not set.
    pub(crate) hold_logs: bool,
    /// Break the next log stream after this many chunks.
    pub(crate) break_logs_after: Option<u32>,
    /// What a plan is answered with; unset: go.
    pub(crate) plan: Option<pb::report_plan_response::Decision>,
    /// Plans are not answered while this is set.
    pub(crate) hold_plans: bool,
    /// After what silence agents are to end their attempts.
    pub(crate) fence_after: Option<Duration>,
    /// What an acceptance is answered with; unset: go.
    pub(crate) accept: Option<pb::accept_attempt_response::Decision>,
    /// What is wanted of attempts that agents name; nothing else is said of the others.
    pub(crate) desired: BTreeMap<String, State>,
    /// What a hello is answered with instead of a welcome.
    pub(crate) refuse: Option<pb::Refused>,
    /// Events are not understood; a final report is.
    pub(crate) reject_events: bool,
    /// Every call is refused so.
    pub(crate) unauthenticated: bool,
    session: Option<mpsc::UnboundedSender<Result<pb::OrchestratorMessage, Status>>>,
}

/// What was told of an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempt {
    pub(crate) instance: String,
    pub(crate) plans: u32,
    pub(crate) events: Vec<pb::JobEvent>,
    pub(crate) last: Option<pb::FinalReport>,
    pub(crate) logs: BTreeMap<String, Vec<u8>>,
    pub(crate) times: usize,
    /// The length of the logs when the final report came.
    pub(crate) logged_at_end: usize,
}

impl Facts {
    fn desired_of(&self, held: &[pb::HeldAttempt]) -> Vec<pb::Desired> {
        let wanted = held.iter().filter_map(|held| {
            let state = (*self.desired.get(&held.attempt)?).into();
            Some(pb::Desired { attempt: held.attempt.clone(), state, canceled_by: "ann".to_owned() })
        });
        wanted.collect()
    }
}

pub(crate) struct Orchestrator {
    pub(crate) address: SocketAddr,
    facts: watch::Sender<Facts>,
}

impl Orchestrator {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let facts = watch::Sender::default();
        let service = AgentServiceServer::new(Service { facts: facts.clone() });
        let serve = Server::builder().add_service(service);
        tokio::spawn(serve.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, facts }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Facts)) {
        self.facts.send_modify(change);
    }

    /// Waits until something is so.
    pub(crate) async fn until(&self, what: &str, mut is: impl FnMut(&Facts) -> bool) -> Facts {
        let mut facts = self.facts.subscribe();
        match timeout(DEADLINE, facts.wait_for(|facts| is(facts))).await {
            Ok(facts) => facts.unwrap().clone(),
            Err(_) => panic!("not within {DEADLINE:?}: {what}; known is {:#?}", self.facts.borrow()),
        }
    }

    pub(crate) async fn until_finished(&self, attempt: &str) -> Attempt {
        let finished = |facts: &Facts| facts.attempts.get(attempt).is_some_and(|known| known.last.is_some());
        self.until("the final report", finished).await.attempts.remove(attempt).unwrap()
    }

    pub(crate) fn offer(&self) -> String {
        let attempt = AttemptId::new().to_string();
        self.offer_again(&attempt);
        attempt
    }

    pub(crate) fn offer_again(&self, attempt: &str) {
        self.say(ToAgent::Offer(pb::Offer {
            attempt: attempt.to_owned(),
            build: 42,
            job: 1,
            spec: Some(pb::BuildSpec {
                source: Some(pb::Source { repository: "https://example.com/r".into(), ..Default::default() }),
                trigger: pb::Trigger::Manual.into(),
                ..Default::default()
            }),
            valid_for: Some(duration_to_pb(Duration::from_secs(10))),
            lease: Some(duration_to_pb(Duration::from_secs(60))),
            timeout: Some(duration_to_pb(Duration::from_secs(600))),
            ..Default::default()
        }));
    }

    pub(crate) fn desire(&self, attempt: &str, state: State) {
        let (attempt, canceled_by) = (attempt.to_owned(), "ann".to_owned());
        self.say(ToAgent::Desired(pb::Desired { attempt, state: state.into(), canceled_by }));
    }

    pub(crate) fn drain(&self) {
        self.say(ToAgent::Drain(pb::Drain {}));
    }

    fn say(&self, message: ToAgent) {
        let message = pb::OrchestratorMessage { message: Some(message) };
        let facts = self.facts.borrow();
        facts.session.as_ref().expect("an agent is there").send(Ok(message)).unwrap();
    }
}

struct Service {
    facts: watch::Sender<Facts>,
}

impl Service {
    /// Changes an attempt that is current and this instance's.
    fn current<T>(
        &self,
        id: &str,
        instance: &str,
        change: impl FnOnce(&mut Attempt) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut result = Err(Status::failed_precondition("the attempt is not current"));
        self.facts.send_modify(|facts| {
            if facts.unauthenticated {
                result = Err(Status::unauthenticated("no token"));
            } else if let Some(attempt) = facts.attempts.get_mut(id)
                && !facts.fenced.contains(id)
                && attempt.instance == instance
            {
                result = change(attempt);
            }
        });
        result
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = UnboundedReceiverStream<Result<pb::OrchestratorMessage, Status>>;
    type AppendLogStream = ReceiverStream<Result<pb::LogAck, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        assert!(request.metadata().contains_key(AGENT_CREDENTIAL));
        if self.facts.borrow().unauthenticated {
            return Err(Status::unauthenticated("this orchestrator wants a token: set BUILDR_TOKEN"));
        }
        let (out, answers) = mpsc::unbounded_channel();
        let facts = self.facts.clone();
        tokio::spawn(session(request.into_inner(), out, facts));
        Ok(Response::new(UnboundedReceiverStream::new(answers)))
    }

    async fn accept_attempt(
        &self,
        request: Request<pb::AcceptAttemptRequest>,
    ) -> Result<Response<pb::AcceptAttemptResponse>, Status> {
        let pb::AcceptAttemptRequest { attempt, instance } = request.into_inner();
        let mut decision = pb::accept_attempt_response::Decision::Go;
        self.facts.send_modify(|facts| {
            facts.accepts += 1;
            decision = facts.accept.unwrap_or(decision);
            if decision == pb::accept_attempt_response::Decision::Go {
                facts.attempts.entry(attempt).or_default().instance = instance;
            }
        });
        Ok(Response::new(pb::AcceptAttemptResponse { decision: decision.into() }))
    }

    async fn report_plan(
        &self,
        request: Request<pb::ReportPlanRequest>,
    ) -> Result<Response<pb::ReportPlanResponse>, Status> {
        let pb::ReportPlanRequest { attempt, instance, commit, jobs, .. } = request.into_inner();
        assert_eq!((&commit[..6], jobs.len()), ("c0ffee", 1));
        self.current(&attempt, &instance, |attempt| {
            attempt.plans += 1;
            Ok(())
        })?;
        let _ = self.facts.subscribe().wait_for(|facts| !facts.hold_plans).await;
        let decision = self.facts.borrow().plan.unwrap_or(pb::report_plan_response::Decision::Go);
        let fence_after = self.facts.borrow().fence_after.map(duration_to_pb);
        Ok(Response::new(pb::ReportPlanResponse { decision: decision.into(), fence_after }))
    }

    async fn report_events(
        &self,
        request: Request<pb::ReportEventsRequest>,
    ) -> Result<Response<pb::ReportEventsResponse>, Status> {
        let pb::ReportEventsRequest { attempt, instance, first_seq, events, r#final } = request.into_inner();
        if self.facts.borrow().reject_events && r#final.is_none() {
            return Err(Status::invalid_argument("JobEvent.Planned.image is too long"));
        }
        let acked_seq = self.current(&attempt, &instance, |attempt| {
            let stored = attempt.events.len() as u64;
            if first_seq == 0 || first_seq > stored + 1 {
                return Err(Status::out_of_range("a gap"));
            }
            attempt.events.extend(events.into_iter().skip((stored + 1 - first_seq) as usize));
            if r#final.is_some() {
                attempt.logged_at_end = attempt.logs.values().map(Vec::len).sum();
                attempt.last = r#final;
            }
            Ok(attempt.events.len() as u64)
        })?;
        Ok(Response::new(pb::ReportEventsResponse { acked_seq, desired: None }))
    }

    async fn append_log(
        &self,
        request: Request<Streaming<pb::LogChunk>>,
    ) -> Result<Response<Self::AppendLogStream>, Status> {
        let (out, acks) = mpsc::channel(16);
        self.facts.send_modify(|facts| facts.log_streams += 1);
        let service = Self { facts: self.facts.clone() };
        tokio::spawn(async move { service.append(request.into_inner(), out).await });
        Ok(Response::new(ReceiverStream::new(acks)))
    }
}

impl Service {
    async fn append(
        &self,
        mut chunks: Streaming<pb::LogChunk>,
        out: mpsc::Sender<Result<pb::LogAck, Status>>,
    ) {
        let mut facts = self.facts.subscribe();
        while let Ok(Some(chunk)) = chunks.message().await {
            assert!(chunk.data.len() <= MAX_CHUNK);
            let _ = facts.wait_for(|facts| !facts.hold_logs).await;
            let mut broken = false;
            self.facts.send_modify(|facts| {
                if let Some(left) = facts.break_logs_after.as_mut() {
                    *left -= 1;
                    broken = *left == 0;
                }
                if broken {
                    facts.break_logs_after = None;
                }
            });
            if broken {
                let _ = out.send(Err(Status::unavailable("broken on purpose"))).await;
                return;
            }
            let pb::LogChunk { attempt, instance, log: name, offset, data, times } = chunk;
            let mut ack = pb::LogAck { attempt: attempt.clone(), log: name.clone(), ..Default::default() };
            let taken = self.current(&attempt, &instance, |attempt| {
                attempt.times += times.len();
                let log = attempt.logs.entry(name).or_default();
                let have = log.len() as u64;
                if offset <= have {
                    log.extend(data.iter().skip((have - offset) as usize));
                }
                ack.gap = offset > have;
                ack.durable = log.len() as u64;
                Ok(())
            });
            ack.fenced = taken.is_err();
            if out.send(Ok(ack)).await.is_err() {
                return;
            }
        }
    }
}

/// One session.
async fn session(
    mut incoming: Streaming<pb::AgentMessage>,
    out: mpsc::UnboundedSender<Result<pb::OrchestratorMessage, Status>>,
    facts: watch::Sender<Facts>,
) {
    let say = |message| {
        let _ = out.send(Ok(pb::OrchestratorMessage { message: Some(message) }));
    };
    while let Ok(Some(message)) = incoming.message().await {
        match message.message.unwrap() {
            FromAgent::Hello(hello) => {
                let refuse = facts.borrow().refuse.clone();
                if let Some(refused) = refuse {
                    say(ToAgent::Refused(refused));
                    return;
                }
                let desired = facts.borrow().desired_of(&hello.held);
                facts.send_modify(|facts| {
                    for held in &hello.held {
                        if let Some(attempt) = facts.attempts.get_mut(&held.attempt) {
                            attempt.instance = hello.instance.clone();
                        }
                    }
                });
                say(ToAgent::Welcome(pb::Welcome {
                    protocol: 1,
                    agent: "0".repeat(32),
                    heartbeat_interval: Some(duration_to_pb(Duration::from_millis(50))),
                    desired,
                }));
                facts.send_modify(|facts| {
                    facts.hellos.push(hello);
                    facts.session = Some(out.clone());
                });
            }
            FromAgent::Heartbeat(heartbeat) => {
                say(ToAgent::HeartbeatReply(pb::HeartbeatReply { seq: heartbeat.seq, desired: Vec::new() }));
                facts.send_modify(|facts| facts.heartbeats.push(heartbeat));
            }
            FromAgent::Decline(pb::Decline { attempt, reason }) => {
                facts.send_modify(|facts| drop(facts.declined.insert(attempt, reason)));
            }
        }
    }
}
