//! Rows back into what they were.

use std::{
    collections::{BTreeMap, HashMap},
    str::FromStr,
};

use buildr_proto::{
    AttemptId, BuildId,
    build::{Attempt, Build, BuildEvent, BuildEventKind, BuildState, Job, Stage},
    plan::Face,
    times::{JobTimes, Stopwatch},
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{Row, SqlitePool, sqlite::SqliteRow};

use crate::{
    core::{
        build::{self as active, JobState, Phase, Progress},
        record::{AgentRow, AttemptState, BuildRow, StageRow},
    },
    store::{Error, Filter, Loaded, StoredAgent, StoredAttempt},
};

const BUILD_COLUMNS: &str = "SELECT number, spec, submitted_by, submitted_at, standing, started_at, finished_at, commit_id, cancel, events FROM builds";

const ACTIVE: &str = "
    SELECT number, spec, submitted_by, submitted_at, standing, started_at, finished_at, commit_id,
           cancel, cancel_at, terms, events, key
    FROM builds INDEXED BY builds_unfinished CROSS JOIN idempotency ON idempotency.build = builds.number
    WHERE builds.state <> 'finished' ORDER BY number";

const ACTIVE_JOBS: &str = "
    SELECT jobs.build, idx, jobs.standing, face, labels, losses, retries, ending, queued_at,
           jobs.attempt
    FROM builds INDEXED BY builds_unfinished CROSS JOIN jobs ON jobs.build = builds.number
    WHERE builds.state <> 'finished' ORDER BY jobs.build, idx";

const ACTIVE_ATTEMPTS: &str = "
    SELECT attempts.id, agent, agent_name, instance, attempts.state, attempts.events, outcome, accepted_at
    FROM builds INDEXED BY builds_unfinished CROSS JOIN jobs ON jobs.build = builds.number
         CROSS JOIN attempts ON attempts.id = jobs.attempt
    WHERE builds.state <> 'finished' AND attempts.state IN ('accepted', 'running')";

const ACTIVE_STAGES: &str = "
    SELECT stages.attempt, position, stage, command
    FROM builds INDEXED BY builds_unfinished CROSS JOIN jobs ON jobs.build = builds.number
         CROSS JOIN attempts ON attempts.id = jobs.attempt
         CROSS JOIN stages ON stages.attempt = attempts.id
    WHERE builds.state <> 'finished' AND attempts.state IN ('accepted', 'running')
    ORDER BY stages.attempt, position";

const JOBS: &str = "
    SELECT idx, standing, face, attempt, agent, agent_name
    FROM jobs LEFT JOIN attempts ON attempts.id = jobs.attempt
    WHERE jobs.build = $1 ORDER BY idx";

const STAGES: &str = "
    SELECT jobs.idx, stage FROM jobs JOIN stages ON stages.attempt = jobs.attempt
    WHERE jobs.build = $1 ORDER BY jobs.idx, position";

/// The events that tell where time went; the many others, of steps above all, stay where they are.
const TIMES: &str = "
    SELECT event FROM events
    WHERE build = $1 AND event->>'$.kind.job.event'
          IN ('source_ready', 'container_ready', 'stage_started', 'stage_finished')
    ORDER BY seq";

/// Everything that is not finished.
pub(super) async fn load(pool: &SqlitePool) -> Result<Loaded, Error> {
    let next: i64 =
        sqlx::query_scalar("SELECT coalesce(max(number), 0) + 1 FROM builds").fetch_one(pool).await?;
    let mut attempts = active_attempts(pool).await?;
    let mut jobs: HashMap<i64, Vec<active::Job>> = HashMap::new();
    for row in sqlx::query(ACTIVE_JOBS).fetch_all(pool).await? {
        jobs.entry(row.try_get("build")?).or_default().push(active_job(&row, &mut attempts)?);
    }
    let mut builds = Vec::new();
    for row in sqlx::query(ACTIVE).fetch_all(pool).await? {
        let number: i64 = row.try_get("number")?;
        let key: String = row.try_get("key")?;
        let build = active::Build {
            spec: json(&row, "spec")?,
            row: BuildRow {
                number: build_id(number)?,
                state: json(&row, "standing")?,
                started_at: parsed_or_none(&row, "started_at")?,
                finished_at: None,
                commit: row.try_get("commit_id")?,
                cancel: row.try_get("cancel")?,
                cancel_at: parsed_or_none(&row, "cancel_at")?,
                terms: json_or_none(&row, "terms")?,
                events: row.try_get::<i64, _>("events")? as u64,
            },
            key: key.clone(),
            jobs: jobs.remove(&number).unwrap_or_default(),
        };
        builds.push((key, build));
    }
    let drained = agents(pool).await?.into_iter();
    let drained = drained.filter_map(|agent| Some((agent.row.id, agent.drained_by?))).collect();
    let rows = sqlx::query("SELECT timetable FROM timetables").fetch_all(pool).await?;
    let timetables = rows.iter().map(|row| json(row, "timetable")).collect::<Result<_, _>>()?;
    Ok(Loaded { next_build: next as u64, builds, drained, timetables })
}

/// All agents, by name.
pub(super) async fn agents(pool: &SqlitePool) -> Result<Vec<StoredAgent>, Error> {
    let sql = "SELECT id AS agent, name, instance, version, slots, labels, connected_at, drained_by
               FROM agents ORDER BY name, id";
    let rows = sqlx::query(sql).fetch_all(pool).await?;
    let stored = |row: &SqliteRow| {
        let row_of = AgentRow {
            id: agent_id(row)?,
            name: row.try_get("name")?,
            instance: parsed(row, "instance")?,
            version: row.try_get("version")?,
            slots: row.try_get::<i64, _>("slots")? as u32,
            labels: json(row, "labels")?,
            connected_at: parsed(row, "connected_at")?,
        };
        Ok(StoredAgent { row: row_of, drained_by: row.try_get("drained_by")? })
    };
    rows.iter().map(stored).collect()
}

/// The newest builds of a repository that an agent had and that have ended.
pub(super) async fn past(pool: &SqlitePool, repository: &str, limit: u32) -> Result<Vec<Build>, Error> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{BUILD_COLUMNS} WHERE repository = $1 AND state = 'finished' AND started_at IS NOT NULL
         ORDER BY number DESC LIMIT $2"
    ));
    let rows = sqlx::query(sql).bind(repository).bind(i64::from(limit)).fetch_all(pool).await?;
    rows.iter().map(stored_build).collect()
}

