//! Who gets what: offers are made only for slots that are free now.

use std::collections::{BTreeMap, BTreeSet};

use buildr_proto::{AgentId, AttemptId, BuildId, JobId};
use jiff::Timestamp;

use super::{
    State,
    agents::Agent,
    attempts::has_all,
    build::{Attempt, Build, JobState, Phase},
    explain::{HeldBack, Unfit},
    groups::Groups,
    input::{Effects, Offer, Reply, Signal},
    queue::{Class, Entry, Labels, limit_of},
};

/// What keeps all jobs of a class from going, whatever agents there are.
pub(super) fn held_back(
    groups: &Groups,
    builds: &BTreeMap<BuildId, Build>,
    repository: &str,
    class: &Class,
) -> Option<HeldBack> {
    if let Some(group) = &class.group
        && let Some(holder) = groups.holder(repository, group)
    {
        return Some(HeldBack::Group { group: group.clone(), holder });
    }
    let build = builds.get(&class.limited?)?;
    let most = limit_of(build)?;
    (build.held() >= most as usize).then_some(HeldBack::MaxParallel { most })
}

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
            let Self { queue, agents, groups, builds, .. } = self;
            let next = queue.next(|repository, class| {
                if hopeless.contains(&class.labels) || held_back(groups, builds, repository, class).is_some()
                {
                    return None;
                }
                let fits = |(agent, _): &&(AgentId, usize)| {
                    agents.get(agent).is_some_and(|agent| has_all(&agent.labels, &class.labels))
                };
                let best = free.iter().filter(fits).max_by_key(|(_, slots)| *slots);
                if best.is_none() {
                    hopeless.insert(class.labels.clone());
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
        let fit = self.agents.iter().filter(|(id, agent)| self.unfit(id, agent, now).is_none());
        fit.map(|(id, agent)| (id.clone(), agent.free())).collect()
    }

    /// Why an agent gets no offer now, whatever the job.
    pub(super) fn unfit(&self, id: &AgentId, agent: &Agent, now: Timestamp) -> Option<Unfit> {
        let silent = now >= agent.heard + self.limits.unreachable;
        match &agent.pause {
            _ if agent.session().is_none() => Some(Unfit::Away),
            _ if agent.draining => Some(Unfit::Leaving),
            _ if self.drained.contains_key(id) => {
                Some(Unfit::Drained { by: self.drained.get(id).cloned().unwrap_or_default() })
            }
            _ if silent => Some(Unfit::Silent { since: agent.heard }),
            Some(pause) if now < pause.until => Some(Unfit::Paused { why: pause.why.clone() }),
            _ if agent.free() == 0 => Some(Unfit::Busy { slots: agent.slots }),
            _ => None,
        }
    }

    fn offer(&mut self, id: AttemptId, job_id: JobId, agent_id: &AgentId, now: Timestamp, out: &mut Effects) {
        let limits = self.limits;
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(session) = agent.session() else { return };
        let (name, instance) = (agent.name.clone(), agent.instance);
        agent.attempts.insert(id);
        let Some(build) = self.builds.get_mut(&job_id.build) else { return };
        let place = job_id.index as usize - 1;
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
        let axes = build.jobs[place].face.axes.clone();
        let planned = build.row.terms.is_some();
        self.groups.hold(build, &build.jobs[place]);
        self.queue.remove(&entry);
        self.attempts.insert(id, job_id);
        self.offers.insert(id, now + limits.offer);
        let (valid_for, lease) = (limits.offer, self.lease_of(job_id));
        let offer = Offer { attempt: id, job: job_id, spec, axes, planned, valid_for, lease };
        out.signals.push(Signal::Offer(session, Box::new(offer)));
    }
}
