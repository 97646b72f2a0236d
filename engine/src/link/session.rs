//! A link over all its connections: what goes down, what comes up, and what is to be repeated.

use std::{
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use buildr_init::wire::{Command, Heard, Order, Report, StageStatus};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Board, Connect, Connection,
    bounds::{self, Bounds},
    lines::Lines,
    outstanding::{Outstanding, Sending},
};

/// What takes no orders any more may still have something to report, for so long.
const LAST_REPORTS: Duration = Duration::from_secs(5);

pub(super) struct Session {
    /// Who counts the orders, for init.
    id: u64,
    board: watch::Sender<Board>,
    outstanding: Mutex<Outstanding>,
    bounds: Bounds,
    sign_of_life: Option<Duration>,
}

/// Says on the board that it is over, however the task ends.
struct Closing<'a>(&'a watch::Sender<Board>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|board| board.closed = true);
    }
}

impl Session {
    pub(super) fn new(board: watch::Sender<Board>, bounds: Bounds, sign_of_life: Option<Duration>) -> Self {
        // The standard library's keys for hashing are random, and nothing else of it is.
        let id = RandomState::new().hash_one("session");
        Self { id, board, outstanding: Mutex::default(), bounds, sign_of_life }
    }

    /// Until there is nothing to connect to any more.
    pub(super) async fn serve(
        self,
        first: Connection,
        mut connect: impl Connect,
        mut orders: mpsc::Receiver<Sending>,
    ) {
        let _closing = Closing(&self.board);
        let mut connection = Some(first);
        while let Some(Connection { output, input }) = connection {
            tokio::select! {
                () = self.read(output) => {}
                () = self.write(input, &mut orders) => {}
            }
            tracing::debug!("the connection to init ended");
            connection = connect.connect().await;
        }
    }

    /// Until the end of the output.
    async fn read(&self, mut output: Pin<Box<dyn Stream<Item = Bytes> + Send>>) {
        let mut lines = Lines::default();
        while let Some(chunk) = output.next().await {
            lines.feed(&chunk, |line| {
                if let Ok(report) = serde_json::from_slice(line) {
                    self.take(report);
                }
            });
        }
    }

    fn take(&self, report: Report) {
        match report {
            Report::Ack { session, seq } if session == self.id => self.outstanding().acknowledged(seq),
            Report::Owned { session, seq, errors } if session == self.id => {
                self.outstanding().answered(seq, bounds::complaints(errors));
            }
            Report::Ack { .. } | Report::Owned { .. } => {}
            Report::State { sessions, stages, .. } => {
                let heard = self.heard(&sessions);
                self.board.send_modify(|board| {
                    board.ready |= heard;
                    stages.into_iter().for_each(|stage| note(board, stage, &self.bounds));
                });
            }
            Report::Stage(stage) => self.board.send_modify(|board| note(board, stage, &self.bounds)),
        }
    }

    /// Whether init has heard of us, and with that, of which orders.
    fn heard(&self, sessions: &[Heard]) -> bool {
        let ours = sessions.iter().find(|heard| heard.session == self.id);
        if let Some(heard) = ours {
            self.outstanding().acknowledged_up_to(heard.up_to);
        }
        ours.is_some()
    }

    fn outstanding(&self) -> MutexGuard<'_, Outstanding> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the input takes no more. What was not answered over an earlier connection goes first, and
    /// again with each sign of life; before it an empty line, which ends a line that may have been torn.
    async fn write(&self, mut input: Pin<Box<dyn AsyncWrite + Send>>, orders: &mut mpsc::Receiver<Sending>) {
        let mut text = vec![b'\n'];
        self.append_all(&mut text);
        let mut signs = SignsOfLife::every(self.sign_of_life);
        loop {
            if input.write_all(&text).await.is_err() || input.flush().await.is_err() {
                tracing::debug!("init takes no more orders");
                return sleep(LAST_REPORTS).await;
            }
            text.clear();
            tokio::select! {
                Some(sending) = orders.recv() => {
                    append_line(&mut text, self.outstanding().add(self.id, sending));
                }
                () = signs.next() => self.append_all(&mut text),
                else => return std::future::pending().await,
            }
        }
    }

    /// The question how things are, and all that is outstanding.
    fn append_all(&self, text: &mut Vec<u8>) {
        append_line(text, &Command { session: self.id, seq: 0, order: Order::Query });
        self.outstanding().commands().for_each(|command| append_line(text, command));
    }
}

/// Ticks, or never does.
struct SignsOfLife(Option<tokio::time::Interval>);

impl SignsOfLife {
    fn every(period: Option<Duration>) -> Self {
        Self(period.map(|period| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(ticks) => {
                ticks.tick().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Takes a stage's news, where it is a stage of ours and the news is newer.
pub(super) fn note(board: &mut Board, news: StageStatus, bounds: &Bounds) {
    let Some(news) = bounds.stage(news) else { return };
    match board.stages.get(&news.stage) {
        Some(known) if known.end.is_some() || known.log_bytes > news.log_bytes => {}
        _ => {
            board.stages.insert(news.stage, news);
        }
    }
}

fn append_line(text: &mut Vec<u8>, command: &Command) {
    let line = serde_json::to_vec(command).expect("an order has only strings for keys");
    text.extend_from_slice(&line);
    text.push(b'\n');
}