async fn active_attempts(pool: &SqlitePool) -> Result<HashMap<String, active::Attempt>, Error> {
    let mut stages: HashMap<String, Vec<StageRow>> = HashMap::new();
    for row in sqlx::query(ACTIVE_STAGES).fetch_all(pool).await? {
        let attempt: String = row.try_get("attempt")?;
        let stage = StageRow {
            attempt: parsed(&row, "attempt")?,
            position: row.try_get::<i64, _>("position")? as u32,
            stage: json(&row, "stage")?,
            command: row.try_get("command")?,
        };
        stages.entry(attempt).or_default().push(stage);
    }
    let mut attempts = HashMap::new();
    for row in sqlx::query(ACTIVE_ATTEMPTS).fetch_all(pool).await? {
        let id: String = row.try_get("id")?;
        let outcome: Option<String> = row.try_get("outcome")?;
        let progress = Progress {
            accepted_at: parsed(&row, "accepted_at")?,
            events: row.try_get::<i64, _>("events")? as u64,
            outcome: outcome.map(|text| from_json(&text)).transpose()?,
            stages: stages.remove(&id).unwrap_or_default(),
            unnamed: 0,
            removed: None,
        };
        let running = row.try_get::<String, _>("state")? == "running";
        let attempt = active::Attempt {
            id: parsed(&row, "id")?,
            agent: agent_id(&row)?,
            agent_name: row.try_get("agent_name")?,
            instance: parsed(&row, "instance")?,
            phase: if running { Phase::Running(progress) } else { Phase::Accepted(progress) },
        };
        attempts.insert(id, attempt);
    }
    Ok(attempts)
}

