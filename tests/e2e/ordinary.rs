//! `buildr run` by an ordinary user who may use Docker: the tree stays the user's, however a build ends,
//! and what a killed run has left goes with the next.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use rustix::process::{Signal, kill_process};

use crate::harness::{BUSYBOX, Process, Project, eventually, must};

/// Nobody of this machine's.
const USER: u32 = 23_456;

/// A user with a home, a project in it, and a copy of the program that the user may run.
struct Ordinary {
    home: tempfile::TempDir,
    project: Project,
}

impl Ordinary {
    fn new(manifest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let program = home.path().join("buildr");
        fs::copy(env!("CARGO_BIN_EXE_buildr"), &program).unwrap();
        let project = Project::with_manifest(manifest);
        for path in [home.path(), project.path()] {
            must("chown", &["-R", &format!("{USER}:{USER}"), path.to_str().unwrap()]);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { home, project }
    }

    fn start(&self) -> Process {
        let socket = fs::metadata("/var/run/docker.sock").unwrap().gid();
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), &format!("--groups={socket}")])
            .arg(self.home.path().join("buildr"))
            .arg("run")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home.path())
            .current_dir(self.project.path());
        Process::start(command)
    }

    /// What Docker knows this user's containers by.
    fn containers(&self) -> String {
        let owner = format!("label=buildr.agent=run:{}/.cache/buildr/run", self.home.path().display());
        must("docker", &["ps", "-aq", "--filter", &owner])
    }

    fn networks(&self) -> String {
        let owner = format!("label=buildr.agent=run:{}/.cache/buildr/run", self.home.path().display());
        must("docker", &["network", "ls", "-q", "--filter", &owner])
    }

    /// The files in the project and the home that are not the user's.
    fn foreign(&self) -> Vec<String> {
        let of = |path: &Path| {
            must("find", &[path.to_str().unwrap(), "!", "-uid", &USER.to_string()])
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        [of(self.project.path()), of(self.home.path())].concat()
    }

    fn runs(&self) -> usize {
        fs::read_dir(self.home.path().join(".cache/buildr/run/runs")).map_or(0, |entries| entries.count())
    }
}

/// A stage as root, one as another user, one in a container of its own; the last goes on as it likes.
fn manifest(last: &str) -> String {
    format!(
        "image: {BUSYBOX}\nstages: [root, dev, own, last]\nroot:\n  script: ['mkdir -p a/b; echo x > a/b/c; chmod 700 a']\n\
         dev:\n  user: '1000'\n  script: ['echo y > mine']\nown:\n  image: {BUSYBOX}\n  script: ['echo z > own']\n\
         last:\n  timeout: 20s\n  script: ['echo made > last; echo begun', '{last}']\n"
    )
}

#[test]
fn all_files_are_the_user_s_however_the_build_ends() {
    let ordinary = Ordinary::new(&manifest("true"));
    ordinary.start().wait().expect_code(0);
    assert_eq!((ordinary.foreign(), ordinary.runs()), (vec![], 0), "passed");

    let ordinary = Ordinary::new(&manifest("sleep 1000").replace("20s", "1s"));
    ordinary.start().wait().expect_code(5);
    assert_eq!((ordinary.foreign(), ordinary.runs()), (vec![], 0), "timed out");

    let ordinary = Ordinary::new(&manifest("sleep 1000"));
    let going = ordinary.start();
    going.line("begun");
    going.signal(Signal::INT);
    going.wait();
    assert_eq!((ordinary.foreign(), ordinary.runs()), (vec![], 0), "interrupted");
}

#[test]
fn all_files_are_the_user_s_after_a_kill_and_the_next_run_removes_the_rest() {
    let ordinary = Ordinary::new(&manifest("[ ! -f wait ] || sleep 1000"));
    ordinary.project.write("wait", "");
    let going = ordinary.start();
    going.line("begun");
    kill_process(going.pid(), Signal::KILL).unwrap();
    going.wait();
    // Init gives all back by itself.
    eventually("the files are given back", || ordinary.containers().is_empty().then_some(()));
    let foreign = ordinary.foreign();
    let runs = format!("{}/.cache", ordinary.home.path().display());
    assert!(foreign.iter().all(|path| path.starts_with(&runs)), "{foreign:?}");
    assert_eq!(ordinary.runs(), 1);
    fs::remove_file(ordinary.project.path().join("wait")).unwrap();
    ordinary.start().wait().expect_code(0);
    assert_eq!((ordinary.foreign(), ordinary.runs()), (vec![], 0));
}

#[test]
fn what_a_run_had_made_and_not_started_goes_with_the_next_run() {
    let services = format!("services:\n  db: {{image: '{BUSYBOX}', command: [sleep, '1000']}}\n");
    let ordinary = Ordinary::new(&format!("{services}{}", manifest("true")));
    let left = ordinary.start();
    // Killed as soon as there is anything of it.
    eventually("a network", || (!ordinary.networks().is_empty()).then_some(()));
    kill_process(left.pid(), Signal::KILL).unwrap();
    left.wait();
    ordinary
        .project
        .write(".buildr.yml", &format!("image: {BUSYBOX}\nstages: [a]\na: {{script: ['true']}}\n"));
    ordinary.start().wait().expect_code(0);
    eventually("nothing is left", || ordinary.containers().is_empty().then_some(()));
    assert_eq!((ordinary.networks(), ordinary.runs()), (String::new(), 0));
}
