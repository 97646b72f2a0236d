//! The farm's state machine: what is queued, who runs what, what becomes of it.
//!
//! Pure: [`State::step`] takes one input and a time and gives effects. No I/O, no clock, no
//! randomness: ids and times come in with the input. Whoever calls it commits the effects'
//! [`Batch`](record::Batch) before it lets anybody see the reply or the signals.
//!
//! Only what is not finished is in memory. Offers are not even recorded: an offer that is forgotten
//! is void, because nothing runs before its acceptance is committed.
//!
//! # Layout
//! - [`record`]: what is written to the store
//! - [`input`]: what comes in and what goes out
//! - [`build`]: builds, jobs and attempts, with their diagrams
//! - [`queue`]: who is next; `groups`: who must not run beside whom; [`explain`]: why somebody waits
//! - [`ending`]: jobs that are to end before their time; `verdict`: what becomes of a build
//! - [`cron`]: builds at set times
//! - [`census`]: how much there is of what
//! - `agents`, `operators`, `attempts`, `clients`, `dispatch`, `lifecycle`, `tick`: one kind of input each

mod agents;
mod attempts;
pub mod build;
pub mod census;
mod clients;
pub mod cron;
mod dispatch;
pub mod ending;
pub mod explain;
mod groups;
pub mod input;
mod lifecycle;
#[cfg(test)]
mod model;
mod operators;
pub mod queue;
pub mod record;
#[cfg(test)]
pub(crate) mod tests;
mod tick;
mod verdict;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use buildr_proto::{AgentId, AttemptId, BuildId, JobId};
use jiff::Timestamp;

use self::{
    agents::Agent,
    build::{Attempt, Build, Job, JobState, Phase},
    cron::{Clockwork, Timetable},
    groups::Groups,
    input::{Effects, Input, Refusal, Reply},
    queue::Queue,
};

/// The times that the state machine keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// An offer that nobody accepted is void after this.
    pub offer: Duration,
    /// An agent that was silent for this long gets no new work.
    pub unreachable: Duration,
    /// An agent that was silent for this long, and [`Limits::grace`] more, has lost its attempts.
    pub lease: Duration,
    /// The same, where the manifest lets the job be given to another agent after that.
    pub short_lease: Duration,
    /// An agent that has to end such a job by itself does it this long before the short lease ends.
    pub fence_margin: Duration,
    /// What is added to a lease before it counts as run out.
    pub grace: Duration,
    /// How long a job may wait in the queue.
    pub queue: Duration,
    /// How long an agent that did not take an offer gets no other.
    pub pause: Duration,
    /// How many jobs may wait in the queue.
    pub max_queued: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            offer: Duration::from_secs(10),
            unreachable: Duration::from_secs(15),
            lease: Duration::from_secs(600),
            short_lease: Duration::from_secs(60),
            fence_margin: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            queue: Duration::from_secs(24 * 3600),
            pause: Duration::from_secs(5),
            max_queued: 200_000,
        }
    }
}

/// All that is not finished.
#[derive(Debug)]
pub struct State {
    limits: Limits,
    next_build: u64,
    builds: BTreeMap<BuildId, Build>,
    /// The keys of `builds`, so that two submits with one key in one batch give one build.
    keys: HashMap<String, BuildId>,
    /// Current attempts, offered ones too.
    attempts: HashMap<AttemptId, JobId>,
    /// When an offer is void.
    offers: BTreeMap<AttemptId, Timestamp>,
    /// Offers that a cancel made void, whose acceptance is answered with that until then.
    canceled_offers: BTreeMap<AttemptId, (AgentId, Timestamp)>,
    /// Agents that are connected or hold an attempt.
    agents: BTreeMap<AgentId, Agent>,
    /// Agents that get no new work, and who wants that.
    drained: BTreeMap<AgentId, String>,
    queue: Queue,
    groups: Groups,
    clockwork: Clockwork,
}

impl State {
    /// A state with nothing in it, that gives its first build the number `next_build`.
    pub fn new(limits: Limits, next_build: u64) -> Self {
        Self {
            limits,
            next_build,
            builds: BTreeMap::new(),
            keys: HashMap::new(),
            attempts: HashMap::new(),
            offers: BTreeMap::new(),
            canceled_offers: BTreeMap::new(),
            agents: BTreeMap::new(),
            drained: BTreeMap::new(),
            queue: Queue::default(),
            groups: Groups::default(),
            clockwork: Clockwork::default(),
        }
    }

