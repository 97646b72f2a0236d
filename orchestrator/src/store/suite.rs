//! What every store must do. The rows come from the state machine itself.

use std::{future::Future, path::Path, time::Duration};

use buildr_manifest::{CancelOlder, Cause, Event, EventKind, Outcome, StageName, StageState, Usage};
use buildr_proto::{
    AttemptId, InstanceId,
    build::{BuildState, StageProgress},
    plan::{Group, Schedule, Schedules},
    times::JobTimes,
};
use jiff::Timestamp;

use super::{Error, Filter, SqliteStore, Store};
use crate::core::{
    Limits, State,
    input::{Accepted, Claim, Input, Reply, Report, SessionId},
    record::{AgentOrder, AttemptState, Batch},
    tests::{World, agent, number, plan, spec, story},
};

/// One build that runs, one that is queued, one that ended.
fn three_builds() -> (World, Batch, AttemptId) {
    let mut world = World::new();
    for (key, repository) in [("one", "a"), ("two", "b"), ("three", "a")] {
        world.submit(key, spec(repository, 0));
    }
    world.reply(Input::Cancel { build: number(3), by: "eve".to_owned() }).unwrap();
    let instance = InstanceId::new();
    world.hello(1, instance, 1, &[]).reply.unwrap();
    let (attempt, _) = world.offers(1)[0];
    let claim = Claim { attempt, agent: agent(1), instance };
    assert_eq!(world.reply(Input::Accept(claim.clone())), Ok(Reply::Accepted(Accepted::Go)));
    let events = story()[..2].to_vec();
    world.reply(Input::Report(Report { claim, first_seq: 1, events, last: None })).unwrap();
    let batch = std::mem::take(&mut world.written);
    (world, batch, attempt)
}

/// The tests that are the same for all stores.
async fn passes<S, F>(mut fresh: impl FnMut() -> F)
where
    S: Store,
    F: Future<Output = S>,
{
    what_is_committed_is_read_back(fresh().await).await;
    what_is_not_finished_is_loaded(fresh().await).await;
    what_an_attempt_took_is_kept_with_it(fresh().await).await;
    what_has_ended_is_not_changed_and_a_batch_is_all_or_nothing(fresh().await).await;
    lists_are_narrowed(fresh().await).await;
    concurrent_commits_are_all_kept(fresh().await).await;
    what_a_plan_wants_is_loaded_again(fresh().await).await;
    what_operators_want_of_agents_is_kept(fresh().await).await;
}

async fn what_a_plan_wants_is_loaded_again(store: impl Store) {
    let (mut world, batch, attempt) = three_builds();
    let agent_of = batch.attempts[&attempt].instance;
    store.commit(batch).await.unwrap();
    let claim = Claim { attempt, agent: agent(1), instance: agent_of };
    let mut wanted = plan(&["x", "y"]);
    wanted.terms.fail_fast = true;
    wanted.jobs[1].face.allow_failure = true;
    wanted.jobs[1].face.group = Some(Group { name: "g".to_owned(), cancel: CancelOlder::Queued });
    let entry = Schedule { name: "n".to_owned(), schedule: "0 3 * * *".to_owned(), branch: None };
    let (branch, entries) = ("main".to_owned(), vec![entry]);
    wanted.schedules = Some(Schedules { branch, of_default_branch: true, entries });
    world.reply(Input::Plan { claim, plan: wanted.clone() }).unwrap();
    world.reply(Input::Cancel { build: number(1), by: "eve".to_owned() }).unwrap();
    store.commit(std::mem::take(&mut world.written)).await.unwrap();
    let loaded = store.load().await.unwrap();
    let (_, build) = loaded.builds.iter().find(|(_, build)| build.row.number == number(1)).unwrap();
    assert_eq!(build.row.terms, Some(wanted.terms));
    assert_eq!(build.row.cancel_at, Some(world.now));
    assert_eq!(
        build.jobs.iter().map(|job| &job.face).collect::<Vec<_>>(),
        [&wanted.jobs[0].face, &wanted.jobs[1].face]
    );
    assert_eq!(loaded.timetables.iter().map(|table| table.entries.len()).collect::<Vec<_>>(), [1]);
    let shown = store.build(number(1)).await.unwrap().unwrap();
    assert_eq!(shown.jobs[1].name.as_deref(), Some("y"));
    assert!(shown.jobs[1].allow_failure);
}

