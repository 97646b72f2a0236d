//! Builds, jobs and attempts as they are in memory while they are not finished.

use std::collections::BTreeMap;

use buildr_manifest::{Event, EventKind, Outcome, StageName, StageState, Usage};
use buildr_proto::{
    AgentId, AttemptId, InstanceId,
    build::{BuildSpec, BuildState, Stage, StageProgress},
    limits::MAX_STAGES,
    plan::Face,
};
use jiff::Timestamp;

use super::{
    ending::Ending,
    input::LogVerdict,
    record::{AttemptRow, AttemptState, BuildRow, JobRow, StageRow},
    verdict,
};

/// The longest command that is kept to be shown again when its step fails.
const MAX_COMMAND: usize = 4 << 10;

/// A build that has no outcome yet.
///
/// ```text
/// queued ──first acceptance──▶ running ──all jobs finished──▶ finished(outcome)
///    └──────────cancel, expiry, loss───────────────────────────────▲
/// ```
#[derive(Clone, Debug)]
pub struct Build {
    /// What was asked for.
    pub spec: BuildSpec,
    /// What is stored of it; its state is always derived from the jobs.
    pub row: BuildRow,
    /// Its idempotency key.
    pub key: String,
    /// The jobs; their index is the place here plus one.
    pub jobs: Vec<Job>,
}

/// A job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its index in the build, from 1.
    pub index: u32,
    /// What the plan says of it; nothing before there is one.
    pub face: Face,
    /// The labels that its agent must have.
    pub labels: BTreeMap<String, String>,
    /// How many attempts were lost.
    pub losses: u32,
    /// How many extra tries it had, because the manifest asks for them.
    pub retries: u32,
    /// Why it is to end before its time, a cancel of the build left aside.
    pub ending: Option<Ending>,
    /// When it was queued, for the last time.
    pub queued_at: Timestamp,
    /// The current or last accepted attempt.
    pub last_attempt: Option<AttemptId>,
    /// Where it stands.
    pub state: JobState,
}

/// Where a job stands.
///
/// ```text
/// queued ──offer──▶ held ──final report──▶ finished(outcome)
///    ▲                │  └──lost after a stage began──▶ finished(agent_lost)
///    └──void, lost, handed back, retry of the manifest────┘
/// queued ──cancel, superseded, a sibling that failed fast, queue limit──▶ finished(...)
/// ```
#[derive(Clone, Debug)]
pub enum JobState {
    /// It waits for a slot.
    Queued {
        /// Since when.
        since: Timestamp,
    },
    /// An agent has it, or an offer for it.
    Held(Box<Attempt>),
    /// It has its outcome.
    Finished(Outcome),
}

/// An attempt that is current.
///
/// ```text
/// offered ──accept──▶ accepted ──first stage──▶ running ──final report──▶ finished
///    │                   ├─────────final report─────────────────────────────▲
///    │                   ├──hand back──▶ void (job queued again)
///    │                   └──lost──▶ lost (job queued again)    running ──lost──▶ lost (agent_lost)
///    └──10 s, decline, agent gone, cancel──▶ void (job queued again, or canceled)
/// ```
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Whose it is, for life.
    pub agent: AgentId,
    /// The agent's name.
    pub agent_name: String,
    /// The agent's process whose it is now.
    pub instance: InstanceId,
    /// How far it is.
    pub phase: Phase,
}

/// How far a current attempt is.
#[derive(Clone, Debug)]
pub enum Phase {
    /// The agent was asked.
    Offered,
    /// The agent has it, and no stage has begun.
    Accepted(Progress),
    /// A stage has begun.
    Running(Progress),
}

/// What an agent has reported of an attempt.
#[derive(Clone, Debug)]
pub struct Progress {
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// How many events were reported.
    pub events: u64,
    /// How the job ended on the agent.
    pub outcome: Option<Outcome>,
    /// The stages, in order.
    pub stages: Vec<StageRow>,
    /// In how many heartbeats in a row the agent did not name it.
    pub unnamed: u32,
    /// How many containers were removed at the job's end; not kept over a restart.
    pub removed: Option<u32>,
}

impl Build {
    /// Where it stands, from its jobs.
    pub fn state(&self) -> BuildState {
        if let Some(outcome) = verdict::of_build(self) {
            BuildState::Finished(outcome)
        } else if self.row.started_at.is_some() {
            BuildState::Running
        } else {
            BuildState::Queued
        }
    }

    /// How many of its jobs an agent has, or an offer for.
    pub fn held(&self) -> usize {
        self.jobs.iter().filter(|job| matches!(job.state, JobState::Held(_))).count()
    }

    /// True where a job is tried again after the loss of its agent, though a stage had begun.
    pub fn survives_loss(&self, job: &Job) -> bool {
        let retry = self.row.terms.as_ref().and_then(|terms| terms.retry.as_ref());
        let lost = Outcome::AgentLost { agent: String::new() };
        retry.is_some_and(|retry| retry.wants_another(&lost, job.retries))
    }

    /// The row of one of its jobs.
    pub fn job_row(&self, place: usize) -> JobRow {
        let Job { index, face, labels, losses, retries, ending, queued_at, last_attempt, state } =
            &self.jobs[place];
        let state = match state {
            JobState::Finished(outcome) => BuildState::Finished(outcome.clone()),
            JobState::Held(attempt) if attempt.progress().is_some() => BuildState::Running,
            _ => BuildState::Queued,
        };
        JobRow {
            build: self.row.number,
            index: *index,
            state,
            face: face.clone(),
            labels: labels.clone(),
            losses: *losses,
            retries: *retries,
            ending: ending.clone(),
            queued_at: *queued_at,
            attempt: *last_attempt,
        }
    }
}

