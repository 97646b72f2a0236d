//! Orders to give files to somebody: each is a walk in a process of its own, so that nothing else waits
//! for it, and its answer is kept for an engine that asks again.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use buildr_init::wire::{NewOwner, Owner, Report};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{
    own,
    sys::{self, Fork, Pid},
    user,
};

/// How many answers are kept.
const KEPT: usize = 64;

/// The number of an order, with the session that counts.
pub(crate) type Number = (u64, u64);

/// The walks that go on, and what came of those that have ended.
#[derive(Default)]
pub(crate) struct Owning {
    walks: Vec<Walk>,
    answers: VecDeque<(Number, Vec<String>)>,
}

struct Walk {
    number: Number,
    pid: Pid,
    result: OwnedFd,
    text: Vec<u8>,
}

impl Owning {
    /// Begins; an answer that there is at once is given.
    pub(crate) fn start(&mut self, number: Number, path: &str, from: &[u32], to: NewOwner) -> Option<Report> {
        let owner = match to {
            NewOwner::Ids(owner) => Ok(owner),
            NewOwner::Named(name) => user::resolve(&name).map(|user| Owner { uid: user.uid, gid: user.gid }),
        };
        let named = |error: io::Error| format!("start a process: {error}");
        match owner.and_then(|owner| Walk::start(number, path, from, owner).map_err(named)) {
            Ok(walk) => {
                self.walks.push(walk);
                None
            }
            Err(reason) => Some(self.answer(number, vec![reason])),
        }
    }

    /// What was answered before.
    pub(crate) fn answered(&self, number: Number) -> Option<Report> {
        let (_, errors) = self.answers.iter().find(|(answered, _)| *answered == number)?;
        Some(report(number, errors.clone()))
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (Number, BorrowedFd<'_>)> {
        self.walks.iter().map(|walk| (walk.number, walk.result.as_fd()))
    }

    /// The processes that walk.
    pub(crate) fn processes(&self) -> impl Iterator<Item = Pid> {
        self.walks.iter().map(|walk| walk.pid)
    }

    /// Reads what has come of a walk; gives its answer where that was all.
    pub(crate) fn read(&mut self, number: Number, buffer: &mut [u8]) -> Option<Report> {
        let at = self.walks.iter().position(|walk| walk.number == number)?;
        match rustix::io::read(&self.walks[at].result, &mut *buffer) {
            Ok(0) => {
                let walk = self.walks.swap_remove(at);
                let errors = serde_json::from_slice(&walk.text).unwrap_or_else(|_| {
                    vec!["the files were not all seen to: the process was killed".to_owned()]
                });
                Some(self.answer(number, errors))
            }
            Ok(length) => {
                self.walks[at].text.extend_from_slice(&buffer[..length]);
                None
            }
            Err(_) => None,
        }
    }

    fn answer(&mut self, number: Number, errors: Vec<String>) -> Report {
        if self.answers.len() == KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back((number, errors.clone()));
        report(number, errors)
    }
}

fn report((session, seq): Number, errors: Vec<String>) -> Report {
    Report::Owned { session, seq, errors }
}

impl Walk {
    fn start(number: Number, path: &str, from: &[u32], to: Owner) -> io::Result<Self> {
        let (result, into_result) = pipe_with(PipeFlags::CLOEXEC)?;
        match sys::fork()? {
            Fork::Parent(pid) => Ok(Self { number, pid, result, text: Vec::new() }),
            Fork::Child => {
                sys::set_name(c"buildr-own");
                if sys::place(&into_result, 0).is_err() {
                    sys::exit_now(1);
                }
                sys::close_from(1);
                let mut text = serde_json::to_vec(&own::give(path, from, to)).unwrap_or_default();
                while !text.is_empty() {
                    match rustix::io::write(io::stdin(), &text) {
                        Ok(written) => drop(text.drain(..written)),
                        Err(_) => sys::exit_now(1),
                    }
                }
                sys::exit_now(0)
            }
        }
    }
}
