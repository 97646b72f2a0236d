//! The agents of the farm: who there is, and what operators want of them.

use buildr_proto::{
    convert::{Message, timestamp_to_pb},
    limits::MAX_NAME,
    pb,
};

use super::builds::UNKNOWN;
use crate::{
    core::{input::LiveAgent, record::AgentOrder},
    error::Error,
    hub::Hub,
    store::StoredAgent,
};

/// All agents, by name.
pub(super) async fn agents(hub: &Hub) -> Result<Vec<pb::Agent>, Error> {
    let live = hub.agents().await?;
    let stored = hub.store().agents().await?;
    Ok(stored
        .into_iter()
        .map(|agent| {
            let live = live.iter().find(|live| live.id == agent.row.id);
            to_pb(agent, live)
        })
        .collect())
}

/// Drains an agent or gives it work again, and gives it as it stands then.
pub(super) async fn drain(hub: &Hub, request: pb::DrainAgentRequest) -> Result<pb::Agent, Error> {
    let pb::DrainAgentRequest { agent, by, resume } = request;
    let by = Message("DrainAgentRequest").field("by").optional_line(by, MAX_NAME)?;
    let by = by.unwrap_or_else(|| UNKNOWN.to_owned());
    let order = if resume { AgentOrder::Resume } else { AgentOrder::Drain { by } };
    let found = find(hub, &agent).await?;
    hub.order(found.row.id.clone(), order).await?;
    let now = agents(hub).await?.into_iter().find(|agent| agent.id == found.row.id.as_str());
    now.ok_or_else(|| not_there(&agent))
}

/// Forgets an agent, and gives it as it was.
pub(super) async fn remove(hub: &Hub, agent: &str) -> Result<pb::Agent, Error> {
    let found = find(hub, agent).await?;
    let live = hub.agents().await?;
    let live = live.iter().find(|live| live.id == found.row.id);
    hub.order(found.row.id.clone(), AgentOrder::Remove).await?;
    Ok(to_pb(found, live))
}

/// The agent with this name, this id, or the only one whose id begins so.
async fn find(hub: &Hub, wanted: &str) -> Result<StoredAgent, Error> {
    let field = Message("Agent").field("agent");
    if wanted.is_empty() {
        return Err(field.missing().into());
    }
    let all = hub.store().agents().await?;
    let by = |fits: &dyn Fn(&StoredAgent) -> bool| -> Vec<StoredAgent> {
        all.iter().filter(|agent| fits(agent)).cloned().collect()
    };
    let mut found = by(&|agent| agent.row.name == wanted || agent.row.id.as_str() == wanted);
    if found.is_empty() {
        found = by(&|agent| agent.row.id.as_str().starts_with(wanted));
    }
    match found.len() {
        0 => Err(not_there(wanted)),
        1 => Ok(found.remove(0)),
        many => {
            let ids: Vec<&str> = found.iter().map(|agent| agent.row.id.as_str()).collect();
            let why =
                format!("{many} agents are meant by `{wanted}`: name one by its id: {}", ids.join(", "));
            Err(field.wrong(why).into())
        }
    }
}

fn not_there(agent: &str) -> Error {
    Error::NotFound(format!("agent `{agent}`"))
}

fn to_pb(agent: StoredAgent, live: Option<&LiveAgent>) -> pb::Agent {
    let StoredAgent { row, drained_by } = agent;
    let connected = live.is_some_and(|live| live.connected);
    let silent = live.filter(|live| live.silent || !live.connected);
    pb::Agent {
        id: row.id.to_string(),
        name: row.name,
        version: row.version,
        slots: row.slots,
        labels: row.labels.into_iter().collect(),
        connected,
        connected_at: Some(timestamp_to_pb(row.connected_at)),
        silent_since: silent.map(|live| timestamp_to_pb(live.heard)),
        leaving: live.is_some_and(|live| live.leaving),
        drained_by: drained_by.unwrap_or_default(),
        attempts: live.map(attempts).unwrap_or_default(),
    }
}

fn attempts(live: &LiveAgent) -> Vec<pb::AgentAttempt> {
    let attempts = live.attempts.iter().map(|(job, attempt)| pb::AgentAttempt {
        build: job.build.get(),
        job: job.index,
        attempt: attempt.to_string(),
    });
    attempts.collect()
}
