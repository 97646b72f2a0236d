//! The one loop: waits for whatever comes first, sees to it, and never waits for anything else.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use buildr_init::wire::{Command, Order, Report, Settings, StageSpec, VERSION};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    clock,
    control::Control,
    gauges::Gauges,
    link::{Input, Link, Source},
    own,
    owning::{Number, Owning},
    processes::{self, Snapshot},
    sessions::Sessions,
    stage::{Others, Part, Stage},
    sys::{self, Pid},
};

/// The longest that the loop sleeps: a machine that was asleep notices its dead man's time then.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// How often to see whether an input that ended has somebody at its other end again.
const INPUT_RETRY: Duration = Duration::from_secs(1);

/// How long what was killed may take to be gone.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// How long the engine may take to read the last reports.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The program.
pub(crate) struct Server {
    settings: Settings,
    control: Control,
    gauges: Rc<Gauges>,
    link: Link,
    children: OwnedFd,
    world: World,
    owning: Owning,
    sign_of_life: Duration,
    input_again: Option<Duration>,
    buffer: Vec<u8>,
    leaving: bool,
}

/// What reports are made from.
#[derive(Default)]
struct World {
    stages: BTreeMap<u32, Stage>,
    sessions: Sessions,
}

/// What the poll found.
#[derive(Clone, Copy)]
enum Ready {
    Input,
    Output,
    Children,
    Stage(u32, Part),
    Owning(Number),
}

impl Source for World {
    fn state(&self) -> Report {
        let stages = self.stages.values().map(|stage| stage.status.clone()).collect();
        Report::State { version: VERSION, sessions: self.sessions.heard(), stages }
    }

    fn stage(&self, number: u32) -> Option<Report> {
        self.stages.get(&number).map(|stage| Report::Stage(stage.status.clone()))
    }
}

impl World {
    /// Whom the signals for a stage must not hit.
    fn others(&self, number: u32, helpers: impl Iterator<Item = Pid>) -> Others {
        let others = self.stages.values().filter(|stage| stage.status.stage != number);
        let supervisors = self.stages.values().filter_map(|stage| stage.supervisor);
        Others {
            processes: supervisors.chain(helpers).collect(),
            sessions: others.filter_map(|stage| stage.shell).collect(),
        }
    }
}

impl Server {
    /// Takes over: signals, standard input and output, the control directory.
    pub(crate) fn start(settings: Settings, directory: &str) -> Result<Self, String> {
        let named = |what: String| move |error: io::Error| format!("{what}: {error}");
        let children = sys::block_signals().map_err(named("block signals".into()))?;
        sys::become_subreaper().map_err(named("become the parent of orphans".into()))?;
        Ok(Self {
            settings,
            control: Control::open(directory).map_err(named(format!("open {directory}")))?,
            gauges: Rc::new(Gauges::open()),
            link: Link::new().map_err(named("open standard input and output".into()))?,
            children,
            world: World::default(),
            owning: Owning::default(),
            sign_of_life: clock::now(),
            input_again: None,
            buffer: vec![0; 256 << 10],
            leaving: false,
        })
    }

