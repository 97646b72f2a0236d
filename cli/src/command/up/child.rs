//! One of the programs that `buildr up` starts. It ends with its [`Child`], at the latest.

use std::{
    collections::VecDeque,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{self, ChildStdout, Command},
    task::JoinHandle,
};

use crate::{Error, render::escape::sanitize, screen::Screen};

/// So many of its last lines are shown when it ends by itself.
const LAST_LINES: usize = 5;

/// A running program.
pub(super) struct Child {
    name: &'static str,
    process: process::Child,
    out: Lines<BufReader<ChildStdout>>,
    /// Passes on its standard error; gives the last lines of it.
    listener: Option<JoinHandle<VecDeque<String>>>,
    running: bool,
}

impl Child {
    /// Starts a program in a process group of its own, so that Ctrl-C reaches this process alone,
    /// which then stops the programs in order.
    pub(super) fn start(
        program: &Path,
        name: &'static str,
        arguments: &[String],
        screen: Screen,
    ) -> Result<Self, Error> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::io(format!("start {}", program.display()), error))?;
        let out = process.stdout.take().expect("its standard output is a pipe");
        let err = process.stderr.take().expect("its standard error is a pipe");
        let listener = tokio::spawn(pass_on(err, name, screen));
        Ok(Self { name, process, out: BufReader::new(out).lines(), listener: Some(listener), running: true })
    }

    /// Waits for its `ready` line; gives the rest of that line.
    pub(super) async fn ready(&mut self) -> Result<String, Error> {
        while let Ok(Some(line)) = self.out.next_line().await {
            if let Some(rest) = line.strip_prefix("ready") {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(self.ended().await)
    }

    /// Waits for its end, and says how it came about. May be dropped and called again.
    pub(super) async fn ended(&mut self) -> Error {
        let status = self.process.wait().await;
        self.running = false;
        let last = match &mut self.listener {
            Some(listener) => listener.await.unwrap_or_default(),
            None => VecDeque::new(),
        };
        self.listener = None;
        let how = status.map_or_else(|error| error.to_string(), describe);
        let said = Vec::from(last).join("\n  ");
        Error::Program {
            what: format!("the {} ended by itself: {how}", self.name),
            hint: (!said.is_empty()).then(|| format!("its last words were\n  {said}")),
        }
    }

    /// True until its end was seen.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // No id: it was waited for already. A failure means the same.
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

async fn pass_on(from: impl AsyncRead + Unpin, name: &'static str, screen: Screen) -> VecDeque<String> {
    let mut lines = BufReader::new(from).lines();
    let mut last = VecDeque::new();
    while let Ok(Some(line)) = lines.next_line().await {
        let line = sanitize(&line);
        screen.say(&format!("[{name}] {line}"));
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    last
}
