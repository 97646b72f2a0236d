//! A stage while it runs and after: its output, its steps, its end.
//!
//! ```text
//! running ──shell ended──────────────────────────────► over
//!    │                                                  ▲
//!    └──stop, log full, log failed──► ending ──shell ended, nothing left──┘
//! ```
//!
//! A stage that is over may have left processes behind; they live on, and what they print is
//! dropped.

use std::{collections::BTreeSet, os::fd::OwnedFd, rc::Rc, time::Duration};

use buildr_init::wire::{EndCause, StageEnd, StageSpec, StageStatus};
use rustix::{
    io::Errno,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

use crate::{
    clock,
    control::{Control, Fifos},
    gauges::{Gauges, Meter},
    launch::{Launch, Word},
    line_reader::LineReader,
    log::{Appended, Log},
    processes::{self, Process, Snapshot},
    script,
    sys::{self, Ended, Pid, ProcessEnd, Usage},
    user,
};

/// What the pipe holds at most, where the kernel lets us ask for it.
const PIPE_SIZE: usize = 1 << 20;

/// How much is read of one stage before the others get their turn.
const TURN: usize = 4 << 20;

/// Between two looks for what is left of a stage that is being ended.
const LOOK: Duration = Duration::from_millis(20);

/// Between two reports of nothing but output.
const REPORT_STEP: Duration = Duration::from_millis(3);

/// Between TERM and KILL for a stage that has filled its log.
const LIMIT_GRACE: Duration = Duration::from_secs(2);

/// One stage.
pub(crate) struct Stage {
    /// All that is told of it.
    pub(crate) status: StageStatus,
    /// Who watches it; none once it is gone.
    pub(crate) supervisor: Option<Pid>,
    /// The shell's process, once it is known; it keeps its number here after its end.
    pub(crate) shell: Option<Pid>,
    steps_expected: usize,
    log: Option<Log>,
    output: Option<OwnedFd>,
    words: Option<LineReader>,
    marks: Option<Marks>,
    started: Duration,
    meter: Meter,
    cannot_start: Option<EndCause>,
    shell_end: Option<(ProcessEnd, Usage)>,
    ending: Option<Ending>,
    news: News,
}

/// Everything of a stage that others must not be hit by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// Supervisors and helpers, themselves.
    pub(crate) processes: BTreeSet<Pid>,
    /// Shells of other stages, with all of their sessions.
    pub(crate) sessions: BTreeSet<Pid>,
}

struct Marks {
    step: LineReader,
    go: OwnedFd,
}

struct Ending {
    kill_at: Duration,
    next_look: Duration,
    /// TERM has reached somebody: it is sent once, so that what cleans up after it is left alone.
    reached: bool,
    cause: Option<EndCause>,
    stopped: bool,
}

#[derive(Default)]
struct News {
    urgent: bool,
    output: bool,
    last: Option<Duration>,
}

/// Which of a stage's descriptors has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Output,
    Words,
    Marks,
}

impl Stage {
    /// Starts a stage. Where that fails, the stage is over at once.
    pub(crate) fn start(spec: &StageSpec, control: &Control, gauges: &Rc<Gauges>) -> Self {
        let mut stage = Self::new(spec, Meter::start(gauges));
        if let Err(reason) = stage.launch(spec, control) {
            stage.marks = None;
            stage.output = None;
            stage.cannot_start = Some(EndCause::CannotStart { reason, no_shell: false });
            stage.finish();
        }
        stage
    }

    fn new(spec: &StageSpec, meter: Meter) -> Self {
        Self {
            status: StageStatus { stage: spec.stage, log_bytes: 0, steps: Vec::new(), end: None },
            supervisor: None,
            shell: None,
            steps_expected: spec.script.len(),
            log: None,
            output: None,
            words: None,
            marks: None,
            started: clock::now(),
            meter,
            cannot_start: None,
            shell_end: None,
            ending: None,
            news: News { urgent: true, ..News::default() },
        }
    }

