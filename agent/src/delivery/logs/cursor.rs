//! How far one log is on its way. Pure: no I/O and no clock of its own.

use std::{sync::Arc, time::Duration};

use buildr_manifest::LogName;
use buildr_proto::MAX_CHUNK;
use tokio::time::Instant;

use crate::spool::LogReader;

/// The most bytes of a log that may be on their way.
const WINDOW: u64 = 4 << 20;

/// A log on its way: `durable <= sent <= written`.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) log: LogName,
    pub(super) reader: Option<Arc<LogReader>>,
    written: u64,
    ended: bool,
    sent: u64,
    durable: u64,
    place: Place,
    /// Since when there has been something unsent.
    unsent_since: Option<Instant>,
}

/// Whether it is known where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The orchestrator must be asked.
    Unknown,
    /// It was asked.
    Asked,
    /// It is known.
    Known,
}

impl Cursor {
    pub(super) fn new(log: LogName, resumed: bool) -> Self {
        let place = if resumed { Place::Unknown } else { Place::Known };
        Self { log, reader: None, written: 0, ended: false, sent: 0, durable: 0, place, unsent_since: None }
    }

    /// The log has this many bytes.
    pub(super) fn observe(&mut self, written: u64, ended: bool, now: Instant) {
        if written > self.written && self.unsent_since.is_none() {
            self.unsent_since = Some(now);
        }
        self.written = self.written.max(written);
        self.ended = ended;
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.durable >= self.written
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The stream broke: what was on its way may be lost.
    pub(super) fn forget(&mut self) {
        self.place = Place::Unknown;
        self.sent = self.durable;
        self.unsent_since = None;
    }

    /// Whether to send now: at once when nothing is on its way, a full chunk whenever the window has
    /// room, and otherwise when the oldest unsent byte has waited long enough.
    pub(super) fn may_send(&self, now: Instant, flush: Duration) -> bool {
        match self.place {
            Place::Unknown => !self.is_delivered(),
            Place::Asked => false,
            Place::Known => {
                let (pending, in_flight) = (self.written - self.sent, self.sent - self.durable);
                let worth = in_flight == 0
                    || pending >= MAX_CHUNK as u64
                    || self.ended
                    || self.unsent_since.is_none_or(|since| since + flush <= now);
                pending > 0 && in_flight < WINDOW && worth
            }
        }
    }

    /// When what is unsent must go, window permitting.
    pub(super) fn flush_at(&self, flush: Duration) -> Option<Instant> {
        let waits =
            self.place == Place::Known && self.written > self.sent && self.sent - self.durable < WINDOW;
        self.unsent_since.filter(|_| waits).map(|since| since + flush)
    }

    pub(super) fn next_offset(&self) -> u64 {
        self.sent
    }

    /// Counts the next chunk as sent and gives its length; 0 is the question where to go on.
    pub(super) fn take(&mut self) -> usize {
        if self.place == Place::Unknown {
            self.place = Place::Asked;
            return 0;
        }
        let length = (self.written - self.sent).min(MAX_CHUNK as u64);
        self.sent += length;
        if self.sent == self.written {
            self.unsent_since = None;
        }
        usize::try_from(length).expect("at most a chunk")
    }

    /// The orchestrator has everything below this; true if that is news. An answer to the question,
    /// or a gap, sets where to go on, also further back.
    pub(super) fn acked(&mut self, durable: u64, gap: bool) -> bool {
        let durable = durable.min(self.written);
        let news = durable != self.durable || self.place == Place::Asked;
        if gap || self.place == Place::Asked {
            self.place = Place::Known;
            (self.sent, self.durable) = (durable, durable);
            return news && !gap;
        }
        self.durable = self.durable.max(durable);
        self.sent = self.sent.max(self.durable);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_millis(50);

    fn cursor(resumed: bool) -> Cursor {
        Cursor::new(LogName::new("build").unwrap(), resumed)
    }

    #[test]
    fn an_idle_log_sends_its_first_byte_at_once() {
        let (mut log, now) = (cursor(false), Instant::now());
        assert!(!log.may_send(now, FLUSH));
        log.observe(1, false, now);
        assert!(log.may_send(now, FLUSH));
        assert_eq!(log.take(), 1);
    }

    #[test]
    fn new_bytes_never_restart_the_time_of_the_oldest() {
        let (mut log, now) = (cursor(false), Instant::now());
        log.observe(1, false, now);
        log.take();
        for n in 1..10 {
            log.observe(1 + n, false, now + Duration::from_millis(5 * n));
        }
        let due = now + Duration::from_millis(5) + FLUSH;
        assert_eq!(log.flush_at(FLUSH), Some(due));
        assert!(!log.may_send(due - Duration::from_millis(1), FLUSH));
        assert!(log.may_send(due, FLUSH));
    }

    #[test]
    fn what_is_on_its_way_is_bounded() {
        let (mut log, now) = (cursor(false), Instant::now());
        log.observe(1 << 30, false, now);
        let mut sent = 0;
        while log.may_send(now, FLUSH) {
            sent += log.take() as u64;
        }
        assert_eq!(sent, WINDOW);
        log.acked(MAX_CHUNK as u64, false);
        assert!(log.may_send(now, FLUSH));
    }

    #[test]
    fn after_a_break_the_orchestrator_says_where_to_go_on() {
        let (mut log, now) = (cursor(false), Instant::now());
        log.observe(100, false, now);
        log.take();
        log.acked(40, false);
        log.forget();
        assert!(log.may_send(now, FLUSH));
        assert_eq!((log.next_offset(), log.take()), (40, 0));
        assert!(!log.may_send(now, FLUSH));
        assert!(log.acked(60, false));
        assert_eq!((log.next_offset(), log.take()), (60, 40));
    }

    #[test]
    fn a_gap_sends_back_and_is_no_progress() {
        let (mut log, now) = (cursor(false), Instant::now());
        log.observe(100, false, now);
        log.take();
        assert!(!log.acked(0, true));
        assert_eq!((log.next_offset(), log.take()), (0, 100));
        assert!(log.acked(100, false));
        assert!(log.is_delivered());
    }

    #[test]
    fn an_ack_beyond_the_log_counts_as_all_of_it() {
        let (mut log, now) = (cursor(true), Instant::now());
        log.observe(10, true, now);
        assert_eq!(log.take(), 0);
        log.acked(1000, false);
        assert!(log.is_delivered());
        assert_eq!(log.durable(), 10);
    }
}