impl Job {
    /// One that waits from now on.
    pub fn new(index: u32, labels: BTreeMap<String, String>, now: Timestamp) -> Self {
        Self {
            index,
            face: Face::default(),
            labels,
            losses: 0,
            retries: 0,
            ending: None,
            queued_at: now,
            last_attempt: None,
            state: JobState::Queued { since: now },
        }
    }
}

impl Attempt {
    /// What was reported; none for an offer.
    pub fn progress(&self) -> Option<&Progress> {
        match &self.phase {
            Phase::Offered => None,
            Phase::Accepted(progress) | Phase::Running(progress) => Some(progress),
        }
    }

    /// As [`Attempt::progress`], to change it.
    pub fn progress_mut(&mut self) -> Option<&mut Progress> {
        match &mut self.phase {
            Phase::Offered => None,
            Phase::Accepted(progress) | Phase::Running(progress) => Some(progress),
        }
    }

    /// Its row; none for an offer, which is not recorded.
    pub fn row(&self, build: &BuildRow, job: u32) -> Option<AttemptRow> {
        let (progress, state) = match &self.phase {
            Phase::Offered => return None,
            Phase::Accepted(progress) => (progress, AttemptState::Accepted),
            Phase::Running(progress) => (progress, AttemptState::Running),
        };
        Some(AttemptRow {
            id: self.id,
            build: build.number,
            job,
            agent: self.agent.clone(),
            agent_name: self.agent_name.clone(),
            instance: self.instance,
            state,
            events: progress.events,
            outcome: progress.outcome.clone(),
            accepted_at: progress.accepted_at,
            ended_at: None,
        })
    }
}

impl Progress {
    /// That of an attempt that was accepted just now.
    pub fn new(accepted_at: Timestamp) -> Self {
        Self { accepted_at, events: 0, outcome: None, stages: Vec::new(), unnamed: 0, removed: None }
    }

    /// Takes in one event and gives the places of the stages that it changed.
    pub fn apply(&mut self, id: AttemptId, event: &Event) -> Vec<usize> {
        match &event.kind {
            EventKind::Planned { stages, .. } => {
                stages.iter().filter_map(|name| self.stage(id, name)).collect()
            }
            EventKind::StageStarted { stage } => {
                self.change(id, stage, |row| row.stage.progress = StageProgress::Running)
            }
            EventKind::StepStarted { stage, command, .. } => self.change(id, stage, |row| {
                let end = command.floor_char_boundary(MAX_COMMAND);
                row.command = Some(command[..end].to_owned());
            }),
            EventKind::StageFinished { stage, state, allowed, log_bytes, duration, usage } => {
                self.change(id, stage, |row| {
                    row.stage.progress = StageProgress::Finished(state.clone());
                    row.stage.duration = *duration;
                    row.stage.usage = *usage;
                    row.stage.allowed = *allowed;
                    row.stage.log_bytes = bounded(*log_bytes);
                    let ended_badly =
                        matches!(state, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut);
                    row.stage.failed_command = row.command.clone().filter(|_| ended_badly);
                })
            }
            EventKind::JobFinished { outcome, containers_removed, .. } => {
                self.outcome = Some(outcome.clone());
                self.removed = Some(*containers_removed);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Takes in what was found of a log.
    pub fn apply_verdict(&mut self, id: AttemptId, verdict: &LogVerdict) -> Vec<usize> {
        let Some(stage) = verdict.log.stage() else { return Vec::new() };
        self.change(id, stage, |row| {
            row.stage.log_bytes = bounded(verdict.stored);
            row.stage.log_missing = bounded(verdict.missing);
        })
    }

    /// Ends the stages that have no end, and gives their places.
    pub fn give_up(&mut self) -> Vec<usize> {
        let open = |row: &StageRow| !matches!(row.stage.progress, StageProgress::Finished(_));
        let places: Vec<usize> = (0..self.stages.len()).filter(|place| open(&self.stages[*place])).collect();
        for place in &places {
            let state = StageState::NotReached { because: None };
            self.stages[*place].stage.progress = StageProgress::Finished(state);
        }
        places
    }

    /// True where a stage ran to its end and passed, or failed as it may.
    pub fn has_passed_stage(&self) -> bool {
        let passed = |stage: &Stage| match &stage.progress {
            StageProgress::Finished(StageState::Passed) => true,
            StageProgress::Finished(state) => stage.allowed && ran(state),
            _ => false,
        };
        self.stages.iter().any(|row| passed(&row.stage))
    }

    fn change(&mut self, id: AttemptId, name: &StageName, change: impl FnOnce(&mut StageRow)) -> Vec<usize> {
        let Some(place) = self.stage(id, name) else { return Vec::new() };
        change(&mut self.stages[place]);
        vec![place]
    }

    /// The place of a stage, which is made where there is none; none where there are too many.
    fn stage(&mut self, attempt: AttemptId, name: &StageName) -> Option<usize> {
        if let Some(place) = self.stages.iter().position(|row| row.stage.name == *name) {
            return Some(place);
        }
        let place = self.stages.len();
        if place >= MAX_STAGES {
            return None;
        }
        let stage = Stage {
            name: name.clone(),
            progress: StageProgress::Waiting,
            duration: std::time::Duration::ZERO,
            log_bytes: 0,
            log_missing: 0,
            failed_command: None,
            usage: Usage::default(),
            allowed: false,
        };
        self.stages.push(StageRow { attempt, position: place as u32, stage, command: None });
        Some(place)
    }
}

/// A stage that began.
fn ran(state: &StageState) -> bool {
    !matches!(state, StageState::Skipped { .. } | StageState::NotReached { .. })
}

/// A number of bytes that a store can hold as a signed one.
fn bounded(bytes: u64) -> u64 {
    bytes.min(i64::MAX as u64)
}
