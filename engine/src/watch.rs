//! Follows one stage: turns what init reports and what stands in the log into the stream's order,
//! output and steps exactly where they belong. Decides nothing.

use std::{io, sync::Arc};

use buildr_init::wire::{StageEnd, StageStatus};
use buildr_manifest::{EventKind, StageName};
use tokio::sync::watch;

use crate::{
    control::{ControlFolder, Damage, Log, Piece},
    error::chain,
    feed::Feed,
    job::Output,
    link::Board,
};

/// One try of a stage that is followed, and how far.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    subject: Subject<'a>,
    board: watch::Receiver<Board>,
    control: Arc<ControlFolder>,
    feed: &'a Feed,
    log: Option<Log>,
    heard: Heard,
}

/// What is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    /// The stage.
    pub(crate) stage: &'a StageName,
    /// The entries of its script.
    pub(crate) script: &'a [String],
    /// The try's number in its container.
    pub(crate) number: u32,
    /// Where in the stage's log the try's begins, in bytes.
    pub(crate) base: u64,
}

/// How much of a try was passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The length of the stage's log, in bytes.
    pub(crate) log: u64,
    /// How many steps have begun.
    pub(crate) steps: usize,
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
    /// Goes on from what was heard.
    pub(crate) fn new(
        subject: Subject<'a>,
        board: watch::Receiver<Board>,
        control: Arc<ControlFolder>,
        feed: &'a Feed,
        heard: Heard,
    ) -> Self {
        let log = heard.log.max(subject.base);
        Self { subject, board, control, feed, log: None, heard: Heard { log, ..heard } }
    }

    /// How much of the stage's log was passed on, in bytes.
    pub(crate) fn told(&self) -> u64 {
        self.heard.log
    }

    /// The step that began last.
    pub(crate) fn step(&self) -> Option<u32> {
        self.heard.steps.checked_sub(1).and_then(|step| u32::try_from(step).ok())
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
        (board.stages.get(&self.subject.number).cloned(), board.closed)
    }

    /// Passes on all that is new.
    async fn catch_up(&mut self, status: &StageStatus) -> Result<(), Damage> {
        loop {
            // Steps beyond the script, or that go backwards, are not init's doing; they harm nobody.
            let steps = self.heard.steps;
            let next_step = status.steps.get(steps).filter(|_| steps < self.subject.script.len());
            let base = self.subject.base;
            match next_step {
                Some(offset) if base.saturating_add(*offset) <= self.heard.log => self.tell_step().await,
                _ => {
                    let end = next_step.map_or(status.log_bytes, |step| *step.min(&status.log_bytes));
                    if base.saturating_add(end) <= self.heard.log {
                        return Ok(());
                    }
                    self.tell_output(end).await?;
                }
            }
        }
    }

    async fn tell_step(&mut self) {
        let Subject { stage, script, .. } = self.subject;
        let event = EventKind::StepStarted {
            stage: stage.clone(),
            step: u32::try_from(self.heard.steps).unwrap_or(u32::MAX),
            command: script[self.heard.steps].clone(),
            offset: self.heard.log,
        };
        self.heard.steps += 1;
        self.feed.event(event).await;
    }

    /// Up to `end` of the try's own log.
    async fn tell_output(&mut self, end: u64) -> Result<(), Damage> {
        let base = self.subject.base;
        for Piece { offset, data, times } in self.read(end).await? {
            let (offset, end) = (base + offset, base + offset + data.len() as u64);
            let times = times.into_iter().map(|(at, time)| (base + at, time)).collect();
            let log = self.subject.stage.clone().into();
            self.feed.output(Output { log, offset, data, times }).await;
            self.heard.log = end;
        }
        Ok(())
    }

    async fn read(&mut self, end: u64) -> Result<Vec<Piece>, Damage> {
        let (control, log, number) = (self.control.clone(), self.log.take(), self.subject.number);
        let from = self.heard.log - self.subject.base;
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
