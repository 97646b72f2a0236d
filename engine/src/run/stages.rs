//! Runs the stages in their order, each to its end or to the job's.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use buildr_init::wire::{Order, StageSpec};
use buildr_manifest::{EventKind, Outcome, StagePlan, StageState, Usage};
use tokio::time::{sleep, timeout};

use super::{Progress, Run, boot::Booted};
use crate::{
    container::Fate,
    environment::WORKSPACE,
    verdict::{self, Ending, Interrupt, Limits, Observed},
    watch::{Seen, Watch},
};

/// Init has this long beyond the grace to report that a stage has ended; then the container is
/// killed.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may outlive its container that was killed.
const KILLED_LIMIT: Duration = Duration::from_secs(10);

/// What runs an entry where the manifest names no shell.
const SHELL: [&str; 2] = ["/bin/sh", "-e"];

impl Run<'_> {
    /// Runs them all, or as many as the job gets to; tells the job's outcome.
    pub(super) async fn stages(&self, booted: &mut Booted, progress: &mut Progress) -> Outcome {
        for (number, stage) in (0..).zip(&self.prepared.plan.stages) {
            if let Some(interrupt) = self.interrupt_now() {
                return interrupt.outcome(None);
            }
            if let Some(why) = &stage.skip {
                self.feed.never_ran(stage, StageState::Skipped { why: why.clone() }).await;
                progress.done += 1;
                continue;
            }
            if let Some(outcome) = self.stage(booted, number, stage, progress).await {
                return outcome;
            }
        }
        match self.stop.by() {
            Some(by) => Outcome::Canceled { by },
            None if progress.last.is_none() => Outcome::Skipped,
            None => Outcome::Passed,
        }
    }

    /// Runs one stage; tells the job's outcome where the job ends with it.
    async fn stage(
        &self,
        booted: &mut Booted,
        number: u32,
        stage: &StagePlan,
        progress: &mut Progress,
    ) -> Option<Outcome> {
        let begin = Instant::now();
        self.feed.event(EventKind::StageStarted { stage: stage.name.clone() }).await;
        booted.link.send(Order::Start(self.spec(booted, number, stage))).await;
        let mut watch =
            Watch::new(number, stage, booted.link.board(), Arc::clone(&booted.control), self.feed);
        let interrupt = OnceLock::new();
        let seen = self.until_end(booted, number, &mut watch, &interrupt).await;
        let (log_bytes, step) = (watch.told(), watch.step());
        drop(watch);
        let ending = self.ending(booted, stage, seen, interrupt.get()).await;
        let (duration, usage) = used(&ending, begin);
        let observed = Observed { ending, step };
        let limits = Limits {
            log: self.engine.config.log_limit,
            image: &self.prepared.plan.image,
            oddity: booted.image.oddity.as_deref(),
        };
        let verdict = verdict::judge(&stage.name, &observed, interrupt.get(), limits);
        self.feed
            .event(EventKind::StageFinished {
                stage: stage.name.clone(),
                state: verdict.state.clone(),
                allowed: false,
                log_bytes,
                duration,
                usage,
            })
            .await;
        progress.done += 1;
        progress.last = Some((stage.name.clone(), verdict.state));
        verdict.outcome
    }

    fn spec(&self, booted: &Booted, number: u32, stage: &StagePlan) -> StageSpec {
        StageSpec {
            stage: number,
            shell: SHELL.map(str::to_owned).to_vec(),
            script: stage.script.clone(),
            environment: booted.environment.of_stage(&stage.name),
            workdir: WORKSPACE.to_owned(),
            user: booted.image.user.clone(),
            log_limit: self.engine.config.log_limit,
        }
    }

    /// Follows the stage and sees to it that it ends when the job must.
    async fn until_end(
        &self,
        booted: &Booted,
        number: u32,
        watch: &mut Watch<'_>,
        interrupt: &OnceLock<Interrupt>,
    ) -> Seen {
        let mut follow = std::pin::pin!(watch.follow());
        tokio::select! {
            seen = &mut follow => return seen,
            () = self.enforce(booted, number, interrupt) => {}
        }
        // All is killed; what init had reported is still passed on.
        if let Ok(seen) = timeout(KILLED_LIMIT, &mut follow).await {
            return seen;
        }
        booted.link.close();
        follow.await
    }

    /// Waits until the job must end and ends the stage; comes back when only the container's end
    /// helped.
    async fn enforce(&self, booted: &Booted, number: u32, interrupt: &OnceLock<Interrupt>) {
        let wanted = self.interrupted().await;
        interrupt.get_or_init(|| wanted);
        if !self.stop.is_kill() {
            let grace = self.engine.config.grace;
            booted.link.send(Order::Stop { stage: number, grace }).await;
            tokio::select! {
                _by = self.stop.killed() => {}
                () = sleep(grace + ANSWER_LIMIT) => {
                    tracing::warn!("init does not end the stage, so the container is killed");
                }
            }
        }
        if let Err(error) = booted.container.kill().await {
            tracing::warn!(error = error.chain(), "the container could not be killed");
        }
    }

    /// What the end that was seen is the end of.
    async fn ending(
        &self,
        booted: &mut Booted,
        stage: &StagePlan,
        seen: Seen,
        interrupt: Option<&Interrupt>,
    ) -> Ending {
        match seen {
            Seen::End(end) => Ending::Reported(end),
            Seen::Damaged(damage) => Ending::Damaged { message: Seen::damage_message(&stage.name, &damage) },
            Seen::Closed if interrupt.is_some() => Ending::Died { oom: false },
            Seen::Closed => match booted.fate().await {
                Ok(Fate::Ended { oom }) => Ending::Died { oom },
                Ok(Fate::Running) => {
                    Ending::Lost { message: "the connection to the build container was lost".to_owned() }
                }
                Err(error) => Ending::Lost { message: error.chain() },
            },
        }
    }
}

fn used(ending: &Ending, begin: Instant) -> (Duration, Usage) {
    match ending {
        Ending::Reported(end) => {
            let usage = Usage {
                user_cpu: end.user_cpu,
                system_cpu: end.system_cpu,
                max_rss: end.max_rss,
                peak_memory: end.peak_memory,
                network_received: end.network.map(|network| network.received),
                network_sent: end.network.map(|network| network.sent),
            };
            (end.duration, usage)
        }
        _ => (begin.elapsed(), Usage::default()),
    }
}
