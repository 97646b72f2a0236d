//! Ships an attempt's logs from the spool, over a stream that is opened when there is something to
//! say. What is not acknowledged is sent again after a reconnect, from where the orchestrator says.

mod cursor;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::cursor::Cursor;
use super::{Delivery, Fenced, Tries};
use crate::{
    link::{Ack, CallError, Chunk, LogStream, LogSummary},
    spool::{LogReader, Piece, Progress},
};

pub(super) struct Shipper<'a> {
    delivery: &'a Delivery,
    progress: watch::Receiver<Progress>,
    cursors: Vec<Cursor>,
    /// The cursor after the one that sent last, so that no log starves another.
    turn: usize,
    /// When the orchestrator last took something or was not there at all. After the job's end,
    /// standing still for too long while it answers means that the rest is never taken.
    moved: Instant,
}

/// How a stream ended.
enum End {
    /// All is delivered.
    Done,
    /// It stood still for too long.
    GaveUp,
    /// It broke.
    Broken(CallError),
}

impl<'a> Shipper<'a> {
    pub(super) fn new(delivery: &'a Delivery) -> Self {
        Self {
            delivery,
            progress: delivery.progress.clone(),
            cursors: Vec::new(),
            turn: 0,
            moved: Instant::now(),
        }
    }

    /// Ships until the spool is closed and all of it is durable, or the rest is given up. Tells what
    /// the logs must be.
    pub(super) async fn run(mut self) -> Result<Vec<LogSummary>, Fenced> {
        let mut tries = Tries::new("logs", self.delivery.timing.reconnect);
        loop {
            self.observe();
            if self.is_done() {
                return Ok(self.summary());
            }
            if self.first_chunk_due() {
                match self.connect_and_ship(&mut tries).await? {
                    End::Done => {}
                    End::GaveUp => return Ok(self.summary()),
                    End::Broken(error) => {
                        self.broken(&error);
                        if self.gave_up() {
                            return Ok(self.summary());
                        }
                        tries.failed(&self.delivery.attempt, error).await;
                    }
                }
            } else {
                self.progress.changed().await.map_err(|_| Fenced)?;
            }
        }
    }

    /// Takes in how far the spool is.
    fn observe(&mut self) {
        let progress = self.progress.borrow_and_update();
        for (index, log) in progress.logs.iter().enumerate() {
            if index == self.cursors.len() {
                self.cursors.push(Cursor::new(log.log.clone(), self.delivery.resumed));
            }
            self.cursors[index].observe(log.written, log.ended || progress.closed, Instant::now());
        }
        if !progress.closed {
            self.moved = Instant::now();
        }
    }

    fn is_closed(&self) -> bool {
        self.progress.borrow().closed
    }

    fn is_done(&self) -> bool {
        self.is_closed() && self.cursors.iter().all(Cursor::is_delivered)
    }

    fn first_chunk_due(&self) -> bool {
        self.cursors.iter().any(|cursor| !cursor.is_delivered())
    }

    fn gave_up(&self) -> bool {
        self.is_closed() && self.give_up_at() <= Instant::now()
    }

    fn give_up_at(&self) -> Instant {
        self.moved + self.delivery.timing.log_patience
    }

    /// After a broken stream nothing is on its way, and the orchestrator must be asked.
    fn broken(&mut self, error: &CallError) {
        self.cursors.iter_mut().for_each(Cursor::forget);
        if matches!(error, CallError::Unreachable(_)) {
            self.moved = Instant::now();
        }
    }

    async fn connect_and_ship(&mut self, tries: &mut Tries) -> Result<End, Fenced> {
        let Some(index) = self.cursors.iter().position(|cursor| !cursor.is_delivered()) else {
            return Ok(End::Done);
        };
        let first = match self.chunk(index).await {
            Ok(chunk) => chunk,
            Err(error) => return Ok(End::Broken(error)),
        };
        match self.delivery.link.open_log(self.delivery.attempt.id, first).await {
            Ok(stream) => self.ship(stream, tries).await,
            Err(CallError::Fenced(why)) => Err(self.fenced(&why)),
            Err(error) => Ok(End::Broken(error)),
        }
    }