    fn launch(&mut self, spec: &StageSpec, control: &Control) -> Result<(), String> {
        let number = spec.stage;
        let (data, times) = (control.create(number, "log")?, control.create(number, "times")?);
        self.log = Some(Log::new(data, times, spec.log_limit));
        let identity = user::resolve(&spec.user)?;
        let (uid, gid) = (identity.uid, identity.gid);
        let Fifos { step, go } = control.fifos(number, uid, gid)?;
        control.create_for(number, "env", uid, gid)?;
        let text = script::generate(&spec.script, &control.path(number, "step"), &control.path(number, "go"));
        let file = control.create(number, "sh")?;
        std::io::Write::write_all(&mut &file, text.as_bytes())
            .map_err(|error| format!("write the script: {error}"))?;
        let launch = Launch::prepare(spec, identity, control.path(number, "sh"))?;
        let name = |error: Errno| format!("make a pipe: {error}");
        let (output, into_output) = pipe_with(PipeFlags::CLOEXEC).map_err(name)?;
        let (words, into_words) = pipe_with(PipeFlags::CLOEXEC).map_err(name)?;
        for end in [&output, &words] {
            rustix::fs::fcntl_setfl(end, rustix::fs::OFlags::NONBLOCK).map_err(name)?;
        }
        // A smaller pipe is slower, no more.
        let _ = fcntl_setpipe_size(&output, PIPE_SIZE);
        // So that `/dev/stderr`, which is this pipe, can be opened by name.
        sys::own_descriptor(&into_output, uid, gid)
            .map_err(|error| format!("give the output away: {error}"))?;
        self.supervisor = Some(
            launch.start(&into_output, into_words).map_err(|error| format!("start a process: {error}"))?,
        );
        self.output = Some(output);
        self.words = Some(LineReader::new(words));
        self.marks = Some(Marks { step: LineReader::new(step), go });
        Ok(())
    }

    /// It has ended, and its end was told.
    pub(crate) fn is_over(&self) -> bool {
        self.status.end.is_some()
    }

