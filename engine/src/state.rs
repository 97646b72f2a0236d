//! Where a job stands: which stages have run and how, what is due now, and what the job comes to. Pure:
//! it is told what happened and says what follows; the same is told again, from the journal, to an
//! engine that takes a job over.

use buildr_manifest::{
    AllowFailure, Cause, Decision, Failure, JobPlan, Outcome, Phase, PlannedStage, Progress, Stage,
    StageName, StageState, Turn, VarMap, VarName,
};

/// The state of one job.
#[derive(Clone, Debug)]
pub(crate) struct State {
    progress: Progress,
    /// What decided the job's outcome, where something did.
    decided: Option<Outcome>,
    /// The stage that failed first.
    failed: Option<usize>,
    ran: bool,
}

/// What is to be done with a stage that has not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is to be started.
    Start,
    /// It will never run.
    Never(StageState),
}

impl State {
    /// The beginning.
    pub(crate) fn new(plan: &JobPlan) -> Self {
        Self { progress: Progress::new(&plan.job), decided: None, failed: None, ran: false }
    }

    /// Each stage whose turn it is.
    pub(crate) fn due(&self, plan: &JobPlan) -> Vec<(usize, Due)> {
        let name = |because: Option<usize>| because.map(|at| plan.job.stages[at].stage.name.clone());
        let turns = self.progress.turns(&plan.job, &plan.manifest.order).into_iter();
        let due = turns.map(|(at, turn)| match turn {
            Turn::Start => (at, Due::Start),
            Turn::Skip { why } => (at, Due::Never(StageState::Skipped { why })),
            Turn::NotReached { because } => {
                (at, Due::Never(StageState::NotReached { because: name(because) }))
            }
        });
        due.collect()
    }

    /// A stage was started.
    pub(crate) fn started(&mut self, stage: usize) {
        self.progress.phases[stage] = Phase::Running;
        self.ran = true;
    }

    /// A stage has handed values on.
    pub(crate) fn handed_over(&mut self, values: impl IntoIterator<Item = (VarName, String)>) {
        self.progress.handed_over.extend(values);
    }

    /// A stage has ended, or will never run. One that was `allowed` to fail counts as passed.
    pub(crate) fn ended(&mut self, plan: &JobPlan, stage: usize, state: &StageState, allowed: bool) {
        let phase = match state {
            StageState::Passed => Phase::Passed,
            StageState::Failed { .. } | StageState::Oom | StageState::TimedOut if allowed => Phase::Passed,
            StageState::Failed { .. } | StageState::Oom | StageState::TimedOut => Phase::Failed,
            // It was ended because of another one, or with the job.
            StageState::Canceled => Phase::NotReached { because: self.failed },
            StageState::Skipped { .. } => Phase::Skipped,
            StageState::NotReached { because } => {
                let at = |name: &StageName| plan.job.stages.iter().position(|s| s.stage.name == *name);
                Phase::NotReached { because: because.as_ref().and_then(at) }
            }
        };
        if phase == Phase::Failed && self.failed.is_none() {
            self.failed = Some(stage);
        }
        self.progress.phases[stage] = phase;
    }

    /// Something decides the outcome, unless something else did before.
    pub(crate) fn decided(&mut self, outcome: Outcome) {
        self.decided.get_or_insert(outcome);
    }

    /// The job is being ended: only what runs after a failure still starts. Somebody's wish wins over
    /// what the stages came to.
    pub(crate) fn ending(&mut self, outcome: Outcome) {
        self.progress.ending = true;
        match outcome {
            Outcome::Canceled { .. } | Outcome::Superseded { .. } => self.decided = Some(outcome),
            other => self.decided(other),
        }
    }

    /// True where a stage runs, as far as is known.
    pub(crate) fn is_running(&self, stage: usize) -> bool {
        self.progress.phases[stage] == Phase::Running
    }

    /// True where a stage has not had its turn.
    pub(crate) fn is_waiting(&self, stage: usize) -> bool {
        self.progress.phases[stage] == Phase::Waiting
    }

    /// The values that stages have handed on so far.
    pub(crate) fn values(&self) -> &VarMap {
        &self.progress.handed_over
    }

    /// The name of the stage that failed first.
    pub(crate) fn failed_stage<'p>(&self, plan: &'p JobPlan) -> Option<&'p StageName> {
        self.failed.map(|at| &plan.job.stages[at].stage.name)
    }

    /// How the job stands, in the words of `BUILDR_STATUS`.
    pub(crate) fn status_word(&self) -> &'static str {
        match &self.decided {
            None | Some(Outcome::Passed | Outcome::Skipped) => "passed",
            Some(Outcome::Canceled { .. } | Outcome::Superseded { .. }) => "canceled",
            Some(Outcome::TimedOut { .. }) => "timed_out",
            Some(_) => "failed",
        }
    }

    /// What the job comes to, where nothing more happens.
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.decided {
            Some(outcome) => outcome.clone(),
            None if self.ran => Outcome::Passed,
            None => Outcome::Skipped,
        }
    }
}

/// Whether the manifest lets a stage end like this.
pub(crate) fn is_allowed(stage: &Stage, state: &StageState) -> bool {
    match (&stage.allow_failure, state) {
        (AllowFailure::Yes, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut) => true,
        (AllowFailure::ExitCodes(codes), StageState::Failed { cause: Cause::Exit { code }, .. }) => {
            u8::try_from(*code).is_ok_and(|code| codes.contains(&code))
        }
        _ => false,
    }
}

/// Whether a stage also runs where something failed, with these values handed on. Such a stage is not
/// ended with its job, but has a time of its own.
pub(crate) fn outlives_failure(stage: &PlannedStage, values: &VarMap) -> bool {
    matches!(stage.decide(values), Decision::Run(status) if status.failure)
}

/// How often a stage may be tried in all.
pub(crate) fn attempts(stage: &Stage) -> u32 {
    1 + stage.retry.as_ref().map_or(0, |retry| retry.times)
}

/// Whether a stage that ended like this is worth another try, as the manifest says.
pub(crate) fn is_retried(stage: &Stage, state: &StageState) -> bool {
    let Some(retry) = &stage.retry else { return false };
    let failure = match state {
        StageState::Failed { cause, .. } => {
            let fits = match cause {
                Cause::Exit { code } => {
                    u8::try_from(*code).is_ok_and(|code| retry.exit_codes.contains(&code))
                }
                _ => false,
            };
            if !retry.exit_codes.is_empty() && !fits {
                return false;
            }
            Failure::Failed
        }
        StageState::TimedOut => Failure::TimedOut,
        StageState::Oom => Failure::Oom,
        _ => return false,
    };
    retry.when.contains(&failure)
}
