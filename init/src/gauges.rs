//! What the container has used: memory from its cgroup, of either version, and bytes of its network.
//!
//! The files are opened before anything of a build runs and only ever read through those
//! descriptors, so whatever a build mounts, links or writes in their place is never looked at, and
//! no read can wait.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    rc::Rc,
};

use buildr_init::wire::Traffic;

/// The most that is read of a file; more network devices than fit are more than a container has.
const MAX_FILE: usize = 64 << 10;

/// Where a container sees its own cgroup; version 1 has a folder for each kind of resource.
const OOM_KILLS: [&str; 2] = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
const PEAK: [&str; 2] = ["/sys/fs/cgroup/memory.peak", "/sys/fs/cgroup/memory/memory.max_usage_in_bytes"];

/// The open files; each is none where the container has none.
pub(crate) struct Gauges {
    oom_kills: Option<File>,
    peak: Option<File>,
    network: Option<File>,
}

/// The gauges, and what they said at some time.
pub(crate) struct Meter {
    gauges: Rc<Gauges>,
    oom_kills: u64,
    network: Option<Traffic>,
}

/// What was used since a [`Meter`] was started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) oom_kills: u64,
    /// Of the container's whole life so far.
    pub(crate) peak_memory: Option<u64>,
    pub(crate) network: Option<Traffic>,
}

impl Gauges {
    /// Opens what is there.
    pub(crate) fn open() -> Self {
        let first = |paths: [&str; 2]| paths.into_iter().find_map(open);
        Self { oom_kills: first(OOM_KILLS), peak: first(PEAK), network: open("/proc/net/dev") }
    }

    fn oom_kills(&self) -> u64 {
        read(self.oom_kills.as_ref()).and_then(|text| oom_kills(&text)).unwrap_or(0)
    }

    fn network(&self) -> Option<Traffic> {
        read(self.network.as_ref()).map(|text| traffic(&text))
    }
}

impl Meter {
    /// Starts to count.
    pub(crate) fn start(gauges: &Rc<Gauges>) -> Self {
        Self { gauges: Rc::clone(gauges), oom_kills: gauges.oom_kills(), network: gauges.network() }
    }

    /// What was used so far.
    pub(crate) fn read(&self) -> Used {
        let gauges = &self.gauges;
        let network = gauges.network().zip(self.network).map(|(now, before)| Traffic {
            received: now.received.saturating_sub(before.received),
            sent: now.sent.saturating_sub(before.sent),
        });
        Used {
            oom_kills: gauges.oom_kills().saturating_sub(self.oom_kills),
            peak_memory: read(gauges.peak.as_ref()).and_then(|text| text.trim().parse().ok()),
            network,
        }
    }
}

fn open(path: &str) -> Option<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// The text of a file as it is now.
fn read(file: Option<&File>) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while text.len() < MAX_FILE {
        match file?.read_at(&mut buffer, text.len() as u64).ok()? {
            0 => break,
            length => text.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8(text).ok()
}

/// The line `oom_kill N`, which both versions have.
fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// All devices of `/proc/net/dev` but the loopback: after the name come eight numbers on what was
/// received, bytes first, and as many on what was sent.
fn traffic(text: &str) -> Traffic {
    let devices = text.lines().filter_map(|line| line.split_once(':'));
    let others = devices.filter(|(name, _)| name.trim() != "lo");
    others.fold(Traffic::default(), |sum, (_, numbers)| {
        let mut numbers = numbers.split_ascii_whitespace().map(|number| number.parse().unwrap_or(0));
        let (received, sent) = (numbers.next().unwrap_or(0), numbers.nth(7).unwrap_or(0));
        Traffic { received: sum.received.saturating_add(received), sent: sum.sent.saturating_add(sent) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_found_in_both_versions() {
        let first = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        let second = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 4\noom_group_kill 1\n";
        assert_eq!((oom_kills(first), oom_kills(second), oom_kills("")), (Some(3), Some(4), None));
    }

    #[test]
    fn traffic_is_that_of_all_devices_but_the_loopback() {
        let text = "Inter-|   Receive        |  Transmit\n face |bytes packets|bytes packets\n    \
                    lo:  500  5 0 0 0 0 0 0  500 5 0 0 0 0 0 0\n  \
                    eth0: 200  2 0 0 0 0 0 0   70 1 0 0 0 0 0 0\n  \
                    eth1:1000 10 0 0 0 0 0 0    7 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), Traffic { received: 1200, sent: 77 });
        assert_eq!(traffic("no such thing: x\n"), Traffic::default());
    }

    #[test]
    fn a_meter_counts_from_its_start_and_takes_what_is_missing_for_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("kills"), "oom_kill 2\n").unwrap();
        std::fs::write(path("peak"), "4096\n").unwrap();
        let open = |name: &str| File::open(path(name)).ok();
        let gauges = Rc::new(Gauges { oom_kills: open("kills"), peak: open("peak"), network: open("none") });
        let meter = Meter::start(&gauges);
        std::fs::write(path("kills"), "oom_kill 5\n").unwrap();
        assert_eq!(meter.read(), Used { oom_kills: 3, peak_memory: Some(4096), network: None });
    }
}
