//! Who is whose child, from `/proc`: what a stage started, however it tried to get away.
//!
//! A process may leave its group, its session and its user, and its parent may die; it cannot leave
//! the tree below the stage's supervisor, to which orphans go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::sys::{self, Pid};

/// A process that is not yet gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) session: Pid,
    /// Ended, and waiting to be waited for.
    pub(crate) zombie: bool,
}

/// The processes of the container at one moment.
pub(crate) struct Snapshot(Vec<Process>);

impl Snapshot {
    /// Reads `/proc`. What ends meanwhile is left out.
    pub(crate) fn take() -> Self {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<Pid>().ok());
        Self(pids.filter_map(|pid| parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)).collect())
    }

    /// Children of a process.
    pub(crate) fn children(&self, parent: Pid) -> impl Iterator<Item = &Process> {
        self.0.iter().filter(move |process| process.parent == parent)
    }

    /// Everything that lives below any of `roots`, without them.
    pub(crate) fn below(&self, roots: &[Pid]) -> BTreeSet<Pid> {
        let mut children: BTreeMap<Pid, Vec<&Process>> = BTreeMap::new();
        for process in &self.0 {
            children.entry(process.parent).or_default().push(process);
        }
        let (mut found, mut waiting) = (BTreeSet::new(), roots.to_vec());
        let mut seen: BTreeSet<Pid> = roots.iter().copied().collect();
        while let Some(parent) = waiting.pop() {
            for process in children.get(&parent).into_iter().flatten() {
                if seen.insert(process.pid) {
                    waiting.push(process.pid);
                    if !process.zombie {
                        found.insert(process.pid);
                    }
                }
            }
        }
        found
    }

    /// Whether a process is there and has not ended.
    pub(crate) fn lives(&self, pid: Pid) -> bool {
        self.0.iter().any(|process| process.pid == pid && !process.zombie)
    }
}

/// Ends processes with a signal until a look around finds no new one, or too many tries were made
/// (a fork bomb wins a round, not the next). Gives how many were signalled.
pub(crate) fn signal_all(signal: i32, mut find: impl FnMut(&Snapshot) -> BTreeSet<Pid>) -> usize {
    const ROUNDS: usize = 20;
    let mut seen = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found = find(&Snapshot::take());
        let new: Vec<Pid> = found.difference(&seen).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            sys::kill(pid, signal);
            // A process that was stopped can now see to the signal.
            sys::kill(pid, libc::SIGCONT);
            seen.insert(pid);
        }
    }
    seen.len()
}

/// Reads `/proc/PID/stat`: `pid (name) state parent group session ...`, where the name may hold
/// anything, parentheses and line breaks included.
fn parse(stat: &[u8]) -> Option<Process> {
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let pid = std::str::from_utf8(&stat[..open]).ok()?.trim().parse().ok()?;
    let mut fields = std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process { pid, parent, session, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: Pid, parent: Pid) -> Process {
        Process { pid, parent, session: pid, zombie: false }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_trap() {
        let stat = b"42 (a) Z 1 (\n) S 7 42 9 0 -1 0";
        assert_eq!(parse(stat), Some(Process { pid: 42, parent: 7, session: 9, zombie: false }));
        assert_eq!(parse(b"42 (x) Z 7 42 9 0").map(|process| process.zombie), Some(true));
        assert_eq!(parse(b"nonsense"), None);
    }

    #[test]
    fn everything_below_is_found_and_nothing_else() {
        let mut dead = process(5, 3);
        dead.zombie = true;
        let snapshot =
            Snapshot(vec![process(2, 1), process(3, 2), process(4, 3), dead, process(6, 5), process(9, 1)]);
        assert_eq!(snapshot.below(&[2]), BTreeSet::from([3, 4, 6]));
        assert_eq!(snapshot.below(&[4, 9]), BTreeSet::new());
        assert!(!snapshot.lives(5) && snapshot.lives(6));
    }

    #[test]
    fn this_process_is_in_proc() {
        assert!(Snapshot::take().lives(std::process::id() as Pid));
    }
}