async fn what_operators_want_of_agents_is_kept(store: impl Store) {
    let (mut world, batch, _) = three_builds();
    store.commit(batch).await.unwrap();
    let drain = AgentOrder::Drain { by: "eve".to_owned() };
    world.reply(Input::Order { agent: agent(1), order: drain }).unwrap();
    store.commit(std::mem::take(&mut world.written)).await.unwrap();
    assert_eq!(store.load().await.unwrap().drained, [(agent(1), "eve".to_owned())].into());
    // A new connection does not undo it.
    world.hello(1, InstanceId::new(), 2, &[]).reply.unwrap_err();
    world.reply(Input::Gone { agent: agent(1), session: SessionId(1) }).unwrap();
    world.hello(1, InstanceId::new(), 2, &[]).reply.unwrap();
    store.commit(std::mem::take(&mut world.written)).await.unwrap();
    let agents = store.agents().await.unwrap();
    assert_eq!(agents[0].drained_by.as_deref(), Some("eve"));
    world.reply(Input::Gone { agent: agent(1), session: SessionId(2) }).unwrap();
    world.reply(Input::Order { agent: agent(1), order: AgentOrder::Remove }).unwrap();
    store.commit(std::mem::take(&mut world.written)).await.unwrap();
    assert!(store.agents().await.unwrap().is_empty());
}

async fn what_is_committed_is_read_back(store: impl Store) {
    assert_eq!(store.newest().await.unwrap(), None);
    let (_, batch, attempt) = three_builds();
    store.commit(batch.clone()).await.unwrap();
    assert_eq!(store.newest().await.unwrap(), Some(number(3)));
    let build = store.build(number(1)).await.unwrap().unwrap();
    assert_eq!(build.state, BuildState::Running);
    assert_eq!(build.submitted_by, "eve");
    assert_eq!(build.jobs[0].attempt.as_ref().unwrap().id, attempt);
    assert_eq!(build.jobs[0].stages[0].progress, StageProgress::Running);
    let canceled = store.build(number(3)).await.unwrap().unwrap();
    assert_eq!(canceled.state, BuildState::Finished(Outcome::Canceled { by: "eve".to_owned() }));
    assert_eq!(store.build(number(4)).await.unwrap(), None);
    let mut events: Vec<_> = batch.events.iter().filter(|event| event.build == number(1)).cloned().collect();
    assert_eq!(store.events(number(1), 0, 100).await.unwrap(), events);
    assert_eq!(store.events(number(1), 1, 2).await.unwrap(), events.drain(1..3).collect::<Vec<_>>());
    let stored = store.attempt(attempt).await.unwrap().unwrap();
    assert_eq!((stored.agent, stored.state, stored.events), (agent(1), AttemptState::Running, 2));
    assert!(store.stage(attempt, "test".to_owned()).await.unwrap().is_some());
    assert!(store.stage(attempt, "other".to_owned()).await.unwrap().is_none());
    let keys = store.builds_of_keys(vec!["two".to_owned(), "four".to_owned()]).await.unwrap();
    assert_eq!(keys, [("two".to_owned(), number(2))]);
}

async fn what_an_attempt_took_is_kept_with_it(store: impl Store) {
    let (mut world, batch, attempt) = three_builds();
    store.commit(batch).await.unwrap();
    assert_eq!(store.times(number(1)).await.unwrap(), [(attempt, JobTimes::default())]);
    let usage = Usage { user_cpu: Duration::from_secs(3), peak_memory: Some(5 << 20), ..Usage::default() };
    let took = Duration::from_millis(1_500);
    let ended = EventKind::StageFinished {
        stage: StageName::new("test").unwrap(),
        state: StageState::Failed { step: None, cause: Cause::Exit { code: 3 } },
        allowed: true,
        log_bytes: 7,
        duration: took,
        usage,
    };
    let (pull, start) = (Duration::ZERO, Duration::from_millis(85));
    let container = EventKind::ContainerReady {
        stage: None,
        image: "i".to_owned(),
        image_id: "sha256:1".to_owned(),
        pull,
        start,
    };
    let at = Timestamp::UNIX_EPOCH + Duration::from_secs(4);
    let events = [EventKind::SourceReady { took }, container, ended].map(|kind| Event { at, kind });
    let (_, held) = world.state.accepted_jobs().next().unwrap();
    let claim = Claim { attempt, agent: held.agent.clone(), instance: held.instance };
    let report = Report { claim, first_seq: 3, events: events.to_vec(), last: None };
    world.reply(Input::Report(report)).unwrap();
    store.commit(std::mem::take(&mut world.written)).await.unwrap();
    let build = store.build(number(1)).await.unwrap().unwrap();
    let stage = &build.jobs[0].stages[0];
    assert_eq!((stage.usage, stage.allowed, stage.duration), (usage, true, took));
    let run = Some(Duration::from_secs(4));
    let times = JobTimes { source: Some(took), pull: None, start: Some(start), run };
    assert_eq!(store.times(number(1)).await.unwrap(), [(attempt, times)]);
    assert_eq!(store.times(number(2)).await.unwrap(), []);
}

