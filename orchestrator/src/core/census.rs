//! How much there is of what, for who watches the farm.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    State,
    agents::Agent,
    build::{JobState, Phase},
};

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Jobs that wait for a slot.
    pub queued: usize,
    /// How long the one that waits longest has waited.
    pub oldest: Duration,
    /// Offers that are not answered yet.
    pub offered: usize,
    /// Attempts of which no stage has begun.
    pub preparing: usize,
    /// Attempts of which a stage has begun.
    pub running: usize,
    /// Agents that have nothing to do.
    pub idle: usize,
    /// Agents that work and have a free slot.
    pub busy: usize,
    /// Agents whose slots are all taken.
    pub full: usize,
    /// Agents that take nothing new.
    pub draining: usize,
    /// Agents that are connected and silent.
    pub silent: usize,
    /// Agents that hold an attempt and are not connected.
    pub away: usize,
    /// Slots of connected agents.
    pub slots: usize,
    /// Those of them that are free.
    pub free_slots: usize,
}

impl State {
    /// Counts. Takes as long as there are agents and attempts; how many wait does not matter.
    pub fn census(&self, now: Timestamp) -> Census {
        let mut census = Census { queued: self.queue.len(), offered: self.offers.len(), ..Census::default() };
        if let Some(since) = self.queue.oldest() {
            census.oldest = now.duration_since(since).try_into().unwrap_or_default();
        }
        for job in self.attempts.values() {
            match self.job(*job).map(|(_, job)| &job.state) {
                Some(JobState::Held(attempt)) => match attempt.phase {
                    Phase::Offered => {}
                    Phase::Accepted(_) => census.preparing += 1,
                    Phase::Running(_) => census.running += 1,
                },
                _ => continue,
            }
        }
        for agent in self.agents.values() {
            let silent = now >= agent.heard + self.limits.unreachable;
            *census.place(agent, silent) += 1;
            if agent.session().is_some() {
                census.slots += agent.slots as usize;
                census.free_slots += agent.free();
            }
        }
        census
    }
}

impl Census {
    fn place(&mut self, agent: &Agent, silent: bool) -> &mut usize {
        match (agent.session(), agent.free()) {
            (None, _) => &mut self.away,
            (Some(_), _) if silent => &mut self.silent,
            (Some(_), _) if agent.draining => &mut self.draining,
            (Some(_), 0) => &mut self.full,
            (Some(_), free) if free == agent.slots as usize => &mut self.idle,
            (Some(_), _) => &mut self.busy,
        }
    }
}
