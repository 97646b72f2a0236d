//! The line to the engine: commands in, reports out. It never waits: what the engine does not read
//! is kept as "there is news of this stage", not as bytes, so it cannot grow.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use buildr_init::wire::{Command, MAX_LINE, Report};

/// Answers that wait; beyond it the oldest are dropped, since an engine that misses one asks again.
const MAX_ANSWERS: usize = 1024;

/// Cuts a stream into lines. What is too long or no command is dropped.
#[derive(Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes a piece of the stream and gives the commands that it completes.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Vec<Command> {
        let mut commands = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n");
            self.push(text.unwrap_or(part));
            if text.is_some() {
                let line = std::mem::take(&mut self.line);
                if !std::mem::take(&mut self.too_long) {
                    commands.extend(serde_json::from_slice(&line));
                }
            }
        }
        commands
    }

    fn push(&mut self, part: &[u8]) {
        if self.too_long || self.line.len() + part.len() > MAX_LINE {
            self.too_long = true;
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(part);
        }
    }
}

/// Standard input and output.
pub(crate) struct Link {
    input: io::Stdin,
    output: io::Stdout,
    lines: Lines,
    sending: Vec<u8>,
    sent: usize,
    answers: VecDeque<Report>,
    state: bool,
    news: BTreeSet<u32>,
}

/// What came of reading.
pub(crate) enum Input {
    /// These commands; perhaps none yet.
    Commands(Vec<Command>),
    /// Nobody is at the other end now.
    End,
}

/// Where reports on the whole and on a stage come from at the moment that they are sent.
pub(crate) trait Source {
    /// [`Report::State`] as of now.
    fn state(&self) -> Report;
    /// [`Report::Stage`] as of now.
    fn stage(&self, number: u32) -> Option<Report>;
}

impl Link {
    /// The line of this process, which neither end may make wait.
    pub(crate) fn new() -> io::Result<Self> {
        let (input, output) = (io::stdin(), io::stdout());
        for end in [input.as_fd(), output.as_fd()] {
            let flags = rustix::fs::fcntl_getfl(end)?;
            rustix::fs::fcntl_setfl(end, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Self {
            input,
            output,
            lines: Lines::default(),
            sending: Vec::new(),
            sent: 0,
            answers: VecDeque::new(),
            state: true,
            news: BTreeSet::new(),
        })
    }

    /// To wait for commands.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// To wait until more can be sent.
    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Input {
        match rustix::io::read(&self.input, &mut *buffer) {
            Ok(0) => Input::End,
            Ok(length) => Input::Commands(self.lines.take(&buffer[..length])),
            Err(error) if error == rustix::io::Errno::AGAIN || error == rustix::io::Errno::INTR => {
                Input::Commands(Vec::new())
            }
            Err(_) => Input::End,
        }
    }

    /// The whole state is to be sent.
    pub(crate) fn want_state(&mut self) {
        self.state = true;
    }

    /// There is news of a stage.
    pub(crate) fn want_stage(&mut self, number: u32) {
        self.news.insert(number);
    }

    /// An answer is to be sent.
    pub(crate) fn answer(&mut self, report: Report) {
        if self.answers.len() == MAX_ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back(report);
    }

    /// Whether there is something to send.
    pub(crate) fn is_pending(&self) -> bool {
        self.sent < self.sending.len() || self.state || !self.answers.is_empty() || !self.news.is_empty()
    }

    /// Sends what can be sent without waiting. Where nobody reads any more, all is dropped.
    pub(crate) fn flush(&mut self, source: &impl Source) {
        while self.is_pending() {
            if self.sent == self.sending.len() {
                self.next(source);
            }
            match rustix::io::write(&self.output, &self.sending[self.sent..]) {
                Ok(written) => self.sent += written,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) if error == rustix::io::Errno::AGAIN => return,
                Err(_) => return self.clear(),
            }
        }
    }

    /// Chooses what to send next: the state first, since all else builds on it.
    fn next(&mut self, source: &impl Source) {
        self.sent = 0;
        self.sending.clear();
        let report = if std::mem::take(&mut self.state) {
            Some(source.state())
        } else if let Some(answer) = self.answers.pop_front() {
            Some(answer)
        } else {
            self.news.pop_first().and_then(|number| source.stage(number))
        };
        if let Some(report) = report
            && serde_json::to_writer(&mut self.sending, &report).is_ok()
        {
            self.sending.push(b'\n');
        }
    }

    fn clear(&mut self) {
        self.sending.clear();
        self.sent = 0;
        self.state = false;
        self.answers.clear();
        self.news.clear();
    }
}

#[cfg(test)]
mod tests {
    use buildr_init::wire::Order;

    use super::*;

    fn orders(lines: &mut Lines, text: &[u8]) -> Vec<u64> {
        lines.take(text).into_iter().map(|command| command.seq).collect()
    }

    #[test]
    fn a_command_may_come_in_pieces() {
        let mut lines = Lines::default();
        assert!(orders(&mut lines, b"{\"session\":1,\"seq\":1,\"ord").is_empty());
        assert_eq!(
            orders(&mut lines, b"er\":\"query\"}\n{\"session\":1,\"seq\":2,\"order\":\"exit\"}\n"),
            [1, 2]
        );
    }

    #[test]
    fn a_torn_frame_is_dropped() {
        let mut lines = Lines::default();
        assert_eq!(
            orders(
                &mut lines,
                b"{\"session\":1,\"seq\":1,\"order\":\"st\n\n{\"session\":1,\"seq\":2,\"order\":\"query\"}\n"
            ),
            [2]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_takes_no_memory() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            assert!(lines.take(&piece).is_empty());
            assert!(lines.line.len() <= MAX_LINE);
        }
        let commands = lines.take(b"\n{\"session\":1,\"seq\":0,\"order\":\"query\"}\n");
        assert_eq!(commands, [Command { session: 1, seq: 0, order: Order::Query }]);
    }
}
