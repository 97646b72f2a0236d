//! What operators want of agents, and what they are told of them.

use buildr_proto::AgentId;
use jiff::Timestamp;

use super::{
    Answer, State,
    build::Phase,
    input::{Effects, LiveAgent, Refusal, Reply},
    record::AgentOrder,
};

impl State {
    /// Does what an operator wants of an agent. Doing it again changes nothing.
    pub(super) fn order(
        &mut self,
        id: &AgentId,
        order: AgentOrder,
        now: Timestamp,
        out: &mut Effects,
    ) -> Answer {
        match &order {
            AgentOrder::Resume => drop(self.drained.remove(id)),
            AgentOrder::Drain { by } => drop(self.drained.insert(id.clone(), by.clone())),
            AgentOrder::Remove => {
                if let Some(agent) = self.agents.get(id).filter(|agent| agent.session().is_some()) {
                    return Err(Refusal::Connected(agent.name.clone()));
                }
                for attempt in self.attempts_of(id) {
                    let Some((job, attempt)) = self.attempt(attempt) else { continue };
                    let reason = format!("agent {} was removed by an operator", attempt.agent_name);
                    self.lose(job, &reason, now, out);
                }
                self.agents.remove(id);
                self.drained.remove(id);
            }
        }
        out.writes.orders.insert(id.clone(), order);
        Ok(Reply::Done)
    }

    /// The agents that are connected or hold an attempt.
    pub(super) fn live_agents(&self, now: Timestamp) -> Vec<LiveAgent> {
        let live = |(id, agent): (&AgentId, &super::Agent)| LiveAgent {
            id: id.clone(),
            connected: agent.session().is_some(),
            leaving: agent.draining,
            heard: agent.heard,
            silent: now >= agent.heard + self.limits.unreachable,
            attempts: agent
                .attempts
                .iter()
                .filter_map(|attempt| self.attempt(*attempt))
                .filter(|(_, attempt)| !matches!(attempt.phase, Phase::Offered))
                .map(|(job, attempt)| (job, attempt.id))
                .collect(),
        };
        self.agents.iter().map(live).collect()
    }
}
