//! What was ordered and not yet answered: what goes out again over the next connection.

use std::collections::VecDeque;

use buildr_init::wire::{Command, Order};
use tokio::sync::oneshot;

/// An order, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) order: Order,
    pub(super) answer: Option<oneshot::Sender<Vec<String>>>,
}

/// The commands of one session, in their order.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    last: u64,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    command: Command,
    answer: Option<oneshot::Sender<Vec<String>>>,
}

impl Waiting {
    /// An acknowledgement is not enough: somebody waits for what came of it.
    fn needs_answer(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

impl Outstanding {
    /// Numbers an order.
    pub(super) fn add(&mut self, session: u64, sending: Sending) -> &Command {
        self.last += 1;
        let Sending { order, answer } = sending;
        self.waiting.push_back(Waiting { command: Command { session, seq: self.last, order }, answer });
        &self.waiting.back().expect("it was just added").command
    }

    /// Init has taken a command.
    pub(super) fn acknowledged(&mut self, seq: u64) {
        self.waiting.retain(|waiting| waiting.command.seq != seq || waiting.needs_answer());
    }

    /// Init has taken all commands up to one.
    pub(super) fn acknowledged_up_to(&mut self, seq: u64) {
        self.waiting.retain(|waiting| waiting.command.seq > seq || waiting.needs_answer());
    }

    /// Init has answered a command.
    pub(super) fn answered(&mut self, seq: u64, answer: Vec<String>) {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.command.seq == seq) else { return };
        if let Some(asker) = self.waiting.remove(at).and_then(|waiting| waiting.answer) {
            // Whoever asked may have gone.
            let _gone = asker.send(answer);
        }
    }

    /// All of it, oldest first.
    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.waiting.iter().map(|waiting| &waiting.command)
    }
}
