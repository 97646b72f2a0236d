//! What happens because time passes: offers, leases and the queue's limit run out.

use std::time::Duration;

use buildr_manifest::Outcome;
use buildr_proto::{AgentId, JobId};
use jiff::Timestamp;

use super::{
    State,
    agents::Pause,
    input::{Effects, Reply},
};

impl State {
    pub(super) fn tick(&mut self, now: Timestamp, out: &mut Effects) -> Reply {
        self.void_offers(now, out);
        self.end_leases(now, out);
        for job in self.queue.older_than(now - self.limits.queue) {
            let limit = self.limits.queue;
            self.end_job(job, Outcome::Expired { limit }, now, out);
        }
        self.start_due(now, out);
        self.canceled_offers.retain(|_, (_, until)| now < *until);
        Reply::Done
    }

    fn void_offers(&mut self, now: Timestamp, out: &mut Effects) {
        let due: Vec<_> = self.offers.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some((job, attempt)) = self.attempt(id) else { continue };
            let agent = attempt.agent.clone();
            if let Some(agent) = self.agents.get_mut(&agent) {
                let why = "it did not answer the last offer".to_owned();
                agent.pause = Some(Pause { until: now + self.limits.pause, why });
            }
            self.withdraw(job, now, out);
        }
    }

    fn end_leases(&mut self, now: Timestamp, out: &mut Effects) {
        let silent: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(_, agent)| !agent.attempts.is_empty() && agent.heard + self.limits.unreachable <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for agent in silent {
            self.note_silence(&agent, now, out);
            let Some(heard) = self.agents.get(&agent).map(|agent| agent.heard) else { continue };
            for id in self.attempts_of(&agent) {
                let Some((job, attempt)) = self.attempt(id) else { continue };
                let silence = self.lease_of(job) + self.limits.grace;
                if heard + silence <= now {
                    let reason = format!("agent {} was not heard of for {silence:?}", attempt.agent_name);
                    self.lose(job, &reason, now, out);
                }
            }
        }
    }

    /// How long the agent of a job may be silent: less where the job can be given to another one.
    pub(super) fn lease_of(&self, id: JobId) -> Duration {
        let short = self.job(id).is_some_and(|(build, job)| build.survives_loss(job));
        if short { self.limits.short_lease } else { self.limits.lease }
    }
}
