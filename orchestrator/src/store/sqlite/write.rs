//! A batch as statements: one per table.

use std::collections::BTreeMap;

use buildr_proto::AgentId;
use serde::Serialize;
use sqlx::{Connection, SqliteConnection};

use crate::{
    core::record::{AgentOrder, Batch},
    store::Error,
};

const NEW_BUILDS: &str = "
    INSERT INTO builds (number, spec, repository, submitted_by, submitted_at)
    SELECT value->>'number', value->'spec', value->>'$.spec.source.repository',
           value->>'submitted_by', value->>'submitted_at'
    FROM json_each($1)";

const KEYS: &str = "
    INSERT INTO idempotency (key, build) SELECT value->>'key', value->>'number' FROM json_each($1)";

const BUILDS: &str = "
    UPDATE builds SET
        state = new.value->>'$.state.state', standing = new.value->'state',
        started_at = new.value->>'started_at', finished_at = new.value->>'finished_at',
        commit_id = new.value->>'commit', cancel = new.value->>'cancel',
        cancel_at = new.value->>'cancel_at', events = new.value->>'events',
        planned = new.value->>'terms' IS NOT NULL, terms = nullif(new.value->'terms', 'null')
    FROM json_each($1) AS new
    WHERE builds.number = CAST(new.value->>'number' AS INTEGER) AND builds.state <> 'finished'";

const JOBS: &str = "
    INSERT INTO jobs (build, idx, state, standing, face, labels, losses, retries, ending, queued_at,
                      attempt)
    SELECT value->>'build', value->>'index', value->>'$.state.state', value->'state', value->'face',
           value->'labels', value->>'losses', value->>'retries', nullif(value->'ending', 'null'),
           value->>'queued_at', value->>'attempt'
    FROM json_each($1) WHERE true
    ON CONFLICT (build, idx) DO UPDATE SET
        state = excluded.state, standing = excluded.standing, face = excluded.face,
        labels = excluded.labels, losses = excluded.losses, retries = excluded.retries,
        ending = excluded.ending, queued_at = excluded.queued_at, attempt = excluded.attempt
    WHERE jobs.state <> 'finished'";

const ATTEMPTS: &str = "
    INSERT INTO attempts (id, build, job, agent, agent_name, instance, state, events, outcome,
                          accepted_at, ended_at)
    SELECT value->>'id', value->>'build', value->>'job', value->>'agent', value->>'agent_name',
           value->>'instance', value->>'state', value->>'events', nullif(value->'outcome', 'null'),
           value->>'accepted_at', value->>'ended_at'
    FROM json_each($1) WHERE true
    ON CONFLICT (id) DO UPDATE SET
        instance = excluded.instance, state = excluded.state, events = excluded.events,
        outcome = excluded.outcome, ended_at = excluded.ended_at
    WHERE attempts.state IN ('accepted', 'running') AND attempts.agent = excluded.agent";

const STAGES: &str = "
    INSERT INTO stages (attempt, position, name, stage, command)
    SELECT value->>'attempt', value->>'position', value->>'$.stage.name', value->'stage',
           value->>'command'
    FROM json_each($1) WHERE true
    ON CONFLICT (attempt, position) DO UPDATE SET stage = excluded.stage, command = excluded.command";

const EVENTS: &str = "
    INSERT INTO events (build, seq, event)
    SELECT value->>'build', value->>'seq', value FROM json_each($1)";

const AGENTS: &str = "
    INSERT INTO agents (id, name, instance, version, slots, labels, connected_at)
    SELECT value->>'id', value->>'name', value->>'instance', value->>'version', value->>'slots',
           value->'labels', value->>'connected_at'
    FROM json_each($1) WHERE true
    ON CONFLICT (id) DO UPDATE SET
        name = excluded.name, instance = excluded.instance, version = excluded.version,
        slots = excluded.slots, labels = excluded.labels, connected_at = excluded.connected_at";

const DRAINS: &str = "
    UPDATE agents SET drained_by = new.value->>1
    FROM json_each($1) AS new WHERE agents.id = new.value->>0";

const REMOVED_AGENTS: &str = "DELETE FROM agents WHERE id IN (SELECT value FROM json_each($1))";

const TIMETABLES: &str = "
    INSERT INTO timetables (repository, timetable)
    SELECT value->>'repository', value FROM json_each($1) WHERE true
    ON CONFLICT (repository) DO UPDATE SET timetable = excluded.timetable";

/// Commits a batch in one transaction.
pub(super) async fn commit(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), Error> {
    let Batch { new_builds, builds, jobs, attempts, stages, events, agents, orders, timetables } = batch;
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    put(&mut tx, "builds", NEW_BUILDS, new_builds).await?;
    put(&mut tx, "idempotency", KEYS, new_builds).await?;
    put(&mut tx, "builds", BUILDS, builds.values()).await?;
    put(&mut tx, "jobs", JOBS, jobs.values()).await?;
    put(&mut tx, "attempts", ATTEMPTS, attempts.values()).await?;
    put(&mut tx, "stages", STAGES, stages.values()).await?;
    put(&mut tx, "events", EVENTS, events).await?;
    put(&mut tx, "agents", AGENTS, agents.values()).await?;
    put_orders(&mut tx, orders).await?;
    put(&mut tx, "timetables", TIMETABLES, timetables.values()).await?;
    tx.commit().await?;
    Ok(())
}

/// What operators want of agents. An agent that was forgotten meanwhile is no error.
async fn put_orders(
    connection: &mut SqliteConnection,
    orders: &BTreeMap<AgentId, AgentOrder>,
) -> Result<(), Error> {
    let mut removed = Vec::new();
    let mut drains: Vec<(&str, Option<&str>)> = Vec::new();
    for (id, order) in orders {
        match order {
            AgentOrder::Remove => removed.push(id.as_str()),
            AgentOrder::Resume => drains.push((id.as_str(), None)),
            AgentOrder::Drain { by } => drains.push((id.as_str(), Some(by))),
        }
    }
    let text = |error: serde_json::Error| Error::Row(error.to_string());
    if !drains.is_empty() {
        let json = serde_json::to_string(&drains).map_err(text)?;
        sqlx::query(DRAINS).bind(json).execute(&mut *connection).await?;
    }
    if !removed.is_empty() {
        let json = serde_json::to_string(&removed).map_err(text)?;
        sqlx::query(REMOVED_AGENTS).bind(json).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Writes the rows of one table; all of them, or it is an error.
async fn put<T: Serialize>(
    connection: &mut SqliteConnection,
    table: &'static str,
    sql: &'static str,
    rows: impl IntoIterator<Item = T>,
) -> Result<(), Error> {
    let rows: Vec<T> = rows.into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_string(&rows).map_err(|error| Error::Row(error.to_string()))?;
    let wanted = rows.len() as u64;
    let changed = sqlx::query(sql).bind(json).execute(connection).await?.rows_affected();
    if changed == wanted { Ok(()) } else { Err(Error::Stale { table, changed, wanted }) }
}
