//! A container whose first process is init, and the other end of its line.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command as Program, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use buildr_init::wire::{Command, EndCause, Order, Report, Settings, StageEnd, StageSpec, StageStatus};
use tempfile::TempDir;

pub(crate) const BUSYBOX: &str = "buildr-test/busybox:1";
pub(crate) const DEBIAN: &str = "buildr-test/debian:1";

/// How long anything may take on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running container.
pub(crate) struct Container {
    pub(crate) folder: TempDir,
    name: String,
    docker: Child,
    input: Option<ChildStdin>,
    reports: Receiver<Report>,
    seq: u64,
    stages: u32,
    statuses: BTreeMap<u32, StageStatus>,
}

/// A stage that has ended, with what it printed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: StageStatus,
    pub(crate) end: StageEnd,
    pub(crate) log: Vec<u8>,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }
}

pub(crate) fn settings() -> Settings {
    Settings { exit_on_eof: true, dead_man: None, hand_back: None }
}

/// A stage as most tests want it; the number is filled in when it is started.
pub(crate) fn stage(script: &[&str]) -> StageSpec {
    let path = "/usr/local/bin:/usr/bin:/bin".to_owned();
    StageSpec {
        stage: 0,
        shell: vec!["sh".into(), "-e".into()],
        script: script.iter().map(|entry| (*entry).to_owned()).collect(),
        environment: BTreeMap::from([("PATH".to_owned(), path)]),
        workdir: "/".into(),
        user: String::new(),
        log_limit: 1 << 30,
    }
}

impl Container {
    pub(crate) fn new(image: &str) -> Self {
        Self::start(image, &settings(), &[])
    }

    /// A container with settings, and options of `docker run`.
    pub(crate) fn start(image: &str, settings: &Settings, options: &[&str]) -> Self {
        Self::start_with(image, settings, options, "/buildr")
    }

    /// Starts a container and takes init's first report.
    pub(crate) fn start_with(image: &str, settings: &Settings, options: &[&str], directory: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().expect("a folder for the control directory");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("buildr-init-test-{}-{number}", std::process::id());
        let mut docker = Program::new("docker")
            .args(["run", "-i", "--rm", "--log-driver", "none", "--network", "none", "--name", &name])
            .arg("-v")
            .arg(format!("{}:/buildr", folder.path().display()))
            .arg("-v")
            .arg(format!("{}:/buildr/init:ro", program().display()))
            .args(options)
            .args(["--entrypoint", "/buildr/init", image])
            .arg(serde_json::to_string(settings).expect("settings are JSON"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the docker program");
        let input = docker.stdin.take();
        let output = BufReader::new(docker.stdout.take().expect("a pipe was asked for"));
        let (sender, reports) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let report = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                if sender.send(report).is_err() {
                    return;
                }
            }
        });
        let statuses = BTreeMap::new();
        let mut container = Self { folder, name, docker, input, reports, seq: 0, stages: 0, statuses };
        let first = container.report();
        assert!(
            matches!(&first, Report::State { sessions, stages, .. } if sessions.is_empty() && stages.is_empty()),
            "{first:?}"
        );
        container
    }

    /// The next report, whatever it is.
    pub(crate) fn report(&mut self) -> Report {
        let report = match self.reports.recv_timeout(DEADLINE) {
            Ok(report) => report,
            Err(RecvTimeoutError::Timeout) => panic!("init is silent; known: {:?}", self.statuses),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("the container has ended (run scripts/test-images?)")
            }
        };
        if let Report::Stage(status) = &report {
            self.statuses.insert(status.stage, status.clone());
        }
        report
    }

    /// Waits for a report that fits.
    pub(crate) fn until<T>(&mut self, mut fits: impl FnMut(Report) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            let report = self.report();
            if let Some(found) = fits(report) {
                return found;
            }
        }
        panic!("what was waited for did not come; known: {:?}", self.statuses)
    }

    /// Bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("the line is open");
        input.write_all(bytes).and_then(|()| input.flush()).expect("init takes what is written");
    }

    pub(crate) fn send(&mut self, seq: u64, order: Order) {
        self.send_as(1, seq, order);
    }

    /// Sends a command of one of several sessions.
    pub(crate) fn send_as(&mut self, session: u64, seq: u64, order: Order) {
        let mut line = serde_json::to_vec(&Command { session, seq, order }).expect("commands are JSON");
        line.push(b'\n');
        self.write(&line);
    }

    /// Sends an order with the next number, which it gives.
    pub(crate) fn order(&mut self, order: Order) -> u64 {
        self.seq += 1;
        self.send(self.seq, order);
        self.seq
    }

    /// Starts a stage and gives its number.
    pub(crate) fn begin(&mut self, spec: StageSpec) -> u32 {
        let stage = self.stages;
        self.stages += 1;
        self.order(Order::Start(StageSpec { stage, ..spec }));
        stage
    }

    /// Waits until a stage has ended.
    pub(crate) fn done(&mut self, stage: u32) -> Done {
        let known =
            |statuses: &BTreeMap<u32, StageStatus>| statuses.get(&stage).filter(|s| s.end.is_some()).cloned();
        while known(&self.statuses).is_none() {
            self.report();
        }
        let status = known(&self.statuses).expect("it was just there");
        let log = fs::read(self.folder.path().join(format!("{stage}.log"))).unwrap_or_default();
        Done { end: status.end.clone().expect("it has ended"), status, log }
    }

    pub(crate) fn run(&mut self, spec: StageSpec) -> Done {
        let stage = self.begin(spec);
        self.done(stage)
    }

    /// Runs entries and expects that they pass; gives what they printed.
    pub(crate) fn check(&mut self, script: &[&str]) -> String {
        let done = self.run(stage(script));
        assert_eq!(done.end.cause, EndCause::Exit(0), "{script:?} {}", done.text());
        done.text()
    }

    /// Waits until a stage has printed a text.
    pub(crate) fn printed(&mut self, stage: u32, text: &str) {
        let path = self.folder.path().join(format!("{stage}.log"));
        while !fs::read_to_string(&path).is_ok_and(|log| log.contains(text)) {
            let status = self.statuses.get(&stage);
            assert!(status.is_none_or(|status| status.end.is_none()), "ended without {text:?}: {status:?}");
            self.report();
        }
    }

    pub(crate) fn stop(&mut self, stage: u32, grace: Duration) {
        self.order(Order::Stop { stage, grace });
    }

    /// Ends init's standard input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits until the container has ended; gives its exit code.
    pub(crate) fn exit_code(mut self) -> Option<i32> {
        while self.reports.recv_timeout(DEADLINE).is_ok() {}
        self.docker.wait().expect("the docker program ends").code()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.input = None;
        let _ = Program::new("docker")
            .args(["rm", "-f", &self.name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = self.docker.wait();
    }
}

/// The program, built as the engine's build script builds it.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("init");
        let mut cargo = Program::new(env!("CARGO"));
        for name in
            ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
        {
            cargo.env_remove(name);
        }
        let status = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "build",
                "--quiet",
                "--offline",
                "--bin",
                "buildr-init",
                "--profile",
                "init",
                "--target",
                &target,
            ])
            .arg("--target-dir")
            .arg(&folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .status()
            .expect("start cargo");
        assert!(status.success(), "building the static program failed");
        folder.join(target).join("init/buildr-init")
    })
}
