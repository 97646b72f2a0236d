//! What tests of the parts that speak to Docker stand on. Only in tests.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

use crate::{RunId, docker::Daemon, labels};

/// A run that nobody else has, in this machine's Docker. All of it is removed at the end.
pub(crate) struct Fixture {
    pub(crate) daemon: Daemon,
    pub(crate) owner: String,
    pub(crate) run: RunId,
    pub(crate) folder: TempDir,
}

/// An image made out of busybox, removed with the test.
pub(crate) struct DerivedImage {
    pub(crate) name: String,
}

impl DerivedImage {
    /// By `docker commit --change`.
    pub(crate) fn new(changes: &[&str]) -> Self {
        images();
        let name = format!("buildr-test/engine-{}:1", unique());
        let container = docker(&["create", Fixture::BUSYBOX, "true"]);
        let changes: Vec<_> = changes.iter().flat_map(|change| ["--change", change]).collect();
        docker(&[&["commit"], &changes[..], &[container.trim(), &name]].concat());
        docker(&["rm", container.trim()]);
        Self { name }
    }
}

impl Drop for DerivedImage {
    fn drop(&mut self) {
        let _left = Command::new("docker").args(["rmi", "-f", &self.name]).stdout(Stdio::null()).status();
    }
}

/// A container that is no run's.
pub(crate) struct Foreign(String);

impl Fixture {
    pub(crate) const BUSYBOX: &str = "buildr-test/busybox:1";

    pub(crate) async fn new() -> Self {
        images();
        Self {
            daemon: Daemon::connect(None).await.unwrap(),
            owner: format!("test-{}", unique()),
            run: RunId::new(format!("t{}", unique())).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a container of busybox that sleeps and has no labels.
    pub(crate) fn foreign_container(&self, arguments: &[&str]) -> Foreign {
        let all = [&["run", "-d"], arguments, &[Self::BUSYBOX, "sleep", "1000"]].concat();
        Foreign(docker(&all).trim().to_owned())
    }

    /// Makes a volume with the run's labels.
    pub(crate) fn volume(&self) -> String {
        let owner = format!("{}={}", labels::OWNER, self.owner);
        let run = format!("{}={}", labels::RUN, self.run);
        docker(&["volume", "create", "--label", &owner, "--label", &run]).trim().to_owned()
    }

    fn ids(&self, list: &[&str]) -> Vec<String> {
        let owner = format!("label={}={}", labels::OWNER, self.owner);
        let found = docker(&[list, &["-q", "--filter", &owner]].concat());
        found.lines().map(str::to_owned).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for (list, remove) in [
            (&["ps", "-a"][..], &["rm", "-fv"][..]),
            (&["network", "ls"], &["network", "rm"]),
            (&["volume", "ls"], &["volume", "rm"]),
        ] {
            let ids = self.ids(list);
            if !ids.is_empty() {
                let all = remove.iter().copied().chain(ids.iter().map(String::as_str));
                let _left = Command::new("docker").args(all).stdout(Stdio::null()).status();
            }
        }
    }
}

impl Foreign {
    pub(crate) fn id(&self) -> &str {
        &self.0
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _left = Command::new("docker").args(["rm", "-f", &self.0]).stdout(Stdio::null()).status();
    }
}

/// Runs the docker program and gives what it says.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// A name that no other test of this machine has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("u{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Makes the test images, once.
fn images() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-images");
        let status = Command::new(script).arg("busybox").stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "the test images can be made");
    });
}
