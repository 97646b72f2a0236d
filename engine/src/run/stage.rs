//! One stage from its turn to its end: its container where it has one of its own, its tries, and what
//! it hands on.

use std::time::{Duration, Instant};

use buildr_init::wire::{CONTROL_DIR, Order, StageSpec};
use buildr_manifest::{
    EventKind, Outcome, PlannedStage, Shell, StageName, StageState, Usage, VarMap, VarName,
};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until, timeout},
};

use super::{
    Run,
    boot::{Booted, NUMBERS_PER_STAGE, Presence},
    conductor::Wish,
    far,
};
use crate::{
    clock,
    container::Fate,
    environment::WORKSPACE,
    job::FailedIn,
    journal::{Record, Try},
    past::StagePast,
    state::{State, attempts, is_allowed, is_retried, outlives_failure},
    verdict::{self, Ending, Interrupt, Observed, Setting, Verdict},
    watch::{Heard, Seen, Subject, Watch},
};

/// Init has this long beyond the grace to report that a stage has ended; then the container is
/// killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may outlive its container that was killed.
const KILLED_LIMIT: Duration = Duration::from_secs(10);

/// A stage that runs.
pub(super) struct StageRun<'r> {
    run: &'r Run<'r>,
    home: &'r Booted,
    at: usize,
    planned: &'r PlannedStage,
    /// What earlier stages and the state of the job add to its environment.
    values: VarMap,
    status: Vec<(&'static str, String)>,
    wish: watch::Receiver<Wish>,
}

/// How a stage has ended, which was told.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its place in the plan.
    pub(super) stage: usize,
    pub(super) state: StageState,
    /// It failed as the manifest allows.
    pub(super) allowed: bool,
    /// What this makes of the job, where it decides it.
    pub(super) outcome: Option<Outcome>,
    /// What it hands on.
    pub(super) values: Vec<(VarName, String)>,
}

/// A try that has ended.
struct Tried {
    verdict: Verdict,
    /// The length of the stage's log.
    log_bytes: u64,
    usage: Usage,
}

impl<'r> StageRun<'r> {
    pub(super) fn new(
        run: &'r Run<'r>,
        home: &'r Booted,
        at: usize,
        state: &State,
        wish: watch::Receiver<Wish>,
    ) -> Self {
        let plan = &run.prepared.plan;
        let planned = &plan.job.stages[at];
        let mut status = Vec::new();
        if outlives_failure(planned, state.values()) {
            status.push(("BUILDR_STATUS", state.status_word().to_owned()));
            let failed = state.failed_stage(plan).map(ToString::to_string);
            status.extend(failed.map(|stage| ("BUILDR_FAILED_STAGE", stage)));
        }
        Self { run, home, at, planned, values: state.values().clone(), status, wish }
    }

