//! What a service prints: read from the file that init writes, passed on by offset.

use std::sync::Arc;

use buildr_init::wire::StageStatus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Place,
    host::{Host, PROGRAM},
    ready,
};
use crate::{
    control::{ControlFolder, Damage, Log, Piece},
    feed::Feed,
    job::Output,
    link::Board,
};

/// So much of a service's log is passed on.
const LIMIT: u64 = 64 << 20;

/// The most that is looked at for the last lines, in bytes.
const TAIL: u64 = 8 << 10;

/// The longest line that is shown in a message, in characters.
const LINE: usize = 300;

/// A service whose output is passed on.
#[derive(Debug)]
pub(super) struct Follower {
    host: Host,
    board: watch::Receiver<Board>,
    log: Option<Log>,
    told: u64,
    feed: Feed,
}

impl Follower {
    /// Goes on from `told` bytes.
    pub(super) fn new(host: Host, told: u64, place: &Place<'_>) -> Self {
        let board = host.link.board();
        Self { host, board, log: None, told, feed: place.feed.clone() }
    }

    /// Passes on what is printed, and says when the service ends; until it is stopped.
    pub(super) async fn follow(mut self, stop: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = self.until_end() => true,
        };
        if ended {
            self.tell_end().await;
        } else {
            self.catch_up().await;
        }
    }

    /// Passes on what is printed until the service's end. May be dropped and called again.
    pub(super) async fn until_end(&mut self) {
        loop {
            let over = self.catch_up().await;
            if over || self.board.changed().await.is_err() {
                return;
            }
        }
    }

    /// Passes on all that is new; true where nothing will come any more.
    async fn catch_up(&mut self) -> bool {
        let (status, closed) = {
            let board = self.board.borrow_and_update();
            (board.stages.get(&PROGRAM).cloned(), board.closed)
        };
        let Some(status) = status else { return closed };
        if let Err(damage) = self.tell_output(&status).await {
            let name = &self.host.name;
            self.feed.warning(format!("the log of service {name} ends here: {damage}")).await;
            self.told = u64::MAX;
        }
        closed || status.end.is_some()
    }

    async fn tell_output(&mut self, status: &StageStatus) -> Result<(), Damage> {
        let end = status.log_bytes.min(LIMIT);
        while self.told < end {
            for Piece { offset, data, times } in self.read(end).await? {
                let told = offset + data.len() as u64;
                let log = self.host.name.clone().into();
                self.feed.output(Output { log, offset, data, times }).await;
                self.told = told;
            }
        }
        if self.told == LIMIT && status.log_bytes > LIMIT {
            let (name, limit) = (&self.host.name, LIMIT >> 20);
            let message = format!("service {name} has printed more than {limit} MiB: the rest is not kept");
            self.feed.warning(message).await;
            self.told = u64::MAX;
        }
        Ok(())
    }

    async fn read(&mut self, to: u64) -> Result<Vec<Piece>, Damage> {
        let (control, log, from) = (Arc::clone(&self.host.control), self.log.take(), self.told);
        let read = tokio::task::spawn_blocking(move || {
            let mut log = log.map_or_else(|| control.log(PROGRAM), Ok)?;
            log.read(from, to).map(|pieces| (pieces, log))
        });
        let (pieces, log) = read.await.map_err(|error| Damage::Read {
            name: format!("{PROGRAM}.log"),
            source: std::io::Error::other(error),
        })??;
        self.log = Some(log);
        Ok(pieces)
    }

    /// A service that ends while stages run ends no stage.
    async fn tell_end(&self) {
        let end = self.board.borrow().stages.get(&PROGRAM).and_then(|status| status.end.clone());
        let name = &self.host.name;
        let how = end.as_ref().map_or_else(|| "went away: its container ended".to_owned(), ready::how);
        self.feed.warning(format!("service {name} {how} while the job went on")).await;
    }
}

/// The last lines of a program's log, without what would move a terminal's cursor. Blocks.
pub(super) fn tail(control: &ControlFolder, number: u32, length: u64, count: usize) -> Vec<String> {
    let from = length.saturating_sub(TAIL);
    let read = control.log(number).and_then(|mut log| log.read(from, length));
    let bytes: Vec<u8> = read.into_iter().flatten().flat_map(|piece| piece.data).collect();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let shown = lines[lines.len().saturating_sub(count)..].iter();
    shown.map(|line| line.chars().filter(|c| !c.is_control()).take(LINE).collect()).collect()
}
