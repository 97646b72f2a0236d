//! Why a job waits, from the scheduler's own rules: the ones by which [`super::dispatch`] passes it
//! over, asked for one job.

use buildr_proto::{BuildId, JobId};
use jiff::Timestamp;

use super::{
    Answer, State,
    attempts::has_all,
    build::{Build, Job, JobState, Phase},
    dispatch::held_back,
    input::{Refusal, Reply},
    queue::Entry,
};

/// Why an agent gets no offer now, whatever the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has no connection.
    Away,
    /// It leaves by itself.
    Leaving,
    /// An operator wants it to get nothing new.
    Drained {
        /// Who.
        by: String,
    },
    /// It is not heard of.
    Silent {
        /// Since when.
        since: Timestamp,
    },
    /// It did not take its last offer.
    Paused {
        /// Why.
        why: String,
    },
    /// All of its slots are in use.
    Busy {
        /// How many it has.
        slots: u32,
    },
}

/// What keeps a job from going, whatever agents there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldBack {
    /// Another job of its concurrency group is with an agent.
    Group {
        /// The group.
        group: String,
        /// The other job.
        holder: JobId,
    },
    /// As many jobs of its build as may are with agents.
    MaxParallel {
        /// How many that is.
        most: u32,
    },
}

/// One thing that a job waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Whatever agents there are.
    HeldBack(HeldBack),
    /// No agent is connected.
    NoAgents,
    /// No connected agent has all labels.
    NoSuchAgent {
        /// Those that no connected agent has at all.
        missing: Vec<(String, String)>,
        /// All that are asked for.
        wanted: Vec<(String, String)>,
    },
    /// An agent that fits can take nothing now.
    Agent {
        /// Its name.
        name: String,
        /// Why.
        why: Unfit,
    },
}

/// Why a job that has no outcome stands where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The job.
    pub job: JobId,
    /// Its name; none before the plan.
    pub name: String,
    /// Where it stands.
    pub standing: Standing,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// In the queue.
    Waiting {
        /// What keeps it there. None: it goes next.
        obstacles: Vec<Obstacle>,
        /// How many jobs have their turn before it, if all can go alike.
        ahead: usize,
        /// Since when it waits.
        since: Timestamp,
    },
    /// An agent was asked.
    Offered {
        /// The agent's name.
        agent: String,
    },
    /// An agent has it.
    Running {
        /// The agent's name.
        agent: String,
        /// Since when it is not heard of.
        silent_since: Option<Timestamp>,
        /// On whose behalf it is to end.
        ending: Option<String>,
    },
}

impl State {
    /// Explains the jobs of a build that have no outcome.
    pub(super) fn explain(&self, number: BuildId, now: Timestamp) -> Answer {
        let build = self.builds.get(&number).ok_or(Refusal::NoSuchBuild(number))?;
        let jobs = build.jobs.iter().filter_map(|job| self.explain_job(build, job, now));
        Ok(Reply::Explained(jobs.collect()))
    }

    fn explain_job(&self, build: &Build, job: &Job, now: Timestamp) -> Option<Explanation> {
        let standing = match &job.state {
            JobState::Finished(_) => return None,
            JobState::Queued { since } => {
                let entry = Entry::of(build, job, *since);
                let ahead = self.queue.ahead_of(&entry);
                Standing::Waiting { obstacles: self.obstacles(&entry, now), ahead, since: *since }
            }
            JobState::Held(attempt) if matches!(attempt.phase, Phase::Offered) => {
                Standing::Offered { agent: attempt.agent_name.clone() }
            }
            JobState::Held(attempt) => {
                let heard = self.agents.get(&attempt.agent).map(|agent| agent.heard);
                let silent_since = heard.filter(|heard| now >= *heard + self.limits.unreachable);
                let ending = build.wanted_end(job).map(|wanted| wanted.by);
                Standing::Running { agent: attempt.agent_name.clone(), silent_since, ending }
            }
        };
        let id = JobId { build: build.row.number, index: job.index };
        Some(Explanation { job: id, name: job.face.name.clone(), standing })
    }

    fn obstacles(&self, entry: &Entry, now: Timestamp) -> Vec<Obstacle> {
        let class = &entry.class;
        if let Some(why) = held_back(&self.groups, &self.builds, &entry.repository, class) {
            return vec![Obstacle::HeldBack(why)];
        }
        let connected = || self.agents.iter().filter(|(_, agent)| agent.session().is_some());
        let wanted: Vec<(String, String)> =
            class.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let mut fitting = connected().filter(|(_, agent)| has_all(&agent.labels, &class.labels)).peekable();
        if connected().next().is_none() {
            return vec![Obstacle::NoAgents];
        }
        if fitting.peek().is_none() {
            let nobody_has = |(name, value): &&(String, String)| {
                connected().all(|(_, agent)| agent.labels.get(name) != Some(value))
            };
            let missing = wanted.iter().filter(nobody_has).cloned().collect();
            return vec![Obstacle::NoSuchAgent { missing, wanted }];
        }
        let mut obstacles = Vec::new();
        for (id, agent) in fitting {
            match self.unfit(id, agent, now) {
                Some(why) => obstacles.push(Obstacle::Agent { name: agent.name.clone(), why }),
                // One is free: only turns are in the way.
                None => return Vec::new(),
            }
        }
        obstacles
    }
}
