//! What the stories are told with: repositories, the three programs as real processes, and ways to
//! wait for things with a deadline.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// busybox alone: ash as `/bin/sh`.
pub(crate) const BUSYBOX: &str = "buildr-test/busybox:1";
/// A minimal Debian with gcc, make and git: dash as `/bin/sh`.
pub(crate) const DEBIAN: &str = "buildr-test/debian:1";
/// The same with bash as `/bin/sh`.
pub(crate) const BASH: &str = "buildr-test/bash:1";

/// Nothing that a test waits for takes longer, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a state outside this process is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Asks until there is an answer; panics, naming what was waited for, after the deadline.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        thread::park_timeout(LOOK_AGAIN);
    }
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

impl Finished {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Panics with all that it printed unless it exited with this code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", tail(&self.out()), tail(&self.stderr));
        self
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(8000);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

/// A running program.
pub(crate) struct Process {
    child: Child,
    name: String,
    stdout: Option<thread::JoinHandle<Vec<u8>>>,
    // Shared by threads that tell the same story; a receiver alone cannot be.
    lines: Mutex<mpsc::Receiver<String>>,
    stderr: PathBuf,
    _scratch: TempDir,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let stderr = scratch.path().join("stderr");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut pipe = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let stdout = thread::spawn(move || {
            let mut all = Vec::new();
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).unwrap() > 0 {
                if line.len() < 1 << 16 {
                    sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).ok();
                }
                all.append(&mut line);
            }
            all
        });
        Self {
            child,
            name: format!("{command:?}"),
            stdout: Some(stdout),
            lines: Mutex::new(lines),
            stderr,
            _scratch: scratch,
        }
    }

    /// The next line on standard output that holds the text; lines before it are passed over.
    #[track_caller]
    pub(crate) fn line(&self, holding: &str) -> String {
        let began = Instant::now();
        let lines = self.lines.lock().unwrap();
        while let Ok(line) = lines.recv_timeout(DEADLINE.saturating_sub(began.elapsed())) {
            if line.contains(holding) {
                return line;
            }
        }
        panic!("{}: no line with '{holding}'; stderr:\n{}", self.name, tail(&self.stderr()));
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        let status = self.wait_status();
        let stdout = self.stdout.take().unwrap().join().unwrap();
        Finished { stdout, stderr: self.stderr(), code: exit_code(status) }
    }

    #[track_caller]
    fn wait_status(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > DEADLINE {
                self.child.kill().ok();
                panic!("{}: still runs after {DEADLINE:?}; stderr:\n{}", self.name, tail(&self.stderr()));
            }
            thread::park_timeout(LOOK_AGAIN / 4);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if thread::panicking() {
            eprintln!("---- {}\n{}", self.name, tail(&self.stderr()));
        }
    }
}

/// The code as a shell gives it: 128 and the signal's number where a signal ended the program.
fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A command that must succeed; its standard output.
#[track_caller]
pub(crate) fn must(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A folder with files, and a git repository where a test wants one.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    /// A folder with these files, not in git.
    pub(crate) fn folder(files: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// A git repository with one commit, on branch `main`.
    pub(crate) fn repository(files: &[(&str, &str)]) -> Self {
        let project = Self::folder(files);
        project.git(&["init", "-q", "-b", "main"]);
        project.commit("first");
        project
    }

    /// A repository with this manifest alone.
    pub(crate) fn with_manifest(manifest: &str) -> Self {
        Self::repository(&[(".buildr.yml", manifest)])
    }

    /// A repository whose only stage, `test`, has these entries.
    pub(crate) fn with_script(image: &str, entries: &[&str]) -> Self {
        Self::with_manifest(&manifest(image, &[("test", entries)]))
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let mut all = vec!["-C", self.path().to_str().unwrap()];
        all.extend(args);
        must("git", &all)
    }
}

/// A manifest with these stages; every entry becomes a block of its own, so any text is fine.
pub(crate) fn manifest(image: &str, stages: &[(&str, &[&str])]) -> String {
    let mut text = format!("image: {image}\nstages:\n");
    for (stage, _) in stages {
        text += &format!("  - {stage}\n");
    }
    for (stage, entries) in stages {
        text += &format!("{stage}:\n  script:\n");
        for entry in *entries {
            text += "    - |-\n";
            for line in entry.lines() {
                text += &format!("      {line}\n");
            }
        }
    }
    text
}

/// A user's home of its own, from which `buildr` is called.
pub(crate) struct Home {
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), environment: BTreeMap::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.to_owned(), value.into());
    }

    /// One of the three programs with nothing of this process's environment but the PATH.
    pub(crate) fn program(&self, path: &str, args: &[&str]) -> Command {
        let mut command = Command::new(path);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path())
            .env("LANG", "C.UTF-8")
            .envs(&self.environment)
            .current_dir(self.path());
        command
    }

    pub(crate) fn buildr(&self, args: &[&str]) -> Command {
        self.program(env!("CARGO_BIN_EXE_buildr"), args)
    }

    pub(crate) fn start(&self, args: &[&str]) -> Process {
        Process::start(self.buildr(args))
    }

    #[track_caller]
    pub(crate) fn call(&self, args: &[&str]) -> Finished {
        self.start(args).wait()
    }

    /// `buildr run` on a project.
    #[track_caller]
    pub(crate) fn run(&self, project: &Project) -> Finished {
        self.call(&["run", project.path().to_str().unwrap()])
    }
}