    /// Takes in a build that was loaded from the store. Leases start anew.
    pub fn restore(&mut self, key: String, build: Build, now: Timestamp) {
        let number = build.row.number;
        for job in &build.jobs {
            let id = JobId { build: number, index: job.index };
            if !matches!(job.state, JobState::Finished(_)) {
                self.groups.join(&build, job);
            }
            match &job.state {
                JobState::Queued { since } => self.queue.insert(queue::Entry::of(&build, job, *since)),
                JobState::Held(attempt) => {
                    self.attempts.insert(attempt.id, id);
                    self.groups.hold(&build, job);
                    self.agents
                        .entry(attempt.agent.clone())
                        .or_insert_with(|| Agent::unseen(attempt, now))
                        .attempts
                        .insert(attempt.id);
                }
                JobState::Finished(_) => {}
            }
        }
        self.keys.insert(key, number);
        self.builds.insert(number, build);
    }

    /// Takes in what operators want of agents, and the schedules, as they were stored.
    pub fn restore_farm(&mut self, drained: BTreeMap<AgentId, String>, timetables: Vec<Timetable>) {
        self.drained = drained;
        timetables.into_iter().for_each(|timetable| self.clockwork.set(timetable));
    }

    /// Takes one input. The state is changed at once: a caller that cannot commit the effects must
    /// throw the state away and load it again.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Effects {
        let mut out = Effects::default();
        out.reply = match input {
            Input::Submit(submit) => self.submit(submit, now, &mut out),
            Input::Cancel { build, by } => self.cancel(build, by, now, &mut out),
            Input::Hello(hello) => self.hello(hello, now, &mut out),
            Input::Heartbeat(beat) => self.heartbeat(beat, now, &mut out),
            Input::Gone { agent, session } => Ok(self.gone(&agent, session, now, &mut out)),
            Input::Decline { claim, reason } => self.decline(&claim, &reason, now, &mut out),
            Input::Accept(claim) => self.accept(&claim, now, &mut out),
            Input::Plan { claim, plan } => self.plan(&claim, plan, now, &mut out),
            Input::Report(report) => self.report(report, now, &mut out),
            Input::Explain(build) => self.explain(build, now),
            Input::Agents => Ok(Reply::Agents(self.live_agents(now))),
            Input::Upcoming => Ok(Reply::Upcoming(self.clockwork.upcoming().cloned().collect())),
            Input::Order { agent, order } => self.order(&agent, order, now, &mut out),
            Input::Dispatch { ids } => Ok(self.dispatch(ids, now, &mut out)),
            Input::Tick => Ok(self.tick(now, &mut out)),
        };
        out
    }

    /// The build that an idempotency key of an active build stands for.
    pub fn build_of_key(&self, key: &str) -> Option<BuildId> {
        self.keys.get(key).copied()
    }

    /// All attempts that were accepted and are current, with their jobs.
    pub fn accepted_jobs(&self) -> impl Iterator<Item = (JobId, &Attempt)> {
        self.builds.iter().flat_map(|(number, build)| {
            build.jobs.iter().filter_map(|job| match &job.state {
                JobState::Held(attempt) if !matches!(attempt.phase, Phase::Offered) => {
                    Some((JobId { build: *number, index: job.index }, &**attempt))
                }
                _ => None,
            })
        })
    }

    fn job_mut(&mut self, id: JobId) -> Option<(&mut Build, usize)> {
        let index = (id.index as usize).checked_sub(1)?;
        let build = self.builds.get_mut(&id.build)?;
        (index < build.jobs.len()).then_some((build, index))
    }

    fn job(&self, id: JobId) -> Option<(&Build, &Job)> {
        find(&self.builds, id)
    }

    fn attempt(&self, id: AttemptId) -> Option<(JobId, &Attempt)> {
        let job_id = *self.attempts.get(&id)?;
        match &self.job(job_id)?.1.state {
            JobState::Held(attempt) => Some((job_id, attempt)),
            _ => None,
        }
    }
}

/// A job and its build. Not a method: other parts of the state can be changed meanwhile.
fn find(builds: &BTreeMap<BuildId, Build>, id: JobId) -> Option<(&Build, &Job)> {
    let build = builds.get(&id.build)?;
    Some((build, build.jobs.get((id.index as usize).checked_sub(1)?)?))
}

/// What a step answers.
type Answer = Result<Reply, Refusal>;
