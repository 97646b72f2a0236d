//! The second half of a job: container, stages, cleanup. Order and meaning are decided in
//! `verdict`; here it is carried out.

mod boot;
mod finish;
mod stages;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use buildr_manifest::{EventKind, Outcome, StageName, StageState};
use tokio::time::sleep_until;

use crate::{
    Finished,
    claim::Held,
    engine::{Inner, Lifetime},
    feed::{Feed, StopSignal},
    job::Prepared,
    run_folder::RunFolder,
    verdict::{self, Interrupt},
};

/// One run, for as long as it lasts.
pub(crate) struct Run<'a> {
    engine: &'a Arc<Inner>,
    prepared: &'a Prepared,
    folder: &'a RunFolder,
    feed: &'a Feed,
    stop: &'a StopSignal,
    limit: Duration,
    deadline: Instant,
}

/// How far the stages are.
#[derive(Debug, Default)]
struct Progress {
    /// So many of them have ended, whatever way.
    done: usize,
    /// The one that ran and ended last.
    last: Option<(StageName, StageState)>,
}

/// Carries out a job that was prepared.
pub(crate) async fn run(
    engine: &Arc<Inner>,
    mut prepared: Prepared,
    feed: Feed,
    stop: StopSignal,
) -> Finished {
    let held = match hold(engine, &mut prepared).await {
        Ok(held) => held,
        Err(outcome) => {
            tell_unreached(&prepared, &Progress::default(), &feed).await;
            let event = EventKind::JobFinished {
                outcome: outcome.clone(),
                duration: Duration::ZERO,
                containers_removed: 0,
            };
            feed.event(event).await;
            return Finished { outcome };
        }
    };
    let limit = prepared.request.timeout.map_or(prepared.plan.timeout, |cap| cap.min(prepared.plan.timeout));
    let run = Run {
        engine,
        prepared: &prepared,
        folder: &held.folder,
        feed: &feed,
        stop: &stop,
        limit,
        deadline: far(Instant::now(), limit),
    };
    let mut progress = Progress::default();
    let (booted, outcome) = match run.boot().await {
        Ok(mut booted) => {
            let outcome = match run.settle_in(&booted).await {
                Ok(()) => run.stages(&mut booted, &mut progress).await,
                Err(outcome) => outcome,
            };
            (Some(booted), outcome)
        }
        Err(outcome) => (None, outcome),
    };
    run.finish(booted, &outcome, &progress, held.since).await;
    Finished { outcome }
}

/// The claim that the preparation made, or a new one.
async fn hold(engine: &Arc<Inner>, prepared: &mut Prepared) -> Result<Held, Outcome> {
    if let Some(held) = prepared.claim.take() {
        return Ok(held);
    }
    let (data_dir, run) = (engine.config.data_dir.clone(), prepared.request.run.clone());
    let made = crate::blocking(move || Ok(RunFolder::create(&data_dir, &run))).await;
    let internal = |message| Outcome::Internal { message };
    let folder =
        made.map_err(|error| internal(error.to_string()))?.map_err(|error| internal(error.chain()))?;
    Ok(Held { folder, since: Instant::now() })
}

/// A limit may be longer than a clock is.
fn far(now: Instant, limit: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + limit.min(YEAR)
}

impl Run<'_> {
    /// Comes back when the job must not go on.
    async fn interrupted(&self) -> Interrupt {
        tokio::select! {
            biased;
            by = self.stop.requested() => Interrupt::Canceled { by },
            () = sleep_until(self.deadline.into()) => Interrupt::TimedOut { limit: self.limit },
        }
    }

    /// Why the job must not go on, if so.
    fn interrupt_now(&self) -> Option<Interrupt> {
        let timed_out = || {
            let passed = Instant::now() >= self.deadline;
            passed.then_some(Interrupt::TimedOut { limit: self.limit })
        };
        self.stop.by().map(|by| Interrupt::Canceled { by }).or_else(timed_out)
    }

    /// Does what may take long, unless the job must not go on; then the work is dropped.
    async fn unless_interrupted<T>(&self, work: impl Future<Output = T>) -> Result<T, Outcome> {
        tokio::select! {
            biased;
            interrupt = self.interrupted() => Err(interrupt.outcome(None)),
            done = work => Ok(done),
        }
    }

    fn is_detached(&self) -> bool {
        matches!(self.engine.config.lifetime, Lifetime::Detached { .. })
    }
}

/// Says of each stage that never ran why not.
async fn tell_unreached(prepared: &Prepared, progress: &Progress, feed: &Feed) {
    let last = progress.last.as_ref().map(|(stage, state)| (stage, state));
    for stage in prepared.plan.stages.iter().skip(progress.done) {
        feed.never_ran(stage, verdict::never_runs(stage, last)).await;
    }
}
