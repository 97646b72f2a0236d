//! A client against a service in this process that behaves as the test wants.

mod side_by_side;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use buildr_engine::job::Item;
use buildr_manifest::{Event, EventKind, Outcome, ServiceName, StageName, StageState, Usage};
use buildr_proto::{
    AgentId, AttemptId,
    build::{
        Attempt, Build, BuildEvent, BuildEventKind, BuildState, Job, Reference, Source, Stage, StageProgress,
    },
    pb::build_service_server::{BuildService, BuildServiceServer},
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::Response;

use super::{
    follow::{Entry, Follow, Options, Patience, Stages, Until},
    *,
};

/// What the orchestrator has of the one build.
#[derive(Clone, Default)]
struct World {
    events: Vec<BuildEvent>,
    /// By the logs' names.
    logs: BTreeMap<String, FakeLog>,
}

#[derive(Clone, Default)]
struct FakeLog {
    bytes: Vec<u8>,
    /// It is complete, with so many bytes missing.
    end: Option<u64>,
}

impl World {
    fn log(&mut self, name: &str) -> &mut FakeLog {
        self.logs.entry(name.to_owned()).or_default()
    }
}

/// A service that gives what is in its world, and breaks each stream after a number of messages.
#[derive(Clone)]
struct Fake {
    world: watch::Sender<World>,
    break_after: usize,
    /// Bytes per piece of a log.
    piece: usize,
    log_offsets: Arc<Mutex<Vec<u64>>>,
    watch_cursors: Arc<Mutex<Vec<u64>>>,
    submit_keys: Arc<Mutex<Vec<String>>>,
    submit_failures: Arc<AtomicU64>,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages until the fake breaks the stream.
fn stream<T: Send + 'static>(
    limit: usize,
    next: impl FnMut(World) -> Option<(T, bool)> + Send + 'static,
    world: watch::Receiver<World>,
) -> Streamed<T> {
    let state = (next, world, 0usize, false);
    Box::pin(futures_util::stream::unfold(state, move |(mut next, mut world, sent, over)| async move {
        if over {
            return None;
        }
        if sent == limit {
            return Some((Err(Status::unavailable("the fake breaks off")), (next, world, sent, true)));
        }
        loop {
            let now = world.borrow_and_update().clone();
            if let Some((message, last)) = next(now) {
                return Some((Ok(message), (next, world, sent + 1, last)));
            }
            if world.changed().await.is_err() {
                return None;
            }
        }
    }))
}

#[tonic::async_trait]
impl BuildService for Fake {
    type WatchBuildStream = Streamed<pb::BuildEvent>;
    type ReadLogStream = Streamed<pb::ReadLogResponse>;

    async fn submit(
        &self,
        request: Request<pb::SubmitRequest>,
    ) -> Result<Response<pb::SubmitResponse>, Status> {
        self.submit_keys.lock().unwrap().push(request.into_inner().idempotency_key);
        let left =
            self.submit_failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match left {
            Ok(_) => Err(Status::unavailable("not now")),
            Err(_) => Ok(Response::new(pb::SubmitResponse { build: 7 })),
        }
    }

    async fn get_build(
        &self,
        request: Request<pb::GetBuildRequest>,
    ) -> Result<Response<pb::GetBuildResponse>, Status> {
        match request.into_inner().build {
            1 => Err(Status::unauthenticated("token")),
            _ => Err(Status::not_found("no such build")),
        }
    }

    async fn list_builds(
        &self,
        _: Request<pb::ListBuildsRequest>,
    ) -> Result<Response<pb::ListBuildsResponse>, Status> {
        Err(Status::unimplemented("no"))
    }

    async fn watch_build(
        &self,
        request: Request<pb::WatchBuildRequest>,
    ) -> Result<Response<Self::WatchBuildStream>, Status> {
        let mut after = request.into_inner().after;
        self.watch_cursors.lock().unwrap().push(after);
        let next = move |world: World| {
            let event = world.events.iter().find(|event| event.seq > after)?.clone();
            after = event.seq;
            let last = matches!(event.kind, BuildEventKind::Finished(_));
            Some((event.into(), last))
        };
        Ok(Response::new(stream(self.break_after, next, self.world.subscribe())))
    }

    async fn read_log(
        &self,
        request: Request<pb::ReadLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        let pb::ReadLogRequest { mut offset, log: name, .. } = request.into_inner();
        self.log_offsets.lock().unwrap().push(offset);
        let piece = self.piece;
        let next = move |world: World| {
            let log = world.logs.get(&name)?;
            let from = usize::try_from(offset).unwrap();
            let until = log.bytes.len().min(from + piece);
            let (data, begin) = (Bytes::copy_from_slice(&log.bytes[from..until]), offset);
            if data.is_empty() {
                let missing = log.end?;
                return Some((pb::ReadLogResponse { offset, data, times: vec![], end: true, missing }, true));
            }
            offset = until as u64;
            Some((pb::ReadLogResponse { offset: begin, data, times: vec![], end: false, missing: 0 }, false))
        };
        Ok(Response::new(stream(self.break_after, next, self.world.subscribe())))
    }

    async fn retry_build(
        &self,
        _: Request<pb::RetryBuildRequest>,
    ) -> Result<Response<pb::RetryBuildResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn explain(&self, _: Request<pb::ExplainRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list_agents(
        &self,
        _: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn drain_agent(
        &self,
        _: Request<pb::DrainAgentRequest>,
    ) -> Result<Response<pb::DrainAgentResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn remove_agent(
        &self,
        _: Request<pb::RemoveAgentRequest>,
    ) -> Result<Response<pb::RemoveAgentResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn cancel_build(
        &self,
        _: Request<pb::CancelBuildRequest>,
    ) -> Result<Response<pb::CancelBuildResponse>, Status> {
        Err(Status::not_found("no such build"))
    }
}

impl Fake {
    fn new(world: World) -> Self {
        Self {
            world: watch::Sender::new(world),
            break_after: usize::MAX,
            piece: 4,
            log_offsets: Arc::default(),
            watch_cursors: Arc::default(),
            submit_keys: Arc::default(),
            submit_failures: Arc::default(),
        }
    }

    async fn serve(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(BuildServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Client::connect(Target::new(&address, None).unwrap()).await.unwrap()
    }
}

const LOG: &str = "one\ntwo\nthree\nfour\n";

fn stage() -> StageName {
    StageName::new("test").unwrap()
}

fn attempt() -> AttemptId {
    "01J00000000000000000000000".parse().unwrap()
}

fn farm(seq: u64, kind: BuildEventKind) -> BuildEvent {
    let at = Timestamp::UNIX_EPOCH;
    BuildEvent { seq, at, build: BuildId::new(7).unwrap(), job: 1, attempt: Some(attempt()), kind }
}

fn job(seq: u64, kind: EventKind) -> BuildEvent {
    farm(seq, BuildEventKind::Job(Event { at: Timestamp::UNIX_EPOCH, kind }))
}

fn step(seq: u64, step: u32, offset: u64) -> BuildEvent {
    job(seq, EventKind::StepStarted { stage: stage(), step, command: format!("step {step}"), offset })
}

fn stage_end(seq: u64, state: StageState) -> BuildEvent {
    let (duration, usage) = (Duration::from_secs(1), Usage::default());
    job(
        seq,
        EventKind::StageFinished {
            stage: stage(),
            state,
            allowed: false,
            log_bytes: LOG.len() as u64,
            duration,
            usage,
        },
    )
}

fn whole_story() -> World {
    let events = vec![
        farm(1, BuildEventKind::Queued),
        farm(2, BuildEventKind::AttemptAccepted { agent_name: "north".to_owned() }),
        job(3, EventKind::StageStarted { stage: stage() }),
        step(4, 0, 0),
        step(5, 1, 4),
        step(6, 2, 14),
        stage_end(7, StageState::Passed),
        farm(8, BuildEventKind::Finished(Outcome::Passed)),
    ];
    let log = FakeLog { bytes: LOG.into(), end: Some(0) };
    World { events, logs: [("test".to_owned(), log)].into() }
}

fn build(state: BuildState) -> Build {
    let finished = matches!(state, BuildState::Finished(_));
    let progress =
        if finished { StageProgress::Finished(StageState::Passed) } else { StageProgress::Running };
    let stage = Stage {
        name: stage(),
        progress,
        duration: Duration::ZERO,
        log_bytes: if finished { LOG.len() as u64 } else { 8 },
        log_missing: 0,
        failed_command: None,
        usage: Usage::default(),
        allowed: false,
    };
    let agent = AgentId::from_digest(&[0; 32]);
    Build {
        number: BuildId::new(7).unwrap(),
        spec: spec(),
        submitted_by: "ann".to_owned(),
        state: state.clone(),
        submitted_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        commit: None,
        cancel_requested_by: None,
        jobs: vec![Job {
            name: None,
            axes: Default::default(),
            allow_failure: false,
            index: 1,
            state,
            attempt: Some(Attempt { id: attempt(), agent, agent_name: "north".to_owned() }),
            stages: vec![stage],
            times: Default::default(),
        }],
    }
}

fn spec() -> BuildSpec {
    let repository = "https://example.com/a.git".to_owned();
    BuildSpec {
        source: Source { repository, reference: Reference::Default, commit: None },
        trigger: buildr_manifest::Trigger::Manual,
        manifest_path: None,
        variables: Vec::new(),
        labels: Default::default(),
        priority: 0,
        cron: None,
    }
}

fn options() -> Options {
    let patience = Patience { first_pause: Duration::from_millis(1), ..Patience::default() };
    Options { patience, ..Options::default() }
}

/// The stream as text: output as it is, events in braces.
async fn read(follow: &mut Follow, mut until: impl FnMut(&str) -> bool) -> String {
    let mut text = String::new();
    let reading = async {
        while let Some(entry) = follow.next().await.unwrap() {
            text.push_str(&describe(&entry));
            if until(&text) {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("the stream goes on");
    text
}

fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Item(Item::Output(output)) => String::from_utf8_lossy(&output.data).into_owned(),
        Entry::Item(Item::Event(event)) => match &event.kind {
            EventKind::Planned { .. } => "{planned}".to_owned(),
            EventKind::StageStarted { .. } => "{start}".to_owned(),
            EventKind::StepStarted { step, .. } => format!("{{{step}}}"),
            EventKind::StageFinished { .. } => "{end}".to_owned(),
            other => panic!("{other:?}"),
        },
        Entry::Farm(event) => match &event.kind {
            BuildEventKind::Queued => "{queued}".to_owned(),
            BuildEventKind::AttemptAccepted { .. } => "{accepted}".to_owned(),
            BuildEventKind::AttemptLost { .. } => "{lost}".to_owned(),
            BuildEventKind::Finished(outcome) => format!("{{{}}}", outcome.word()),
            other => panic!("{other:?}"),
        },
        Entry::LogIncomplete { missing, .. } => format!("{{missing {missing}}}"),
        Entry::ConnectionLost { .. } => "{broken}".to_owned(),
        Entry::ConnectionBack => "{back}".to_owned(),
    }
}

const TOLD: &str = "{queued}{accepted}{start}{0}one\n{1}two\nthree\n{2}four\n{end}{passed}";

fn finished() -> Build {
    build(BuildState::Finished(Outcome::Passed))
}

#[tokio::test]
async fn a_late_reader_sees_everything_in_order() {
    for piece in [1, 3, 4, 1000] {
        let fake = Fake { piece, ..Fake::new(whole_story()) };
        let mut follow = Follow::new(fake.serve().await, &finished(), options());
        assert_eq!(read(&mut follow, |_| false).await, TOLD, "in pieces of {piece}");
        assert_eq!(follow.outcome(), Some(&Outcome::Passed));
    }
}

#[tokio::test]
async fn a_live_reader_sees_what_comes_when_it_comes() {
    let whole = whole_story();
    let begun = World {
        events: whole.events[..4].to_vec(),
        logs: [("test".to_owned(), FakeLog { bytes: b"on".to_vec(), end: None })].into(),
    };
    let fake = Fake::new(begun);
    let mut follow = Follow::new(fake.serve().await, &build(BuildState::Running), options());
    let first = read(&mut follow, |text| text.ends_with("on")).await;
    fake.world.send_replace(whole);
    assert_eq!(first + &read(&mut follow, |_| false).await, TOLD);
}

#[tokio::test]
async fn broken_connections_cost_nothing() {
    for break_after in [1, 2, 3] {
        let fake = Fake { break_after, piece: 3, ..Fake::new(whole_story()) };
        let mut follow = Follow::new(fake.serve().await, &finished(), options());
        let text = read(&mut follow, |_| false).await;
        assert!(text.contains("{broken}"), "{text}");
        assert_eq!(text.replace("{broken}", "").replace("{back}", ""), TOLD, "after {break_after}");
        let offsets = fake.log_offsets.lock().unwrap().clone();
        assert!(offsets.len() > 1 && offsets.is_sorted(), "resumed by offset: {offsets:?}");
        let cursors = fake.watch_cursors.lock().unwrap().clone();
        assert!(cursors.len() > 1 && cursors.is_sorted(), "resumed by number: {cursors:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_incomplete_is_told_so() {
    let mut world = whole_story();
    world.log("test").bytes.truncate(9);
    world.log("test").end = Some(10);
    let mut follow = Follow::new(Fake::new(world).serve().await, &finished(), options());
    assert_eq!(
        read(&mut follow, |_| false).await,
        "{queued}{accepted}{start}{0}one\n{1}two\nt{2}{missing 10}{end}{passed}"
    );
}

#[tokio::test]
async fn the_log_of_a_lost_attempt_is_shown_to_its_end() {
    let mut world = whole_story();
    world.events.truncate(4);
    world.events.push(farm(5, BuildEventKind::AttemptLost { reason: "silent".to_owned(), requeued: false }));
    let lost = Outcome::AgentLost { agent: "north".to_owned() };
    world.events.push(farm(6, BuildEventKind::Finished(lost.clone())));
    let client = Fake::new(world).serve().await;
    let mut follow = Follow::new(client, &build(BuildState::Finished(lost)), options());
    assert_eq!(
        read(&mut follow, |_| false).await,
        format!("{{queued}}{{accepted}}{{start}}{{0}}{LOG}{{lost}}{{agent_lost}}")
    );
}

#[tokio::test]
async fn without_following_the_stream_ends_where_the_build_stood() {
    let mut world = whole_story();
    world.events.truncate(5);
    world.log("test").bytes.truncate(8);
    world.log("test").end = None;
    let options = Options { until: Until::Now, ..options() };
    let mut follow = Follow::new(Fake::new(world).serve().await, &build(BuildState::Running), options);
    assert_eq!(read(&mut follow, |_| false).await, "{queued}{accepted}{start}{0}one\n{1}two\n");
    assert_eq!(follow.outcome(), None);
}

#[tokio::test]
async fn the_last_lines_alone_can_be_read() {
    let fake = Fake::new(whole_story());
    let client = fake.serve().await;
    let build = finished();
    let job = &build.jobs[0];
    let found = client.line_start(build.number, job, &job.stages[0], 2).await.unwrap();
    assert_eq!(found, (8, 2));
    let options = Options { begin: [(stage().into(), 8)].into(), ..options() };
    let mut follow = Follow::new(client, &build, options);
    let told = "{queued}{accepted}{start}three\n{2}four\n{end}{passed}";
    assert_eq!(read(&mut follow, |_| false).await, told);
}

#[tokio::test]
async fn stages_can_be_chosen() {
    let other = StageName::new("other").unwrap();
    let options = |stages| Options { stages, ..options() };
    let follow = |world, stages| async move {
        let mut follow = Follow::new(Fake::new(world).serve().await, &finished(), options(stages));
        read(&mut follow, |_| false).await
    };
    let without = "{queued}{accepted}{passed}";
    assert_eq!(follow(whole_story(), Stages::Named([stage()].into())).await, TOLD);
    assert_eq!(follow(whole_story(), Stages::Named([other].into())).await, without);
    assert_eq!(follow(whole_story(), Stages::Failed).await, without);
    let mut failed = whole_story();
    failed.events[6] = stage_end(7, StageState::Oom);
    assert_eq!(follow(failed, Stages::Failed).await, TOLD);
}

#[tokio::test]
async fn what_a_service_prints_is_shown_only_where_it_was_asked_for() {
    let service = ServiceName::new("db").unwrap();
    let mut world = whole_story();
    let planned =
        EventKind::Planned { image: "i".to_owned(), stages: vec![stage()], services: vec![service.clone()] };
    world.events.insert(2, job(3, planned));
    (4..).zip(&mut world.events[3..]).for_each(|(seq, event)| event.seq = seq);
    *world.log("services/db") = FakeLog { bytes: b"listening\n".to_vec(), end: Some(3) };
    let client = Fake { piece: 100, ..Fake::new(world) }.serve().await;
    let follow = |stages, services| {
        let options = Options { stages, services, ..options() };
        Follow::new(client.clone(), &finished(), options)
    };
    let all = read(&mut follow(Stages::All, [].into()), |_| false).await;
    assert_eq!(all.replace("{planned}", ""), TOLD);
    let alone = read(&mut follow(Stages::Named([].into()), [service].into()), |_| false).await;
    assert_eq!(alone, "{queued}{accepted}{planned}listening\n{missing 3}{passed}");
}

#[tokio::test]
async fn a_submit_is_tried_again_with_the_same_key() {
    let fake = Fake::new(World::default());
    fake.submit_failures.store(2, Ordering::SeqCst);
    let build = fake.serve().await.submit(spec(), "ann").await.unwrap();
    assert_eq!(build.get(), 7);
    let keys = fake.submit_keys.lock().unwrap().clone();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let client = Fake::new(World::default()).serve().await;
    let which = |number| Which::Number(BuildId::new(number).unwrap());
    assert!(matches!(client.get(which(1)).await, Err(Error::Token { given: false, .. })));
    assert!(matches!(client.get(which(9)).await, Err(Error::NoSuchBuild { build: Some(_), .. })));
    assert!(matches!(client.get(Which::Latest).await, Err(Error::NoSuchBuild { build: None, .. })));
    assert!(matches!(client.list(ListFilter::default()).await, Err(Error::NotAnOrchestrator { .. })));
}

#[tokio::test]
async fn nobody_and_somebody_else_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
            // Closing at once could reset the connection before the answer is read.
            let _until_the_client_leaves = stream.read_to_end(&mut request).await;
        }
    });
    let target = || Target::new(&address, None).unwrap();
    let asked = match Client::connect(target()).await {
        Ok(client) => client.list(ListFilter::default()).await.map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(asked, Err(Error::NotAnOrchestrator { .. })), "{asked:?}");
    serving.abort();
    let _ended = serving.await;
    let nobody = Client::connect(target()).await.map(drop);
    assert!(matches!(nobody, Err(Error::Unreachable { .. })), "{nobody:?}");
}

#[test]
fn addresses_are_taken_as_people_write_them() {
    for (text, expected) in [
        ("localhost", "localhost:50051"),
        ("http://127.0.0.1:1/", "127.0.0.1:1"),
        ("[::1]", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
    ] {
        assert_eq!(Target::new(text, None).unwrap().address, expected);
    }
    assert!(matches!(Target::new("https://x", None), Err(Error::Usage { .. })));
    assert!(matches!(Target::new("x", Some("a\nb")), Err(Error::Usage { .. })));
}
