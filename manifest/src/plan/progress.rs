//! Whose turn it is: the meaning of the order while a job runs.
//!
//! Pure: whoever runs the stages says how each stands, and is told what to do next. Calling it again
//! after each change carries a job from its beginning to its end; without a stage that runs, and
//! without a turn, the job is over.

use super::{Decision, Job, Order, VarMap};
use crate::Status;

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How each stage stands; as many as the job has stages.
    pub phases: Vec<Phase>,
    /// The variables that stages have handed over so far.
    pub handed_over: VarMap,
    /// The job is being ended: canceled, or out of time. Only stages that run after a failure start.
    pub ending: bool,
}

/// How a stage stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has not had its turn.
    #[default]
    Waiting,
    /// It runs.
    Running,
    /// It passed, or failed as `allow_failure` allows.
    Passed,
    /// It failed, for good.
    Failed,
    /// Its own condition did not hold.
    Skipped,
    /// Something that it waits for failed.
    NotReached {
        /// The stage that failed; none where the job was ended.
        because: Option<usize>,
    },
}

/// What is to be done with a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Start it.
    Start,
    /// It is skipped.
    Skip {
        /// The condition and the actual value, in words.
        why: String,
    },
    /// It is not reached.
    NotReached {
        /// The stage that failed; none where the job was ended.
        because: Option<usize>,
    },
}

impl Progress {
    /// The beginning of a job.
    pub fn new(job: &Job) -> Self {
        Self { phases: vec![Phase::Waiting; job.stages.len()], ..Self::default() }
    }

    /// Each stage whose turn it is, with what is to be done.
    pub fn turns(&self, job: &Job, order: &Order) -> Vec<(usize, Turn)> {
        let waiting = (0..self.phases.len()).filter(|at| self.phases[*at] == Phase::Waiting);
        let ready = waiting.filter(|at| order.needs(*at).iter().all(|need| self.has_ended(*need)));
        ready.map(|at| (at, self.turn(job, order, at))).collect()
    }

    /// True once every stage has ended.
    pub fn is_over(&self) -> bool {
        (0..self.phases.len()).all(|at| self.has_ended(at))
    }

    fn has_ended(&self, stage: usize) -> bool {
        !matches!(self.phases[stage], Phase::Waiting | Phase::Running)
    }

    fn turn(&self, job: &Job, order: &Order, stage: usize) -> Turn {
        let status = match job.stages[stage].decide(&self.handed_over) {
            Decision::Run(status) => status,
            Decision::Skip { why } => return Turn::Skip { why },
        };
        match self.failure(order, stage) {
            Some(_) if status.failure => Turn::Start,
            Some(because) => Turn::NotReached { because },
            None if status.success => Turn::Start,
            None if self.has_failed_before(order, stage) => Turn::Start,
            None => {
                Turn::Skip { why: format!("`status` is `{}`, and nothing before it failed", Status::FAILURE) }
            }
        }
    }

    /// Whether something that a stage waits for failed, and what. Skipped stages are looked through.
    fn failure(&self, order: &Order, stage: usize) -> Option<Option<usize>> {
        if self.ending {
            return Some(None);
        }
        let mut seen = vec![false; self.phases.len()];
        let mut open: Vec<usize> = order.needs(stage).iter().rev().copied().collect();
        while let Some(need) = open.pop() {
            if std::mem::replace(&mut seen[need], true) {
                continue;
            }
            match self.phases[need] {
                Phase::Failed => return Some(Some(need)),
                Phase::NotReached { because } => return Some(because),
                Phase::Skipped => open.extend(order.needs(need)),
                Phase::Waiting | Phase::Running | Phase::Passed => {}
            }
        }
        None
    }

    /// Whether a stage failed that a stage waits for, directly or through others.
    fn has_failed_before(&self, order: &Order, stage: usize) -> bool {
        order.ancestors(stage).into_iter().any(|before| self.phases[before] == Phase::Failed)
    }
}