    fn name(&self) -> &'r StageName {
        &self.planned.stage.name
    }

    /// Runs it to its end, and tells of it.
    pub(super) async fn run(mut self) -> Ended {
        let past = self.run.stage_past(self.at).cloned().unwrap_or_default();
        let own = match self.run.own_container(self.at) {
            None if self.home.is_gone() && !past.started => return self.not_reached(None).await,
            None => None,
            Some(wanted) => match self.unless_ended(self.run.enter(wanted)).await {
                Some(Ok(booted)) => Some(booted),
                Some(Err(outcome)) => return self.not_reached(Some(outcome)).await,
                None => return self.not_reached(None).await,
            },
        };
        let begin = past.tries.first().map_or_else(Instant::now, |first| instant(first.at));
        if !past.started {
            self.run.feed.event(EventKind::StageStarted { stage: self.name().clone() }).await;
        }
        let booted = own.as_ref().unwrap_or(self.home);
        let (number, tried) = self.tries(booted, &past).await;
        let state = tried.verdict.state;
        let allowed = is_allowed(&self.planned.stage, &state);
        let counts = allowed || state == StageState::Passed;
        let values = if counts { self.handed_on(booted, number).await } else { Vec::new() };
        let outcome = tried.verdict.outcome.filter(|_| !allowed);
        if let Some(outcome) = &outcome {
            self.run.feed.record(&Record::Decided { outcome: outcome.clone() });
        }
        let event = EventKind::StageFinished {
            stage: self.name().clone(),
            state: state.clone(),
            allowed,
            log_bytes: tried.log_bytes,
            duration: begin.elapsed(),
            usage: tried.usage,
        };
        self.run.feed.event(event).await;
        let failed = matches!(state, StageState::Failed { .. } | StageState::Oom | StageState::TimedOut);
        let is_kept = failed && !allowed && self.run.keeps() && self.keep_place(booted, number);
        if let Some(own) = own.filter(|_| !is_kept) {
            self.run.leave_own(own).await;
        }
        Ended { stage: self.at, state, allowed, outcome, values }
    }

    /// Remembers where it ran for whoever wants to look at it; false where another stage failed before.
    fn keep_place(&self, booted: &Booted, number: u32) -> bool {
        let user = self.planned.stage.user.as_deref().unwrap_or(&booted.image.user);
        let StageSpec { environment, workdir, user, .. } = self.spec(booted, user, number, 0);
        let own = self.run.own_container(self.at).map(|_| self.at);
        let container = self.run.container_name(own);
        let place = FailedIn { stage: self.name().clone(), container, workdir, user, environment };
        self.run.failed.set(place).is_ok()
    }

    /// There is nothing to run it in.
    async fn not_reached(self, outcome: Option<Outcome>) -> Ended {
        let state = StageState::NotReached { because: None };
        if let Some(outcome) = &outcome {
            self.run.feed.record(&Record::Decided { outcome: outcome.clone() });
        }
        self.run.feed.never_ran(self.name(), state.clone()).await;
        Ended { stage: self.at, state, allowed: false, outcome, values: Vec::new() }
    }

    /// Tries until it passes or may not be tried again; gives the number of the last try.
    async fn tries(&mut self, booted: &Booted, past: &StagePast) -> (u32, Tried) {
        let attempts = attempts(&self.planned.stage);
        let (mut attempt, mut base) = past.next.unwrap_or((1, 0));
        let mut usage = Usage::default();
        loop {
            let begun = past.tries.iter().find(|one| one.attempt == attempt);
            let mut tried = self.attempt(booted, (attempt, base), begun.map(|one| (one, past.steps))).await;
            usage = sum(usage, tried.usage);
            tried.usage = usage;
            let number = number(self.at, attempt);
            let again = attempt < attempts
                && *self.wish.borrow() == Wish::GoOn
                && !booted.is_gone()
                && is_retried(&self.planned.stage, &tried.verdict.state);
            if !again {
                return (number, tried);
            }
            let pause = self.planned.stage.retry.as_ref().and_then(|retry| retry.backoff).unwrap_or_default();
            let event = EventKind::StageRetried {
                stage: self.name().clone(),
                attempt,
                attempts,
                state: tried.verdict.state.clone(),
                log_bytes: tried.log_bytes,
                pause,
            };
            self.run.feed.event(event).await;
            if self.unless_ended(sleep(pause)).await.is_none() {
                return (number, tried);
            }
            (base, attempt) = (tried.log_bytes, attempt + 1);
        }
    }

    /// One try; of one that an earlier engine had begun there is a record, and how many of its steps
    /// were told.
    async fn attempt(
        &self,
        booted: &Booted,
        (attempt, base): (u32, u64),
        begun: Option<(&Try, usize)>,
    ) -> Tried {
        let number = number(self.at, attempt);
        let user = self.planned.stage.user.as_deref().unwrap_or(&booted.image.user);
        if begun.is_none() {
            if let Err(_killed) = self.run.give_workspace(booted, user).await {
                let verdict = Verdict { state: StageState::Canceled, outcome: None, warning: None };
                return Tried { verdict, log_bytes: base, usage: Usage::default() };
            }
            let at = clock::since_boot();
            self.run.feed.record(&Record::Try(Try { stage: self.at, attempt, base, at }));
        }
        // Init runs a number once, however often it is told to.
        booted.link.send(Order::Start(self.spec(booted, user, number, base))).await;
        let log = self.run.told.get(&self.name().clone().into()).copied().unwrap_or(0).max(base);
        let heard = Heard { log, steps: begun.map_or(0, |(_, steps)| steps) };
        let since = begun.map_or_else(Instant::now, |(one, _)| instant(one.at));
        self.follow(booted, number, (heard, base), since).await
    }

    fn spec(&self, booted: &Booted, user: &str, number: u32, base: u64) -> StageSpec {
        let own = [
            ("BUILDR_STAGE", self.name().to_string()),
            ("BUILDR_ENV", format!("{CONTROL_DIR}/{number}.env")),
            ("BUILDR_NETWORK", self.run.network_name()),
        ];
        let variables = self.planned.variables.resolve(&self.values);
        let below = self.run.texts.stages[self.at].workdir.as_deref();
        StageSpec {
            stage: number,
            shell: shell(self.shell()),
            script: self.planned.stage.script.clone(),
            environment: booted.environment.of_stage(variables, own.into_iter().chain(self.status.clone())),
            workdir: below.map_or_else(|| WORKSPACE.to_owned(), |below| format!("{WORKSPACE}/{below}")),
            user: user.to_owned(),
            log_limit: self.run.engine.config.log_limit.saturating_sub(base),
        }
    }

    fn shell(&self) -> &Shell {
        self.planned.stage.shell.as_ref().unwrap_or(&self.run.prepared.plan.manifest.shell)
    }

    /// Follows a try that was started to its end.
    async fn follow(
        &self,
        booted: &Booted,
        number: u32,
        (heard, base): (Heard, u64),
        since: Instant,
    ) -> Tried {
        let stage = &self.planned.stage;
        let subject = Subject { stage: &stage.name, script: &stage.script, number, base };
        let control = booted.control.clone();
        let mut watch = Watch::new(subject, booted.link.board(), control, self.run.feed, heard);
        let mut interrupt = None;
        let seen = self.until_end(booted, (number, since), &mut watch, &mut interrupt).await;
        let (log_bytes, step) = (watch.told(), watch.step());
        drop(watch);
        let ending = self.ending(booted, seen, interrupt.as_ref()).await;
        let usage = used(&ending);
        let shell = shell(self.shell());
        let setting = Setting {
            log: self.run.engine.config.log_limit,
            memory: booted.memory,
            image: &booted.image_name,
            oddity: booted.image.oddity.as_deref(),
            shell: &shell[0],
            placed: stage.user.is_some() || stage.workdir.is_some(),
        };
        let verdict = verdict::judge(&stage.name, &Observed { ending, step }, interrupt.as_ref(), setting);
        if let Some(warning) = &verdict.warning {
            self.run.feed.warning(warning.clone()).await;
        }
        Tried { verdict, log_bytes, usage }
    }

    /// Follows the try and sees to it that it ends when it must.
    async fn until_end(
        &self,
        booted: &Booted,
        (number, since): (u32, Instant),
        watch: &mut Watch<'_>,
        interrupt: &mut Option<Interrupt>,
    ) -> Seen {
        let mut follow = std::pin::pin!(watch.follow());
        tokio::select! {
            seen = &mut follow => return seen,
            () = self.enforce(booted, (number, since), interrupt) => {}
        }
        // All is killed; what init had reported is still passed on.
        if let Ok(seen) = timeout(KILLED_LIMIT, &mut follow).await {
            return seen;
        }
        booted.link.close();
        follow.await
    }

    /// Waits until the try must end and ends it; comes back when only the container's end helped.
    async fn enforce(
        &self,
        booted: &Booted,
        (number, since): (u32, Instant),
        interrupt: &mut Option<Interrupt>,
    ) {
        let wish = self.must_end(since).await;
        let (Wish::End(why) | Wish::Kill(why)) = &wish else { return };
        *interrupt = Some(why.clone());
        if let Wish::End(_) = wish {
            let grace = self.run.engine.config.grace;
            booted.link.send(Order::Stop { stage: number, grace }).await;
            tokio::select! {
                () = self.wished(|wish| matches!(wish, Wish::Kill(_))) => {}
                () = sleep(grace + ANSWER_LIMIT) => {
                    tracing::warn!(stage = %self.name(), "init does not end the stage, so the container is killed");
                }
            }
        }
        if let Err(error) = booted.container.kill().await {
            tracing::warn!(error = error.chain(), "the container could not be killed");
        }
    }

    /// Comes back when the stage must end: its time is up, or somebody wishes so.
    async fn must_end(&self, since: Instant) -> Wish {
        let own = async {
            match self.planned.stage.timeout {
                Some(limit) => {
                    sleep_until(far(since, limit).into()).await;
                    limit
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.wished(|wish| *wish != Wish::GoOn) => self.wish.borrow().clone(),
            limit = own => Wish::End(Interrupt::TimedOut { limit }),
        }
    }

    /// Comes back when the wish is such.
    async fn wished(&self, such: impl FnMut(&Wish) -> bool) {
        let mut wish = self.wish.clone();
        if wish.wait_for(such).await.is_err() {
            // Nobody can wish anything any more.
            std::future::pending().await
        }
    }

    /// Does what may take long, unless the stage must end.
    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.wished(|wish| *wish != Wish::GoOn) => None,
            done = work => Some(done),
        }
    }

    /// What the end that was seen is the end of.
    async fn ending(&self, booted: &Booted, seen: Seen, interrupt: Option<&Interrupt>) -> Ending {
        match seen {
            Seen::End(end) => Ending::Reported(end),
            Seen::Damaged(damage) => Ending::Damaged { message: Seen::damage_message(self.name(), &damage) },
            Seen::Closed if interrupt.is_some() => Ending::Died { oom: false },
            Seen::Closed if booted.presence == Presence::EndedUnseen => {
                match self.run.prepared.request.identity.agent.clone() {
                    Some(agent) => Ending::Unattended { agent },
                    None => Ending::Lost { message: verdict::UNWATCHED.to_owned() },
                }
            }
            Seen::Closed => match booted.fate().await {
                Ok(Fate::Ended { oom }) => Ending::Died { oom },
                Ok(Fate::Running) => {
                    Ending::Lost { message: "the connection to the build container was lost".to_owned() }
                }
                Err(error) => Ending::Lost { message: error.chain() },
            },
        }
    }

    /// Reads what the stage hands on.
    async fn handed_on(&self, booted: &Booted, number: u32) -> Vec<(VarName, String)> {
        let control = booted.control.clone();
        let read = crate::blocking(move || Ok(control.handed_on(number))).await;
        let Ok(handed_on) = read else { return Vec::new() };
        for warning in handed_on.warnings {
            self.run.feed.warning(format!("stage {}: {warning}", self.name())).await;
        }
        if !handed_on.values.is_empty() {
            let (stage, values) = (self.name().clone(), handed_on.values.clone());
            self.run.feed.record(&Record::HandedOver { stage, values });
        }
        handed_on.values
    }
}