fn active_job(
    row: &SqliteRow,
    attempts: &mut HashMap<String, active::Attempt>,
) -> Result<active::Job, Error> {
    let queued_at: Timestamp = parsed(row, "queued_at")?;
    let attempt: Option<String> = row.try_get("attempt")?;
    let held = attempt.as_ref().and_then(|id| attempts.remove(id));
    let state = match (json(row, "standing")?, held) {
        (BuildState::Finished(outcome), _) => JobState::Finished(outcome),
        (_, Some(attempt)) => JobState::Held(Box::new(attempt)),
        (_, None) => JobState::Queued { since: queued_at },
    };
    Ok(active::Job {
        index: row.try_get::<i64, _>("idx")? as u32,
        face: json(row, "face")?,
        labels: json(row, "labels")?,
        losses: row.try_get::<i64, _>("losses")? as u32,
        retries: row.try_get::<i64, _>("retries")? as u32,
        ending: json_or_none(row, "ending")?,
        queued_at,
        last_attempt: parsed_or_none(row, "attempt")?,
        state,
    })
}

/// Which of these keys were used.
pub(super) async fn keys(pool: &SqlitePool, keys: &[String]) -> Result<Vec<(String, BuildId)>, Error> {
    let wanted = serde_json::to_string(keys).map_err(|error| Error::Row(error.to_string()))?;
    let sql = "SELECT idempotency.key, build FROM json_each($1) AS wanted CROSS JOIN idempotency ON idempotency.key = wanted.value";
    let rows = sqlx::query(sql).bind(wanted).fetch_all(pool).await?;
    rows.iter().map(|row| Ok((row.try_get("key")?, build_id(row.try_get("build")?)?))).collect()
}

/// A build with its jobs and stages, all as of one moment.
pub(super) async fn build(pool: &SqlitePool, number: BuildId) -> Result<Option<Build>, Error> {
    let mut tx = pool.begin().await?;
    let sql = sqlx::AssertSqlSafe(format!("{BUILD_COLUMNS} WHERE number = $1"));
    let Some(row) = sqlx::query(sql).bind(signed(number.get())).fetch_optional(&mut *tx).await? else {
        return Ok(None);
    };
    let mut build = stored_build(&row)?;
    for row in sqlx::query(JOBS).bind(signed(number.get())).fetch_all(&mut *tx).await? {
        build.jobs.push(stored_job(&row)?);
    }
    for row in sqlx::query(STAGES).bind(signed(number.get())).fetch_all(&mut *tx).await? {
        let index = row.try_get::<i64, _>("idx")? as u32;
        if let Some(job) = build.jobs.iter_mut().find(|job| job.index == index) {
            job.stages.push(json(&row, "stage")?);
        }
    }
    tx.rollback().await?;
    Ok(Some(build))
}

fn stored_build(row: &SqliteRow) -> Result<Build, Error> {
    Ok(Build {
        number: build_id(row.try_get("number")?)?,
        spec: json(row, "spec")?,
        submitted_by: row.try_get("submitted_by")?,
        state: json(row, "standing")?,
        submitted_at: parsed(row, "submitted_at")?,
        started_at: parsed_or_none(row, "started_at")?,
        finished_at: parsed_or_none(row, "finished_at")?,
        commit: row.try_get("commit_id")?,
        cancel_requested_by: row.try_get("cancel")?,
        jobs: Vec::new(),
    })
}

fn stored_job(row: &SqliteRow) -> Result<Job, Error> {
    let attempt = match parsed_or_none(row, "attempt")? {
        Some(id) => Some(Attempt { id, agent: agent_id(row)?, agent_name: row.try_get("agent_name")? }),
        None => None,
    };
    let index = row.try_get::<i64, _>("idx")? as u32;
    let Face { name, axes, allow_failure, group: _ } = json(row, "face")?;
    let name = Some(name).filter(|name| !name.is_empty());
    let state = json(row, "standing")?;
    Ok(Job {
        index,
        state,
        attempt,
        stages: Vec::new(),
        name,
        axes,
        allow_failure,
        times: JobTimes::default(),
    })
}