    /// It can still have news.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_over() || self.news.urgent
    }

    /// Lets its supervisor go on, which a build's `kill -STOP -1` has stopped with all else.
    pub(crate) fn wake_supervisor(&self) {
        if let Some(supervisor) = self.supervisor {
            sys::kill(supervisor, libc::SIGCONT);
        }
    }

    /// What to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = (Part, &OwnedFd)> {
        let output = self.output.as_ref().map(|output| (Part::Output, output));
        let words = self.words.as_ref().map(|words| (Part::Words, &words.descriptor));
        let marks = self.marks.as_ref().map(|marks| (Part::Marks, &marks.step.descriptor));
        [output, words, marks].into_iter().flatten()
    }

    /// When to look again without being asked.
    pub(crate) fn wake_at(&self) -> Option<Duration> {
        let report = (self.news.output && !self.is_over())
            .then(|| self.news.last.map_or(Duration::ZERO, |last| last + REPORT_STEP));
        let look = self.ending.as_ref().filter(|_| !self.is_over()).map(|ending| ending.next_look);
        [report, look].into_iter().flatten().min()
    }

    /// Whether a report is due now; it is then taken to be made.
    pub(crate) fn take_news(&mut self, now: Duration) -> bool {
        let due = self.news.urgent
            || (self.news.output && self.news.last.is_none_or(|last| now >= last + REPORT_STEP));
        if due {
            self.news = News { urgent: false, output: false, last: Some(now) };
        }
        due
    }

    /// Something has come.
    pub(crate) fn ready(&mut self, part: Part, buffer: &mut [u8]) {
        match part {
            Part::Output => self.read_output(TURN, buffer),
            Part::Words => self.read_words(),
            Part::Marks => self.read_marks(buffer),
        }
    }

    /// Reads up to `most` bytes of what is there.
    fn read_output(&mut self, most: usize, buffer: &mut [u8]) {
        let mut left = most;
        while left > 0 {
            let Some(output) = &self.output else { return };
            let wanted = left.min(buffer.len());
            match rustix::io::read(output, &mut buffer[..wanted]) {
                Ok(0) => self.output = None,
                Ok(length) => {
                    self.keep(&buffer[..length]);
                    left -= length;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// Reads what is in the pipe now, and not what comes while it is read.
    fn drain(&mut self, buffer: &mut [u8]) {
        let waiting = self.output.as_ref().and_then(|output| rustix::io::ioctl_fionread(output).ok());
        self.read_output(usize::try_from(waiting.unwrap_or(0)).unwrap_or(0), buffer);
    }

    fn keep(&mut self, piece: &[u8]) {
        let failing = self.ending.as_ref().is_some_and(|ending| ending.cause.is_some());
        let Some(log) = self.log.as_mut().filter(|_| !failing && self.status.end.is_none()) else { return };
        let result = log.append(piece);
        self.status.log_bytes = log.length();
        self.news.output = true;
        match result {
            Ok(Appended::Whole) => {}
            Ok(Appended::Full) => self.end_because(EndCause::LogLimit),
            Err(error) => self.end_because(EndCause::LogFailed { reason: format!("write the log: {error}") }),
        }
    }

    fn read_words(&mut self) {
        let Some(words) = &mut self.words else { return };
        let (lines, open) = words.read();
        if !open {
            self.words = None;
        }
        for line in lines {
            match std::str::from_utf8(&line).ok().and_then(Word::parse) {
                Some(Word::Shell(pid)) => self.shell = Some(pid),
                Some(Word::Failed { no_shell, reason }) => {
                    self.cannot_start = Some(EndCause::CannotStart { reason, no_shell });
                }
                Some(Word::Ended(end, usage)) => self.shell_end = Some((end, usage)),
                None => {}
            }
        }
    }

    fn read_marks(&mut self, buffer: &mut [u8]) {
        let Some(marks) = &mut self.marks else { return };
        let numbers: Vec<usize> =
            marks.step.read().0.iter().filter_map(|line| script::parse_mark(line)).collect();
        for number in numbers {
            self.drain(buffer);
            // A mark that was lost began no later than the one after it.
            while self.status.steps.len() <= number && number < self.steps_expected {
                self.status.steps.push(self.status.log_bytes);
                self.news.urgent = true;
            }
            self.go_on();
        }
    }

    /// Lets the script go on. An answer that nobody took, since a signal came between, is thrown
    /// away first.
    fn go_on(&self) {
        if let Some(marks) = &self.marks {
            let mut stale = [0; 64];
            while rustix::io::read(&marks.go, &mut stale).is_ok_and(|length| length > 0) {}
            let _ = rustix::io::write(&marks.go, b"\n");
        }
    }

    /// A child of init has ended; perhaps one of this stage's.
    pub(crate) fn reaped(&mut self, ended: &Ended) {
        self.read_words();
        if self.supervisor == Some(ended.pid) {
            self.supervisor = None;
            if self.shell_end.is_none() && !self.shell.is_some_and(sys::is_child) {
                self.shell_lost();
            }
        } else if self.shell == Some(ended.pid) && self.shell_end.is_none() {
            self.shell_end = Some((ended.end, ended.usage));
        }
    }

    /// Nobody is left who could tell how the shell ended.
    fn shell_lost(&mut self) {
        if self.shell.is_none() && self.cannot_start.is_none() {
            let reason = "the stage's supervisor was killed before its shell ran".to_owned();
            self.cannot_start = Some(EndCause::CannotStart { reason, no_shell: false });
        }
        self.shell_end = Some((ProcessEnd::Signal(libc::SIGKILL), Usage::default()));
    }

    /// [`buildr_init::wire::Order::Stop`]; the signals follow at the next look, which is due now.
    pub(crate) fn stop(&mut self, grace: Duration) {
        if self.is_over() {
            return;
        }
        let kill_at = clock::now().saturating_add(grace);
        let ending = self.ending.get_or_insert(Ending::new(kill_at));
        ending.stopped = true;
        ending.kill_at = ending.kill_at.min(kill_at);
        ending.next_look = Duration::ZERO;
    }

    /// The stage ends by no doing of its shell's.
    fn end_because(&mut self, cause: EndCause) {
        let kill_at = clock::now() + LIMIT_GRACE;
        let ending = self.ending.get_or_insert(Ending::new(kill_at));
        ending.cause = Some(cause);
        ending.kill_at = ending.kill_at.min(kill_at);
        ending.next_look = Duration::ZERO;
        self.news.urgent = true;
    }

    /// Marks it as stopped: the container ends.
    pub(crate) fn container_ends(&mut self) {
        self.ending.get_or_insert(Ending::new(clock::now())).stopped = true;
    }

    /// Goes on with ending it, and sees whether it is over.
    pub(crate) fn tick(&mut self, others: &Others, buffer: &mut [u8]) {
        if self.is_over() {
            return;
        }
        let left = self.ending.is_some() && self.end(others);
        if self.shell_end.is_some() && !left {
            self.drain(buffer);
            self.finish();
        }
    }

    /// Sends the signal that is due; gives whether something of the stage is left.
    fn end(&mut self, others: &Others) -> bool {
        let now = clock::now();
        let Some(ending) = &mut self.ending else { return false };
        if now < ending.next_look && self.shell_end.is_none() {
            return true;
        }
        ending.next_look = now + LOOK;
        let (kill, term) = (now >= ending.kill_at, !ending.reached);
        let kill_at = ending.kill_at;
        self.wake_supervisor();
        if kill {
            processes::kill_all(|snapshot| self.left(snapshot, others));
        } else if term {
            let reached = processes::ask_all(kill_at, |snapshot| self.left(snapshot, others)) > 0;
            self.ending.iter_mut().for_each(|ending| ending.reached = reached);
        }
        self.supervisor.is_some() || !self.left(&Snapshot::take(), others).is_empty()
    }

    /// What lives of it: everything below its supervisor; where a build has killed that, its orphans,
    /// which have come to init, and what is below them.
    fn left(&self, snapshot: &Snapshot, others: &Others) -> BTreeSet<Pid> {
        if let Some(supervisor) = self.supervisor {
            return snapshot.below(&[supervisor]);
        }
        let own = Pid::try_from(std::process::id()).unwrap_or(1);
        let orphans = snapshot.children(own).filter(|orphan| self.owns(orphan, others));
        let roots: Vec<Pid> = orphans.map(|orphan| orphan.pid).collect();
        let mut found = snapshot.below(&roots);
        found.extend(roots.into_iter().filter(|pid| snapshot.lives(*pid)));
        found
    }

    /// Whether an orphan is of this stage, which has lost its supervisor. One that has thrown its mark
    /// away is, unless its session says that it is another's.
    fn owns(&self, orphan: &Process, others: &Others) -> bool {
        if others.processes.contains(&orphan.pid) {
            return false;
        }
        match processes::mark(orphan.pid) {
            Some(stage) => stage == self.status.stage,
            None => !others.sessions.contains(&orphan.session),
        }
    }

    /// Writes its end down.
    fn finish(&mut self) {
        let (end, usage) = self.shell_end.unwrap_or((ProcessEnd::Exit(127), Usage::default()));
        let (forced, stopped) =
            self.ending.take().map_or((None, false), |ending| (ending.cause, ending.stopped));
        let own = match end {
            ProcessEnd::Exit(code) => EndCause::Exit(code),
            ProcessEnd::Signal(signal) => EndCause::Signal(signal),
        };
        let used = self.meter.read();
        self.status.end = Some(StageEnd {
            cause: forced.or(self.cannot_start.take()).unwrap_or(own),
            stopped,
            duration: clock::now().saturating_sub(self.started),
            user_cpu: usage.user,
            system_cpu: usage.system,
            max_rss: usage.max_rss,
            oom_kills: used.oom_kills,
            peak_memory: used.peak_memory,
            network: used.network,
        });
        self.log = None;
        self.marks = None;
        self.news.urgent = true;
    }
}

impl Ending {
    fn new(kill_at: Duration) -> Self {
        Self { kill_at, next_look: Duration::ZERO, reached: false, cause: None, stopped: false }
    }
}