    /// Runs until it is told to end, or has to.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.leaving {
            self.tick();
            self.link.flush(&self.world);
            for ready in self.wait()? {
                self.handle(ready);
            }
            self.look_at_the_clock();
        }
        self.leave();
        Ok(())
    }

    /// Sleeps until something is ready or due.
    fn wait(&self) -> io::Result<Vec<Ready>> {
        let mut wanted: Vec<(Ready, BorrowedFd<'_>, PollFlags)> =
            vec![(Ready::Children, self.children.as_fd(), PollFlags::IN)];
        if self.input_again.is_none() {
            wanted.push((Ready::Input, self.link.input(), PollFlags::IN));
        }
        if self.link.is_pending() {
            wanted.push((Ready::Output, self.link.output(), PollFlags::OUT));
        }
        for (number, stage) in &self.world.stages {
            let parts = stage.descriptors();
            wanted.extend(parts.map(|(part, fd)| (Ready::Stage(*number, part), fd.as_fd(), PollFlags::IN)));
        }
        let walks = self.owning.descriptors();
        wanted.extend(walks.map(|(number, fd)| (Ready::Owning(number), fd, PollFlags::IN)));
        let mut fds: Vec<PollFd<'_>> =
            wanted.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        match poll(&mut fds, Some(&timeout(self.sleep()))) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let found = wanted.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(found.map(|((ready, ..), _)| *ready).collect())
    }

    fn sleep(&self) -> Duration {
        let stages = self.world.stages.values().filter_map(Stage::wake_at);
        let dead_man = self.settings.dead_man.map(|time| self.sign_of_life.saturating_add(time));
        let due = stages.chain(dead_man).chain(self.input_again).min();
        due.map_or(LONGEST_SLEEP, |due| due.saturating_sub(clock::now()).min(LONGEST_SLEEP))
    }

    fn handle(&mut self, ready: Ready) {
        match ready {
            Ready::Input => self.read_input(),
            // The loop flushes at each turn.
            Ready::Output => {}
            Ready::Children => drop(self.reap()),
            Ready::Stage(number, part) => {
                if let Some(stage) = self.world.stages.get_mut(&number) {
                    stage.ready(part, &mut self.buffer);
                }
            }
            Ready::Owning(number) => {
                let answer = self.owning.read(number, &mut self.buffer);
                answer.into_iter().for_each(|answer| self.link.answer(answer));
            }
        }
    }

    fn read_input(&mut self) {
        match self.link.read(&mut self.buffer) {
            Input::Commands(commands) => {
                self.input_again = None;
                commands.into_iter().for_each(|command| self.obey(command));
            }
            Input::End if self.settings.exit_on_eof => self.leaving = true,
            Input::End => self.input_again = Some(clock::now() + INPUT_RETRY),
        }
    }

    fn look_at_the_clock(&mut self) {
        let now = clock::now();
        if self.input_again.is_some_and(|again| now >= again) {
            self.read_input();
        }
        if self.settings.dead_man.is_some_and(|time| now >= self.sign_of_life.saturating_add(time)) {
            self.leaving = true;
        }
    }

    /// Carries a command out, unless it was carried out before.
    fn obey(&mut self, command: Command) {
        self.sign_of_life = clock::now();
        let Command { session, seq, order } = command;
        if self.world.sessions.hear(session, seq) {
            self.carry_out((session, seq), order);
        } else if let Some(answer) = self.owning.answered((session, seq)) {
            self.link.answer(answer);
        }
        if seq != 0 {
            self.link.answer(Report::Ack { session, seq });
        }
    }

    fn carry_out(&mut self, number: Number, order: Order) {
        match order {
            Order::Query => self.link.want_state(),
            Order::Start(spec) => self.start_stage(&spec),
            Order::Stop { stage, grace } => {
                if let Some(stage) = self.world.stages.get_mut(&stage) {
                    stage.stop(grace);
                }
            }
            Order::Own { path, from, to } => {
                let answer = self.owning.start(number, &path, &from, to);
                answer.into_iter().for_each(|answer| self.link.answer(answer));
            }
            Order::Exit => self.leaving = true,
        }
    }

    fn start_stage(&mut self, spec: &StageSpec) {
        if self.world.stages.contains_key(&spec.stage) {
            return self.link.want_stage(spec.stage);
        }
        self.world.stages.insert(spec.stage, Stage::start(spec, &self.control, &self.gauges));
    }

    /// Takes every child that has ended off the kernel's list. False: there is no child at all.
    fn reap(&mut self) -> bool {
        let mut ignored = [0; 1024];
        while rustix::io::read(&self.children, &mut ignored).is_ok_and(|length| length > 0) {}
        self.world.stages.values().for_each(Stage::wake_supervisor);
        loop {
            match sys::reap() {
                Ok(Some(ended)) => self.world.stages.values_mut().for_each(|stage| stage.reaped(&ended)),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// What time or the last events have made due for the stages.
    fn tick(&mut self) {
        let now = clock::now();
        let active = self.world.stages.values().filter(|stage| stage.is_active());
        let numbers: Vec<u32> = active.map(|stage| stage.status.stage).collect();
        for number in numbers {
            let others = self.world.others(number, self.owning.processes());
            let Some(stage) = self.world.stages.get_mut(&number) else { continue };
            let was_over = stage.is_over();
            stage.tick(&others, &mut self.buffer);
            if stage.is_over() && !was_over {
                self.control.remove_fifos(number);
            }
            if stage.take_news(now) {
                self.link.want_stage(number);
            }
        }
    }

    /// Ends everything, tells of it, gives the workspace back.
    fn leave(&mut self) {
        self.world.stages.values_mut().for_each(Stage::container_ends);
        self.kill_everything();
        // What came through the pipes before the end still belongs to the logs.
        let parts: Vec<(u32, Part)> = self
            .world
            .stages
            .iter()
            .flat_map(|(number, stage)| stage.descriptors().map(|(part, _)| (*number, part)))
            .collect();
        for (number, part) in parts {
            self.handle(Ready::Stage(number, part));
        }
        self.tick();
        self.say_the_last();
        if let Some(back) = &self.settings.hand_back {
            for error in own::give(&back.path, &[], back.to) {
                sys::complain(&format!("give back {error}"));
            }
        }
    }

    /// As the first process: all others of the container. Otherwise what is below this one.
    fn kill_everything(&mut self) {
        let own = Pid::try_from(std::process::id()).unwrap_or(1);
        let end = clock::now() + LAST_WAIT;
        loop {
            if own == 1 {
                sys::kill(-1, libc::SIGKILL);
            } else {
                processes::kill_all(|snapshot: &Snapshot| snapshot.below(&[own]));
            }
            if !self.reap() || clock::now() >= end {
                return;
            }
            let mut fds = [PollFd::new(&self.children, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timeout(Duration::from_millis(20))));
        }
    }

    fn say_the_last(&mut self) {
        let end = clock::now() + LAST_WORDS;
        loop {
            self.link.flush(&self.world);
            let left = end.saturating_sub(clock::now());
            if !self.link.is_pending() || left.is_zero() {
                return;
            }
            let mut fds = [PollFd::from_borrowed_fd(self.link.output(), PollFlags::OUT)];
            let _ = poll(&mut fds, Some(&timeout(left)));
        }
    }
}

fn timeout(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
