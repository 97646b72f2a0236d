//! Follows one stage: turns what init reports and what stands in the log into the stream's order,
//! output and steps exactly where they belong. Decides nothing.

use std::{io, sync::Arc};

use buildr_init::wire::{StageEnd, StageStatus};
use buildr_manifest::{EventKind, StagePlan};
use tokio::sync::watch;

use crate::{
    control::{ControlFolder, Damage, Log, Piece},
    error::chain,
    feed::Feed,
    job::Output,
    link::Board,
};

/// A stage that is followed, and how far.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    number: u32,
    plan: &'a StagePlan,
    board: watch::Receiver<Board>,
    control: Arc<ControlFolder>,
    feed: &'a Feed,
    log: Option<Log>,
    told: u64,
    steps: usize,
}

/// How following a stage ended.
#[derive(Debug)]
pub(crate) enum Seen {
    /// With the stage; all its output was passed on.
    End(StageEnd),
    /// With the connection.
    Closed,
    /// The log is not what init says it is.
    Damaged(Damage),
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        number: u32,
        plan: &'a StagePlan,
        board: watch::Receiver<Board>,
        control: Arc<ControlFolder>,
        feed: &'a Feed,
    ) -> Self {
        Self { number, plan, board, control, feed, log: None, told: 0, steps: 0 }
    }

    /// How much of the log was passed on, in bytes.
    pub(crate) fn told(&self) -> u64 {
        self.told
    }

    /// The step that began last.
    pub(crate) fn step(&self) -> Option<u32> {
        self.steps.checked_sub(1).and_then(|step| u32::try_from(step).ok())
    }

    /// Follows the stage to its end. May be called again where it was dropped: it goes on.
    pub(crate) async fn follow(&mut self) -> Seen {
        loop {
            let (status, closed) = self.look();
            if let Some(status) = status {
                if let Err(damage) = self.catch_up(&status).await {
                    return Seen::Damaged(damage);
                }
                if let Some(end) = status.end {
                    return Seen::End(end);
                }
            }
            if closed || self.board.changed().await.is_err() {
                // The board's last state may be newer than what was looked at.
                if self.look().0.is_none_or(|status| status.end.is_none()) {
                    return Seen::Closed;
                }
            }
        }
    }

    fn look(&mut self) -> (Option<StageStatus>, bool) {
        let board = self.board.borrow_and_update();
        (board.stages.get(&self.number).cloned(), board.closed)
    }

    /// Passes on all that is new.
    async fn catch_up(&mut self, status: &StageStatus) -> Result<(), Damage> {
        loop {
            // Steps beyond the script, or that go backwards, are not init's doing; they harm nobody.
            let next_step = status.steps.get(self.steps).filter(|_| self.steps < self.plan.script.len());
            match next_step {
                Some(offset) if *offset <= self.told => self.tell_step().await,
                _ => {
                    let end = next_step.map_or(status.log_bytes, |step| *step.min(&status.log_bytes));
                    if end <= self.told {
                        return Ok(());
                    }
                    self.tell_output(end).await?;
                }
            }
        }
    }

    async fn tell_step(&mut self) {
        let event = EventKind::StepStarted {
            stage: self.plan.name.clone(),
            step: u32::try_from(self.steps).unwrap_or(u32::MAX),
            command: self.plan.script[self.steps].clone(),
            offset: self.told,
        };
        self.steps += 1;
        self.feed.event(event).await;
    }

    async fn tell_output(&mut self, end: u64) -> Result<(), Damage> {
        for Piece { offset, data, times } in self.read(end).await? {
            let end = offset + data.len() as u64;
            self.feed.output(Output { log: self.plan.name.clone().into(), offset, data, times }).await;
            self.told = end;
        }
        Ok(())
    }

    async fn read(&mut self, end: u64) -> Result<Vec<Piece>, Damage> {
        let (control, log, number, from) = (self.control.clone(), self.log.take(), self.number, self.told);
        let read = tokio::task::spawn_blocking(move || {
            let mut log = log.map_or_else(|| control.log(number), Ok)?;
            log.read(from, end).map(|pieces| (pieces, log))
        });
        // It is only ever dropped with the runtime.
        let dropped = |error| Damage::Read { name: format!("{number}.log"), source: io::Error::other(error) };
        let (pieces, log) = read.await.map_err(dropped)??;
        self.log = Some(log);
        Ok(pieces)
    }
}

impl Seen {
    /// What is wrong with the log of `stage`.
    pub(crate) fn damage_message(stage: &str, damage: &Damage) -> String {
        format!("the log of stage {stage} was damaged from within the build: {}", chain(damage))
    }
}

#[cfg(test)]
mod tests;
