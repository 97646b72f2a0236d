//! How long the orchestrator has been silent, as it would count itself: since the agent *sent* the
//! last heartbeat that was answered. On a clock that goes on while the machine sleeps.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// So many heartbeats may wait for an answer; a session with more is given up anyway.
const UNANSWERED: usize = 64;

/// When the agent sent what was answered last. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lifeline(Arc<Mutex<Sent>>);

#[derive(Debug)]
struct Sent {
    /// The last one that was answered.
    answered: Duration,
    /// Those that were not yet, with their numbers.
    waiting: VecDeque<(u64, Duration)>,
}

impl Lifeline {
    /// One whose orchestrator is taken to be there now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Sent { answered: now(), waiting: VecDeque::new() })))
    }

    /// A new stream: its first message has number 0, and what went before gets no answer.
    pub fn opened(&self) {
        let mut sent = self.sent();
        sent.waiting.clear();
        sent.waiting.push_back((0, now()));
    }

    /// A message was sent that is to be answered.
    pub fn sent_now(&self, seq: u64) {
        let mut sent = self.sent();
        if sent.waiting.len() == UNANSWERED {
            sent.waiting.pop_front();
        }
        sent.waiting.push_back((seq, now()));
    }

    /// The answer to a message came.
    pub fn answered(&self, seq: u64) {
        let mut sent = self.sent();
        while let Some((first, at)) = sent.waiting.front().copied()
            && first <= seq
        {
            sent.waiting.pop_front();
            sent.answered = sent.answered.max(at);
        }
    }

    /// A process before this one had its last answer to what it sent then, since the machine was
    /// started; heard of in the beginning, before anything is sent.
    pub fn silent_since(&self, answered: Duration) {
        let mut sent = self.sent();
        sent.answered = sent.answered.min(answered);
    }

    /// When what was answered last was sent, since the machine was started.
    pub fn answered_at(&self) -> Duration {
        self.sent().answered
    }

    /// How long it has been.
    pub fn silence(&self) -> Duration {
        now().saturating_sub(self.sent().answered)
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Lifeline {
    fn default() -> Self {
        Self::new()
    }
}

/// Which start of the machine this is; none where the system does not say.
pub fn boot() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Since the machine was started, sleep included.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_from_when_its_question_was_sent() {
        let lifeline = Lifeline::new();
        lifeline.opened();
        lifeline.sent_now(1);
        let first = lifeline.sent().waiting[1].1;
        lifeline.sent_now(2);
        lifeline.answered(1);
        assert_eq!(lifeline.answered_at(), first);
        assert_eq!(lifeline.sent().waiting.len(), 1);
    }

    #[test]
    fn an_answer_to_nothing_and_a_stream_that_was_replaced_change_nothing() {
        let lifeline = Lifeline::new();
        let before = lifeline.answered_at();
        lifeline.answered(7);
        lifeline.sent_now(8);
        lifeline.opened();
        assert_eq!(lifeline.sent().waiting.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [0]);
        assert_eq!(lifeline.answered_at(), before);
    }
}