async fn what_is_not_finished_is_loaded(store: impl Store) {
    let (world, batch, attempt) = three_builds();
    store.commit(batch).await.unwrap();
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.next_build, 4);
    let mut state = State::new(Limits::default(), loaded.next_build);
    for (key, build) in loaded.builds {
        state.restore(key, build, world.now);
    }
    assert_eq!(state.build_of_key("two"), Some(number(2)));
    assert_eq!(state.build_of_key("three"), None);
    let held: Vec<_> = state.accepted_jobs().map(|(job, held)| (job.build, held.id)).collect();
    assert_eq!(held, [(number(1), attempt)]);
    let (_, held) = state.accepted_jobs().next().unwrap();
    assert_eq!(held.progress().unwrap().stages.len(), 1);
    assert_eq!(held.progress().unwrap().events, 2);
}

async fn what_has_ended_is_not_changed_and_a_batch_is_all_or_nothing(store: impl Store) {
    let (mut world, batch, _) = three_builds();
    let ended = batch.builds[&number(3)].clone();
    store.commit(batch).await.unwrap();
    world.submit("four", spec("a", 0));
    let mut wrong = std::mem::take(&mut world.written);
    wrong.builds.insert(number(3), ended);
    assert!(matches!(store.commit(wrong.clone()).await, Err(Error::Stale { .. })));
    assert_eq!(store.build(number(4)).await.unwrap(), None);
    wrong.builds.remove(&number(3));
    store.commit(wrong.clone()).await.unwrap();
    assert!(store.commit(wrong).await.is_err(), "a number is given once");
}

async fn lists_are_narrowed(store: impl Store) {
    store.commit(three_builds().1).await.unwrap();
    let list = async |filter: Filter| -> Vec<u64> {
        store.list(filter).await.unwrap().iter().map(|build| build.number.get()).collect()
    };
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(list(all.clone()).await, [3, 2, 1]);
    assert_eq!(list(Filter { limit: 1, before: Some(number(3)), ..all.clone() }).await, [2]);
    assert_eq!(list(Filter { repository: Some("a".to_owned()), ..all.clone() }).await, [3, 1]);
    assert_eq!(list(Filter { state: Some("running"), ..all }).await, [1]);
}

async fn concurrent_commits_are_all_kept(store: impl Store) {
    let mut world = World::new();
    let mut batches = Vec::new();
    for key in 0..50 {
        world.submit(&key.to_string(), spec("a", 0));
        batches.push(std::mem::take(&mut world.written));
    }
    let commits = batches.into_iter().map(|batch| store.commit(batch));
    for result in futures_util::future::join_all(commits).await {
        result.unwrap();
    }
    assert_eq!(store.load().await.unwrap().builds.len(), 50);
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).await.unwrap()
}

#[tokio::test]
async fn sqlite_is_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    passes(|| {
        count += 1;
        let path = folder.path().join(format!("{count}.db"));
        async move { open(&path).await }
    })
    .await;
}

#[tokio::test]
async fn what_was_committed_survives_without_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("live.db")).await;
    store.commit(three_builds().1).await.unwrap();
    // The files as a killed process leaves them: the write-ahead log is not folded in.
    for suffix in ["", "-wal"] {
        let copy = folder.path().join(format!("dead.db{suffix}"));
        std::fs::copy(folder.path().join(format!("live.db{suffix}")), copy).unwrap();
    }
    let dead = open(&folder.path().join("dead.db")).await;
    assert_eq!(dead.load().await.unwrap().builds.len(), 2);
}

#[tokio::test]
async fn a_torn_end_of_the_write_ahead_log_loses_nothing_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("live.db")).await;
    store.commit(three_builds().1).await.unwrap();
    std::fs::copy(folder.path().join("live.db"), folder.path().join("dead.db")).unwrap();
    let mut wal = std::fs::read(folder.path().join("live.db-wal")).unwrap();
    wal.extend([0xa5; 3000]);
    std::fs::write(folder.path().join("dead.db-wal"), wal).unwrap();
    assert_eq!(open(&folder.path().join("dead.db")).await.load().await.unwrap().builds.len(), 2);
}

#[tokio::test]
async fn a_schema_of_the_future_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    open(&path).await.close().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET version = 99 WHERE version = 1")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    let error = SqliteStore::open(&path).await.err().unwrap();
    assert!(matches!(error, Error::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, "this is no database at all, and it is long enough to be seen as none".repeat(40))
        .unwrap();
    let error = SqliteStore::open(&path).await.err().unwrap();
    assert!(matches!(error, Error::Corrupt(_)), "{error:?}");
    assert!(error.to_string().contains("a.db"));
}

#[tokio::test]
async fn a_database_in_a_place_that_is_none_is_named() {
    let error = SqliteStore::open(Path::new("/proc/none/a.db")).await.err().unwrap();
    assert!(matches!(error, Error::ReadOnly(_)), "{error:?}");
}
