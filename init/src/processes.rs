//! Who is whose child, from `/proc`: what a stage started, however it tried to get away.
//!
//! A process may leave its group, its session and its user, and its parent may die; it cannot leave
//! the tree below the stage's supervisor, to which orphans go. Where a build has killed that, there is
//! the mark: a limit that the kernel hands down to whatever a process starts and has had no use for
//! since its version 2.4. Without a capability that containers do not have it can be lowered, never
//! raised, so nobody loses it who does not mean to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use crate::{
    clock,
    sys::{self, Pid},
};

/// A process that is not yet gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Pid,
    pub(crate) group: Pid,
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

/// How many looks around are taken at once: a fork bomb may win one, not the next.
const ROUNDS: usize = 20;

/// Asks processes to end, each once, until a look around finds no new one or the time is up. Gives how
/// many were asked.
pub(crate) fn ask_all(until: Duration, mut find: impl FnMut(&Snapshot) -> BTreeSet<Pid>) -> usize {
    let mut asked = BTreeSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<Pid> = find(&Snapshot::take()).difference(&asked).copied().collect();
        for pid in &new {
            sys::kill(*pid, libc::SIGTERM);
            // A process that was stopped can now see to the signal.
            sys::kill(*pid, libc::SIGCONT);
        }
        asked.extend(&new);
        if new.is_empty() || clock::now() >= until {
            break;
        }
    }
    asked.len()
}

/// Ends processes until a look around finds no new one. Whole groups at a time, which the kernel does
/// in one go, so that those that fork faster than they can be counted have no time to.
pub(crate) fn kill_all(mut find: impl FnMut(&Snapshot) -> BTreeSet<Pid>) {
    let own = sys::own_group();
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS {
        let snapshot = Snapshot::take();
        let found = find(&snapshot);
        if found.is_subset(&killed) {
            return;
        }
        for process in snapshot.0.iter().filter(|process| found.contains(&process.pid)) {
            // All of a group are of one session, and all of a session are of one stage; but a shell that
            // has none of its own yet is still in ours.
            if process.group > 1 && process.group != own {
                sys::kill(-process.group, libc::SIGKILL);
            } else {
                sys::kill(process.pid, libc::SIGKILL);
            }
        }
        killed = found;
    }
}

/// What the mark of stage 0 is.
const MARK: u64 = 0x6275_696c << 32;

/// Marks this process and whatever it will start as those of a stage.
pub(crate) fn set_mark(stage: u32) {
    // Where it cannot be had, a stage is told from the others by its tree and its session alone.
    let _ = sys::limit_locks(MARK + u64::from(stage));
}

/// The stage whose mark a process has.
pub(crate) fn mark(pid: Pid) -> Option<u32> {
    parse_mark(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// Finds the mark in `/proc/PID/limits`: a name, the soft limit, the hard one, a unit.
fn parse_mark(limits: &str) -> Option<u32> {
    let numbers = limits.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    let hard: u64 = numbers.split_ascii_whitespace().nth(1)?.parse().ok()?;
    u32::try_from(hard.checked_sub(MARK)?).ok()
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
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, group, session, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: Pid, parent: Pid) -> Process {
        Process { pid, parent, group: pid, session: pid, zombie: false }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_trap() {
        let stat = b"42 (a) Z 1 (\n) S 7 42 9 0 -1 0";
        assert_eq!(parse(stat), Some(Process { pid: 42, parent: 7, group: 42, session: 9, zombie: false }));
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
    fn a_mark_is_the_hard_limit_and_nothing_below_or_beyond_is_one() {
        let limits = |hard: &str| {
            format!(
                "Limit   Soft   Hard   Units\nMax file size   1   2   bytes\nMax file locks   9   {hard}   locks\n"
            )
        };
        for (hard, stage) in
            [(MARK, Some(0)), (MARK + 7, Some(7)), (MARK - 1, None), (MARK + (1 << 32), None)]
        {
            assert_eq!(parse_mark(&limits(&hard.to_string())), stage);
        }
        assert_eq!((parse_mark(&limits("unlimited")), parse_mark("")), (None, None));
    }

    #[test]
    fn this_process_is_in_proc() {
        assert!(Snapshot::take().lives(std::process::id() as Pid));
    }
}
