//! Which commands were heard: each process of the engine counts its own, so that two that follow each
//! other cannot be mistaken for one, whatever of the first is still on its way when the second comes.

use std::collections::{BTreeSet, VecDeque};

use buildr_init::wire::Heard;

/// How many sessions are remembered; an engine that died is not heard of for long.
const KEPT: usize = 16;

/// The sessions, the one that spoke last at the end.
#[derive(Default)]
pub(crate) struct Sessions(VecDeque<Session>);

#[derive(Default)]
struct Session {
    id: u64,
    seen: Seen,
}

/// The numbers that were seen: all up to one, and some beyond it.
#[derive(Default)]
struct Seen {
    up_to: u64,
    beyond: BTreeSet<u64>,
}

impl Sessions {
    /// Takes note of a command; tells whether it is to be carried out, since it is the first with its
    /// number or has none.
    pub(crate) fn hear(&mut self, id: u64, seq: u64) -> bool {
        let known = self.0.iter().position(|session| session.id == id).and_then(|at| self.0.remove(at));
        let mut session = known.unwrap_or(Session { id, seen: Seen::default() });
        let first = seq == 0 || session.seen.insert(seq);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(session);
        first
    }

    /// What was heard of each.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.0.iter().map(|session| Heard { session: session.id, up_to: session.seen.up_to }).collect()
    }
}

impl Seen {
    /// Whether it is the first time.
    fn insert(&mut self, seq: u64) -> bool {
        if seq <= self.up_to || !self.beyond.insert(seq) {
            return false;
        }
        while self.beyond.remove(&(self.up_to + 1)) {
            self.up_to += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_heard_once_whatever_the_order() {
        let mut sessions = Sessions::default();
        let first: Vec<bool> = [1, 3, 3, 2, 1, 2, 4, 9].map(|seq| sessions.hear(7, seq)).into();
        assert_eq!(first, [true, true, false, true, false, false, true, true]);
        assert_eq!(sessions.heard(), [Heard { session: 7, up_to: 4 }]);
    }

    #[test]
    fn sessions_count_for_themselves_and_a_query_has_no_number() {
        let mut sessions = Sessions::default();
        assert!(sessions.hear(1, 1) && sessions.hear(2, 1) && !sessions.hear(1, 1));
        assert!(sessions.hear(2, 0) && sessions.hear(2, 0));
        let heard = [Heard { session: 1, up_to: 1 }, Heard { session: 2, up_to: 1 }];
        assert_eq!(sessions.heard(), heard);
    }

    #[test]
    fn no_more_sessions_are_kept_than_can_be_alive() {
        let mut sessions = Sessions::default();
        (0..1000).for_each(|id| assert!(sessions.hear(id, 1)));
        assert_eq!(sessions.heard().len(), KEPT);
        assert!(!sessions.hear(999, 1));
    }
}