/// Builds without their jobs, newest first.
pub(super) async fn list(pool: &SqlitePool, filter: Filter) -> Result<Vec<Build>, Error> {
    let Filter { limit, before, repository, state } = filter;
    let before = before.map_or(i64::MAX, |number| signed(number.get()));
    // Only the conditions that are asked for, so that each list has an index to walk down.
    let mut sql = format!("{BUILD_COLUMNS} WHERE number < $1");
    if repository.is_some() {
        sql.push_str(" AND repository = $2");
    }
    if state.is_some() {
        sql.push_str(" AND state = $3");
    }
    sql.push_str(" ORDER BY number DESC LIMIT $4");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(before)
        .bind(repository)
        .bind(state)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    rows.iter().map(stored_build).collect()
}

/// The next events of a build.
pub(super) async fn events(
    pool: &SqlitePool,
    number: BuildId,
    after: u64,
    limit: u32,
) -> Result<Vec<BuildEvent>, Error> {
    let sql = "SELECT event FROM events WHERE build = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let rows = sqlx::query(sql)
        .bind(signed(number.get()))
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    rows.iter().map(|row| json(row, "event")).collect()
}

/// Where the time of a build's attempts went.
pub(super) async fn times(pool: &SqlitePool, number: BuildId) -> Result<Vec<(AttemptId, JobTimes)>, Error> {
    let mut watches: BTreeMap<AttemptId, Stopwatch> = BTreeMap::new();
    for row in sqlx::query(TIMES).bind(signed(number.get())).fetch_all(pool).await? {
        let event: BuildEvent = json(&row, "event")?;
        if let (Some(attempt), BuildEventKind::Job(event)) = (event.attempt, &event.kind) {
            watches.entry(attempt).or_default().event(event);
        }
    }
    Ok(watches.into_iter().map(|(attempt, watch)| (attempt, watch.times())).collect())
}

/// An attempt that was accepted.
pub(super) async fn attempt(pool: &SqlitePool, id: AttemptId) -> Result<Option<StoredAttempt>, Error> {
    let sql = "SELECT build, job, agent, instance, state, events FROM attempts WHERE id = $1";
    let Some(row) = sqlx::query(sql).bind(id.to_string()).fetch_optional(pool).await? else {
        return Ok(None);
    };
    let state: String = row.try_get("state")?;
    let state: AttemptState = serde_json::from_value(serde_json::Value::String(state))
        .map_err(|error| Error::Row(error.to_string()))?;
    Ok(Some(StoredAttempt {
        build: build_id(row.try_get("build")?)?,
        job: row.try_get::<i64, _>("job")? as u32,
        agent: agent_id(&row)?,
        instance: parsed(&row, "instance")?,
        state,
        events: row.try_get::<i64, _>("events")? as u64,
    }))
}

/// How a stage stands.
pub(super) async fn stage(pool: &SqlitePool, attempt: AttemptId, name: &str) -> Result<Option<Stage>, Error> {
    let sql = "SELECT stage FROM stages WHERE attempt = $1 AND name = $2";
    let row = sqlx::query(sql).bind(attempt.to_string()).bind(name).fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(None) };
    json(&row, "stage").map(Some)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn build_id(number: i64) -> Result<BuildId, Error> {
    u64::try_from(number)
        .ok()
        .and_then(BuildId::new)
        .ok_or_else(|| Error::Row(format!("{number} is not a build's number")))
}

fn agent_id(row: &SqliteRow) -> Result<buildr_proto::AgentId, Error> {
    let text: String = row.try_get("agent")?;
    text.try_into().map_err(|error: buildr_proto::id::InvalidId| Error::Row(error.to_string()))
}

fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    from_json(&row.try_get::<String, _>(column)?)
}

fn json_or_none<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Option<T>, Error> {
    row.try_get::<Option<String>, _>(column)?.map(|text| from_json(&text)).transpose()
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Row(error.to_string()))
}

fn parsed<T>(row: &SqliteRow, column: &str) -> Result<T, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    parsed_or_none(row, column)?.ok_or_else(|| Error::Row(format!("{column} is not set")))
}

fn parsed_or_none<T>(row: &SqliteRow, column: &str) -> Result<Option<T>, Error>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error: T::Err| Error::Row(format!("{column}: {error}"))))
        .transpose()
}
