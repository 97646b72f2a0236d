//! Runs a job's stages, each when its turn has come, as many side by side as may; and ends them when
//! the job must end.
//!
//! One loop hears of everything: of stages that ended, and of the wish or the need to end the job. Each
//! stage has a wish of its own that says how long it may go on, so that the loop can end some and not
//! others.

use std::{collections::BTreeMap, pin::Pin, time::Instant};

use buildr_manifest::{Outcome, StageState};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::watch, time::sleep_until};

use super::{
    Run,
    boot::Booted,
    stage::{Ended, StageRun},
};
use crate::{
    clock,
    journal::Record,
    state::{Due, State, outlives_failure},
    verdict::Interrupt,
};

/// How long a stage may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// As long as it likes.
    GoOn,
    /// It is to end, with a grace.
    End(Interrupt),
    /// It is to end at once.
    Kill(Interrupt),
}

/// A job whose stages run.
pub(super) struct Conductor<'r> {
    run: &'r Run<'r>,
    home: &'r Booted,
    state: State,
    running: FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send + 'r>>>,
    wishes: BTreeMap<usize, watch::Sender<Wish>>,
    ending: Ending,
}

/// How far the end of a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    No,
    /// Only what runs after a failure may still run, until then.
    Until(Instant),
    /// That time is over too: nothing starts any more.
    Over,
    /// Nothing starts any more, and what runs is killed.
    Killed,
}

impl<'r> Conductor<'r> {
    pub(super) fn new(run: &'r Run<'r>, home: &'r Booted, state: State) -> Self {
        Self {
            run,
            home,
            state,
            running: FuturesUnordered::new(),
            wishes: BTreeMap::new(),
            ending: Ending::No,
        }
    }

    /// Runs all of them, or as many as the job gets to; every one of them has its end told then.
    pub(super) async fn conduct(mut self) -> State {
        self.go_on();
        loop {
            self.begin_what_is_due().await;
            if self.running.is_empty() {
                return self.state;
            }
            let plan = &self.run.prepared.plan;
            let one = self.wishes.keys().next().map(|at| &plan.job.stages[*at].stage.name);
            tokio::select! {
                biased;
                _by = self.run.stop.killed(), if self.ending != Ending::Killed => self.kill(),
                Some(ended) = self.running.next() => self.ended(ended),
                outcome = self.run.interrupted(one), if self.ending == Ending::No => self.end(outcome),
                () = until(self.ending) => self.end_all(),
            }
        }
    }

    /// Goes on with the stages of a job that was taken over.
    fn go_on(&mut self) {
        let Some(past) = &self.run.past else { return };
        let stages = 0..self.run.prepared.plan.job.stages.len();
        for at in stages.filter(|at| self.state.is_running(*at)).collect::<Vec<_>>() {
            self.begin(at);
        }
        if let Some(at) = past.ending {
            let config = &self.run.engine.config;
            let since = clock::since_boot().saturating_sub(at);
            let left = (config.grace + config.always_budget).saturating_sub(since);
            self.ending = Ending::Until(Instant::now() + left);
            let interrupt = match self.state.outcome() {
                Outcome::TimedOut { .. } => Interrupt::JobTimedOut,
                _ => Interrupt::Canceled,
            };
            self.wish(&Wish::End(interrupt), Whom::EndsWithTheJob);
        }
    }

    /// Starts what is due and tells of what will never run, until nothing is due.
    async fn begin_what_is_due(&mut self) {
        let plan = &self.run.prepared.plan;
        loop {
            // What asked for an end before anything ran must not be answered with a start.
            if self.ending == Ending::No
                && let Some(outcome) = self.run.interrupted_now()
            {
                self.end(outcome);
            }
            let due = self.state.due(plan);
            if due.is_empty() {
                return;
            }
            for (at, due) in due {
                match due {
                    Due::Start if self.may_start() => self.begin(at),
                    Due::Start => self.never(at, StageState::NotReached { because: None }).await,
                    Due::Never(state) => self.never(at, state).await,
                }
            }
        }
    }

    fn may_start(&self) -> bool {
        matches!(self.ending, Ending::No | Ending::Until(_))
    }

    fn begin(&mut self, at: usize) {
        let (wish, heard) = watch::channel(Wish::GoOn);
        self.state.started(at);
        let stage = StageRun::new(self.run, self.home, at, &self.state, heard);
        self.running.push(Box::pin(stage.run()));
        self.wishes.insert(at, wish);
    }

    async fn never(&mut self, at: usize, state: StageState) {
        let plan = &self.run.prepared.plan;
        self.run.feed.never_ran(&plan.job.stages[at].stage.name, state.clone()).await;
        self.state.ended(plan, at, &state, false);
    }

    fn ended(&mut self, ended: Ended) {
        let plan = &self.run.prepared.plan;
        let Ended { stage, state, allowed, outcome, values } = ended;
        self.wishes.remove(&stage);
        self.state.handed_over(values);
        if let Some(outcome) = outcome {
            self.state.decided(outcome);
        }
        self.state.ended(plan, stage, &state, allowed);
        let failed = matches!(state, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut);
        if failed && !allowed && plan.manifest.fail_fast {
            self.wish(&Wish::End(Interrupt::Canceled), Whom::EndsWithTheJob);
        }
    }

    /// Begins the end of the job.
    fn end(&mut self, outcome: Outcome) {
        let config = &self.run.engine.config;
        let interrupt = match outcome {
            Outcome::TimedOut { .. } => Interrupt::JobTimedOut,
            _ => Interrupt::Canceled,
        };
        self.run.feed.record(&Record::Ending { outcome: outcome.clone(), at: clock::since_boot() });
        self.state.ending(outcome);
        self.ending = Ending::Until(Instant::now() + config.grace + config.always_budget);
        self.wish(&Wish::End(interrupt), Whom::EndsWithTheJob);
        if self.run.stop.is_kill() {
            self.kill();
        }
    }

    /// Ends what runs after a failure, too.
    fn end_all(&mut self) {
        self.ending = Ending::Over;
        self.wish(&Wish::End(Interrupt::JobTimedOut), Whom::All);
    }

    fn kill(&mut self) {
        if self.ending == Ending::No
            && let Some(by) = self.run.stop.by()
        {
            self.state.ending(Outcome::Canceled { by });
        }
        self.ending = Ending::Killed;
        self.wish(&Wish::Kill(Interrupt::Canceled), Whom::All);
    }

    fn wish(&self, new: &Wish, whom: Whom) {
        for (at, wish) in &self.wishes {
            let stage = &self.run.prepared.plan.job.stages[*at];
            if whom == Whom::All || !outlives_failure(stage, self.state.values()) {
                // A stage that is to end is not told to end again, but may be killed.
                wish.send_if_modified(|old| {
                    let changes = *old == Wish::GoOn || matches!(new, Wish::Kill(_));
                    if changes {
                        *old = new.clone();
                    }
                    changes
                });
            }
        }
    }
}

/// Which stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    /// All that do not run after a failure.
    EndsWithTheJob,
    All,
}

async fn until(ending: Ending) {
    match ending {
        Ending::Until(time) => sleep_until(time.into()).await,
        _ => std::future::pending().await,
    }
}
