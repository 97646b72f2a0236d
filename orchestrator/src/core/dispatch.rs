//! Who gets what: offers are made only for slots that are free now.

use std::collections::BTreeSet;

use buildr_proto::{AgentId, AttemptId, JobId};
use jiff::Timestamp;

use super::{
    State,
    attempts::has_all,
    build::{Attempt, JobState, Phase},
    input::{Effects, Offer, Reply, Signal},
    queue::{Entry, Labels},
};

impl State {
    pub(super) fn dispatch(&mut self, ids: Vec<AttemptId>, now: Timestamp, out: &mut Effects) -> Reply {
        let mut made = 0;
        if self.queue.is_empty() {
            return Reply::Dispatched(made);
        }
        let mut free = self.free_agents(now);
        // Slots only get fewer in here: labels that nobody fits now fit nobody later.
        let mut hopeless: BTreeSet<Labels> = BTreeSet::new();
        for id in ids {
            if free.is_empty() {
                break;
            }
            let agents = &self.agents;
            let next = self.queue.next(|wanted| {
                if hopeless.contains(wanted) {
                    return None;
                }
                let fits = |(agent, _): &&(AgentId, usize)| {
                    agents.get(agent).is_some_and(|agent| has_all(&agent.labels, wanted))
                };
                let best = free.iter().filter(fits).max_by_key(|(_, slots)| *slots);
                if best.is_none() {
                    hopeless.insert(wanted.clone());
                }
                best.map(|(agent, _)| agent.clone())
            });
            let Some((job, agent)) = next else { break };
            if let Some(entry) = free.iter_mut().find(|(id, _)| *id == agent) {
                entry.1 -= 1;
            }
            free.retain(|(_, slots)| *slots > 0);
            self.offer(id, job, &agent, now, out);
            made += 1;
        }
        Reply::Dispatched(made)
    }

    /// The agents that can be asked now, with how many jobs each.
    fn free_agents(&self, now: Timestamp) -> Vec<(AgentId, usize)> {
        let limits = &self.limits;
        self.agents
            .iter()
            .filter(|(_, agent)| {
                agent.session().is_some()
                    && !agent.draining
                    && now < agent.heard + limits.unreachable
                    && now >= agent.paused_until
                    && agent.free() > 0
            })
            .map(|(id, agent)| (id.clone(), agent.free()))
            .collect()
    }

    fn offer(&mut self, id: AttemptId, job_id: JobId, agent_id: &AgentId, now: Timestamp, out: &mut Effects) {
        let limits = self.limits;
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(session) = agent.session() else { return };
        let (name, instance) = (agent.name.clone(), agent.instance);
        agent.attempts.insert(id);
        let Some((build, place)) = self.job_mut(job_id) else { return };
        let JobState::Queued { since } = build.jobs[place].state else { return };
        let entry = Entry::of(build, &build.jobs[place], since);
        build.jobs[place].state = JobState::Held(Box::new(Attempt {
            id,
            agent: agent_id.clone(),
            agent_name: name,
            instance,
            phase: Phase::Offered,
        }));
        let mut spec = build.spec.clone();
        spec.source.commit.clone_from(&build.row.commit);
        self.queue.remove(&entry);
        self.attempts.insert(id, job_id);
        self.offers.insert(id, now + limits.offer);
        let offer = Offer { attempt: id, job: job_id, spec, valid_for: limits.offer, lease: limits.lease };
        out.signals.push(Signal::Offer(session, Box::new(offer)));
    }
}