/// An orchestrator and agents, as real processes.
pub(crate) struct Farm {
    pub(crate) home: Home,
    pub(crate) address: String,
    // Agents are dropped, and so ended, before the orchestrator.
    pub(crate) agents: Vec<Process>,
    pub(crate) orchestrator: Option<Process>,
}

impl Farm {
    /// An orchestrator alone.
    pub(crate) fn without_agents() -> Self {
        let mut farm = Self {
            home: Home::new(),
            address: "127.0.0.1:0".to_owned(),
            agents: Vec::new(),
            orchestrator: None,
        };
        farm.start_orchestrator(&[]);
        farm
    }

    /// An orchestrator with one agent of two slots.
    pub(crate) fn new() -> Self {
        let mut farm = Self::without_agents();
        farm.start_agent("one", &[]);
        farm
    }

    /// Starts the orchestrator, on the address that it had before if there was one.
    pub(crate) fn start_orchestrator(&mut self, more: &[&str]) {
        let data = self.home.path().join("orchestrator");
        let mut args = vec!["--listen", &self.address, "--data", data.to_str().unwrap()];
        args.extend(more);
        let process = Process::start(self.home.program(env!("CARGO_BIN_EXE_buildr-orchestrator"), &args));
        let ready = process.line("ready ");
        self.address = ready.split(' ').nth(1).unwrap().to_owned();
        self.home.set("BUILDR_ORCHESTRATOR", &self.address);
        self.orchestrator = Some(process);
    }

    /// Starts an agent and waits until it has joined.
    pub(crate) fn start_agent(&mut self, name: &str, more: &[&str]) {
        let process = self.spawn_agent(name, more);
        process.line("ready ");
        self.agents.push(process);
    }

    /// Starts an agent.
    pub(crate) fn spawn_agent(&self, name: &str, more: &[&str]) -> Process {
        let data = self.home.path().join(format!("agent-{name}"));
        let mut args = vec!["--name", name, "--allow-file-urls", "--data", data.to_str().unwrap()];
        if !more.contains(&"--slots") {
            args.extend(["--slots", "2"]);
        }
        args.extend(more);
        Process::start(self.home.program(env!("CARGO_BIN_EXE_buildr-agent"), &args))
    }

    /// Submits a project's repository; the build's number.
    #[track_caller]
    pub(crate) fn submit(&self, project: &Project) -> String {
        self.submit_with(&["--repo", &project.url()])
    }

    /// `buildr submit` with these arguments; the build's number.
    #[track_caller]
    pub(crate) fn submit_with(&self, args: &[&str]) -> String {
        let mut all = vec!["submit", "--no-follow"];
        all.extend(args);
        self.home.call(&all).expect_code(0).out().trim().to_owned()
    }

    /// Follows a build to its end.
    #[track_caller]
    pub(crate) fn tail(&self, build: &str) -> Finished {
        self.home.call(&["tail", build])
    }

    /// `buildr show --json`.
    #[track_caller]
    pub(crate) fn show(&self, build: &str) -> Value {
        let shown = self.home.call(&["show", build, "--json"]).expect_code(0);
        serde_json::from_slice(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown.out()))
    }
}

impl Drop for Farm {
    /// Ends the agents first, gently, so that they clean up after themselves.
    fn drop(&mut self) {
        for mut agent in self.agents.drain(..).chain(self.orchestrator.take()) {
            if agent.is_running() {
                // A second one cancels what still runs; two at once can be one to who gets them.
                let began = Instant::now();
                while agent.is_running() && began.elapsed() < Duration::from_secs(30) {
                    agent.signal(Signal::TERM);
                    thread::park_timeout(LOOK_AGAIN);
                }
            }
        }
    }
}

/// All containers, running or not, that have something below this folder mounted: the project of a
/// local run, or the data of an agent.
pub(crate) fn containers(folder: &Path) -> Vec<String> {
    let holding = folder.to_str().unwrap();
    must("docker", &["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.Labels}} {{.Mounts}}"])
        .lines()
        .filter(|line| line.contains(holding))
        .map(str::to_owned)
        .collect()
}

/// Waits until no such container is left.
#[track_caller]
pub(crate) fn no_container_of(folder: &Path) {
    eventually(&format!("containers with {} are gone", folder.display()), || {
        containers(folder).is_empty().then_some(())
    });
}

/// An image that only one test uses; it is removed with this value.
pub(crate) struct OwnImage(pub(crate) String);

impl OwnImage {
    /// An image with changes, in the words of a Dockerfile.
    pub(crate) fn changed(image: &str, changes: &[&str]) -> Self {
        let scratch = tempfile::Builder::new().prefix("").rand_bytes(12).tempdir().unwrap();
        let random = scratch.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        let name = format!("buildr-test/own:{}-{random}", std::process::id());
        let container = must("docker", &["create", image, "true"]);
        let mut args = vec!["commit"];
        for change in changes {
            args.extend(["--change", change]);
        }
        args.extend([&container[..], &name[..]]);
        must("docker", &args);
        must("docker", &["rm", &container]);
        Self(name)
    }
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        Command::new("docker").args(["rmi", "-f", &self.0]).output().ok();
    }
}