/// The number of a try in its container.
pub(super) fn number(stage: usize, attempt: u32) -> u32 {
    u32::try_from(stage).unwrap_or(u32::MAX).saturating_mul(NUMBERS_PER_STAGE) + (attempt - 1)
}

/// A time since the machine was started, as an instant of this process.
fn instant(at: Duration) -> Instant {
    let age = clock::since_boot().saturating_sub(at);
    Instant::now().checked_sub(age).unwrap_or_else(Instant::now)
}

/// What runs an entry.
fn shell(shell: &Shell) -> Vec<String> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match shell {
        Shell::Sh => words(&["/bin/sh", "-e"]),
        Shell::Bash => words(&["bash", "-eo", "pipefail"]),
        Shell::Other(command) => command.clone(),
    }
}

fn used(ending: &Ending) -> Usage {
    match ending {
        Ending::Reported(end) => Usage {
            user_cpu: end.user_cpu,
            system_cpu: end.system_cpu,
            max_rss: end.max_rss,
            peak_memory: end.peak_memory,
            network_received: end.network.map(|network| network.received),
            network_sent: end.network.map(|network| network.sent),
        },
        _ => Usage::default(),
    }
}

/// What several tries used up together.
fn sum(first: Usage, second: Usage) -> Usage {
    let added = |a: Option<u64>, b: Option<u64>| a.map_or(b, |a| Some(a.saturating_add(b.unwrap_or(0))));
    Usage {
        user_cpu: first.user_cpu.saturating_add(second.user_cpu),
        system_cpu: first.system_cpu.saturating_add(second.system_cpu),
        max_rss: first.max_rss.max(second.max_rss),
        peak_memory: first.peak_memory.max(second.peak_memory),
        network_received: added(first.network_received, second.network_received),
        network_sent: added(first.network_sent, second.network_sent),
    }
}
