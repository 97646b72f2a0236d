//! The end of a run: what it made is removed, what it borrowed is given back, and the last word is
//! said.

use std::time::{Duration, Instant};

use buildr_init::wire::{NewOwner, Order, Owner};
use buildr_manifest::{EventKind, Outcome, StageState};
use tokio::time::timeout;

use super::{Run, boot::Booted};
use crate::{environment::WORKSPACE, janitor, job::Kept, labels, state::State};

/// How long init may take to exit.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

/// How long Docker may take to answer to a start where init has come and gone.
const START_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take where it gives a workspace back first.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(120);

/// How much of the workspace is back with its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Returned {
    /// All of it, or nothing was taken.
    Yes,
    /// The container ended before it was.
    No,
}

impl Run<'_> {
    /// Ends the run. `JobFinished` comes before the removal where the stages ended by themselves,
    /// and after it where somebody wants to know that it is over.
    pub(super) async fn finish(&self, booted: Option<Booted>, state: &State, since: Instant) {
        self.tell_unreached(state).await;
        let outcome = state.outcome();
        let told = |containers_removed| {
            let (outcome, duration) = (outcome.clone(), since.elapsed());
            self.feed.event(EventKind::JobFinished { outcome, duration, containers_removed })
        };
        if let Some(booted) = &booted
            && self.keep(booted).await
        {
            return told(0).await;
        }
        let debt = booted.as_ref().and_then(|booted| Some((booted.hand_back?, booted.image.id.clone())));
        match booted {
            Some(booted) if !matches!(outcome, Outcome::Canceled { .. }) => {
                told(1).await;
                let returned = self.leave(booted).await;
                if self.lives_on() || returned == Returned::No {
                    self.remove().await;
                }
                self.return_workspace(returned, debt).await;
            }
            booted => {
                let count = u32::from(booted.is_some());
                let returned = match booted {
                    Some(booted) => self.leave(booted).await,
                    None => Returned::Yes,
                };
                let removed = self.remove().await.max(count);
                self.return_workspace(returned, debt).await;
                told(removed).await;
            }
        }
        self.remove_folder().await;
    }

    /// Leaves the build container, that of the stage that failed, and the folder that they need, to the user who wants it; false where
    /// nobody does, or nothing can run in it any more.
    async fn keep(&self, booted: &Booted) -> bool {
        if !self.keeps() || self.stop.is_kill() || booted.is_gone() {
            return false;
        }
        if let Some(owner) = booted.hand_back {
            let given = booted.link.own(WORKSPACE, Vec::new(), NewOwner::Ids(owner));
            if self.unless_killed(given).await.is_err() {
                return false;
            }
        }
        let failed = self.failed.get().cloned();
        let mut containers = vec![self.container_name(None)];
        containers.extend(failed.iter().map(|failed| failed.container.clone()));
        containers.dedup();
        let kept = self.folder().keep(&Kept { containers, failed });
        kept.inspect_err(|error| tracing::warn!(error = error.chain(), "the container is not kept")).is_ok()
    }

    /// What is left to do for a job whose last word was said.
    pub(super) async fn clean_up(&self) {
        self.remove().await;
        self.remove_folder().await;
    }

    /// Says of each stage that never had its turn why not.
    async fn tell_unreached(&self, state: &State) {
        for (at, stage) in self.prepared.plan.job.stages.iter().enumerate() {
            if state.is_waiting(at) {
                let state = match stage.skipped() {
                    Some(why) => StageState::Skipped { why: why.to_owned() },
                    None => StageState::NotReached { because: None },
                };
                self.feed.never_ran(&stage.stage.name, state).await;
            }
        }
    }

    /// Ends the container of a single stage. Nobody waits where the daemon removes it by itself.
    pub(super) async fn leave_own(&self, booted: Booted) {
        let container = booted.container.clone();
        let _nothing_was_taken = self.leave(booted).await;
        if self.lives_on()
            && let Err(error) = container.remove().await
        {
            tracing::warn!(error = error.chain(), "a stage's container is left to the end of the run");
        }
    }

    /// Lets init exit, or kills it where that is wanted or needed.
    async fn leave(&self, mut booted: Booted) -> Returned {
        let left = if self.stop.is_kill() || booted.link.board().borrow().closed {
            false
        } else if self.lives_on() || booted.hand_back.is_some() {
            self.see_off(&booted).await
        } else {
            // Init exits with its input, and the daemon removes the container: nobody waits.
            booted.link.close();
            true
        };
        if !left && let Err(error) = booted.container.kill().await {
            tracing::warn!(error = error.chain(), "the container could not be killed");
        }
        match timeout(START_LIMIT, booted.started()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(error = error.chain(), "docker says that the start failed"),
            Err(_) => tracing::warn!("docker has not answered to the start of a container that is over"),
        }
        if left || booted.hand_back.is_none() { Returned::Yes } else { Returned::No }
    }

    /// Tells init to exit and waits for it; false where it did not, or was not let.
    async fn see_off(&self, booted: &Booted) -> bool {
        let limit = if booted.hand_back.is_some() { HAND_BACK_LIMIT } else { EXIT_LIMIT };
        booted.link.send(Order::Exit).await;
        tokio::select! {
            _by = self.stop.killed() => false,
            closed = timeout(limit, booted.link.closed()) => closed.is_ok(),
        }
    }

    /// Removes the run's containers and tells how many there were.
    async fn remove(&self) -> u32 {
        let removed =
            labels::remove_all(&self.engine.daemon, &self.engine.config.owner, &self.prepared.request.run);
        removed.await.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "containers are left to the reaper");
            0
        })
    }

    /// Pays the debt (an owner, and an image to do it with) that a container left.
    async fn return_workspace(&self, returned: Returned, debt: Option<(Owner, String)>) {
        let (Returned::No, Some((owner, image))) = (returned, debt) else { return };
        let (run, workspace) = (&self.prepared.request.run, &self.prepared.workspace);
        if let Err(error) = janitor::hand_back(self.engine, run, &image, workspace, owner).await {
            let error = error.chain();
            tracing::warn!(error, workspace = %workspace.display(), "files may belong to other users now");
        }
    }

    /// The folder with the control directory, and the workspace where it is the run's own.
    async fn remove_folder(&self) {
        let removed = janitor::remove_folder(self.engine, &self.prepared.request.run, self.folder()).await;
        if let Err(error) = removed {
            tracing::warn!(error = error.chain(), "the run's folder is left to the reaper");
        }
    }
}