    /// Sends and takes acks until the stream ends or nothing is left to say.
    async fn ship(&mut self, mut stream: LogStream, tries: &mut Tries) -> Result<End, Fenced> {
        let sender = stream.sender();
        loop {
            self.observe();
            if self.is_done() {
                return Ok(End::Done);
            }
            let now = Instant::now();
            let due = self.due(now);
            let flush = self.next_flush(now);
            let (closed, give_up) = (self.is_closed(), self.give_up_at());
            tokio::select! {
                ack = stream.ack() => match ack {
                    Ok(ack) => {
                        tries.worked();
                        self.take(&ack)?;
                    }
                    Err(CallError::Fenced(why)) => return Err(self.fenced(&why)),
                    Err(error) => return Ok(End::Broken(error)),
                },
                permit = sender.reserve(), if due.is_some() => {
                    let (Ok(permit), Some(index)) = (permit, due) else {
                        return Ok(End::Broken(CallError::Unreachable("it closed the stream".into())));
                    };
                    match self.chunk(index).await {
                        Ok(chunk) => permit.send(stream.message(chunk)),
                        Err(error) => return Ok(End::Broken(error)),
                    }
                }
                changed = self.progress.changed(), if !closed => changed.map_err(|_| Fenced)?,
                () = sleep_until(flush.unwrap_or(now + Duration::from_secs(3600))), if flush.is_some() => {}
                () = sleep_until(give_up), if closed => return Ok(End::GaveUp),
            }
        }
    }

    /// The next log that may send now.
    fn due(&self, now: Instant) -> Option<usize> {
        let count = self.cursors.len();
        let flush = self.delivery.timing.flush;
        (0..count).map(|n| (self.turn + n) % count).find(|index| self.cursors[*index].may_send(now, flush))
    }

    fn next_flush(&self, now: Instant) -> Option<Instant> {
        let flush = self.delivery.timing.flush;
        self.cursors.iter().filter_map(|cursor| cursor.flush_at(flush)).min().filter(|at| *at > now)
    }

    /// The next chunk of a log: a question, or what follows.
    async fn chunk(&mut self, index: usize) -> Result<Chunk, CallError> {
        self.turn = index + 1;
        let cursor = &mut self.cursors[index];
        let (log, offset) = (cursor.log.clone(), cursor.next_offset());
        let length = cursor.take();
        if length == 0 {
            return Ok(Chunk { log, offset, piece: Piece { data: Default::default(), times: Vec::new() } });
        }
        let (reader, folder) = (cursor.reader.clone(), self.delivery.folder.clone());
        let read = tokio::task::spawn_blocking(move || {
            let reader = match reader {
                Some(reader) => reader,
                None => Arc::new(LogReader::open(&folder, index)?),
            };
            let piece = reader.read(offset, length)?;
            std::io::Result::Ok((reader, piece))
        });
        let failed = |error: &dyn std::fmt::Display| CallError::Failed(format!("read the spool: {error}"));
        let (reader, piece) = read.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        self.cursors[index].reader = Some(reader);
        Ok(Chunk { log, offset, piece })
    }

    fn take(&mut self, ack: &Ack) -> Result<(), Fenced> {
        if ack.fenced {
            return Err(self.fenced("the orchestrator takes no more of its logs"));
        }
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.log == ack.log)
            && cursor.acked(ack.durable, ack.gap)
        {
            self.moved = Instant::now();
            self.delivery.attempt.deliver(self.cursors.iter().map(Cursor::durable).sum());
        }
        Ok(())
    }

    fn fenced(&self, why: &str) -> Fenced {
        tracing::warn!(attempt = %self.delivery.attempt.id, why, "the attempt is not ours any more; it is dropped");
        Fenced
    }

    fn summary(&self) -> Vec<LogSummary> {
        let progress = self.progress.borrow();
        let summary = |(index, log): (usize, &crate::spool::LogProgress)| {
            let durable = self.cursors.get(index).map_or(0, Cursor::durable);
            LogSummary {
                log: log.log.clone(),
                length: log.length,
                crc: log.crc,
                missing: log.length.saturating_sub(durable),
            }
        };
        progress.logs.iter().enumerate().map(summary).collect()
    }
}
