//! What happens because time passes: offers, leases and the queue's limit run out.

use buildr_manifest::Outcome;
use buildr_proto::AgentId;
use jiff::Timestamp;

use super::{
    State,
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
        self.canceled_offers.retain(|_, (_, until)| now < *until);
        Reply::Done
    }

    fn void_offers(&mut self, now: Timestamp, out: &mut Effects) {
        let due: Vec<_> = self.offers.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for id in due {
            let Some((job, attempt)) = self.attempt(id) else { continue };
            let agent = attempt.agent.clone();
            if let Some(agent) = self.agents.get_mut(&agent) {
                agent.paused_until = now + self.limits.pause;
            }
            self.withdraw(job, now, out);
        }
    }

    fn end_leases(&mut self, now: Timestamp, out: &mut Effects) {
        let silence = self.limits.lease + self.limits.grace;
        let lost: Vec<AgentId> = self
            .agents
            .iter()
            .filter(|(_, agent)| !agent.attempts.is_empty() && agent.heard + silence <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for agent in lost {
            for id in self.attempts_of(&agent) {
                let Some((job, attempt)) = self.attempt(id) else { continue };
                let reason = format!("agent {} was not heard of for {silence:?}", attempt.agent_name);
                self.lose(job, &reason, now, out);
            }
        }
    }
}
