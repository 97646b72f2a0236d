//! Starts a stage: a supervisor, to which the stage's orphans go, and below it the shell.
//!
//! What both have to say comes through one pipe, as short lines ([`Word`]). The shell's process says
//! its number itself, before any code of the build runs, so that the stage can be followed even
//! where a build kills its supervisor.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    time::Duration,
};

use buildr_init::wire::StageSpec;

use crate::{
    processes,
    sys::{self, Fork, Pid, ProcessEnd, Usage},
    user::Identity,
};

/// Where a shell is looked for if the stage has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage's supervisor or the process that becomes its shell says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The shell's process.
    Shell(Pid),
    /// There is no shell.
    Failed { no_shell: bool, reason: String },
    /// The shell ended.
    Ended(ProcessEnd, Usage),
}

impl Word {
    fn to_line(&self) -> String {
        match self {
            Self::Shell(pid) => format!("shell {pid}\n"),
            Self::Failed { no_shell, reason } => {
                format!("failed {} {}\n", u8::from(*no_shell), reason.replace('\n', " "))
            }
            Self::Ended(end, usage) => {
                let (kind, code) = match end {
                    ProcessEnd::Exit(code) => ("exit", code),
                    ProcessEnd::Signal(signal) => ("signal", signal),
                };
                let (user, system) = (usage.user.as_micros(), usage.system.as_micros());
                format!("ended {kind} {code} {user} {system} {}\n", usage.max_rss)
            }
        }
    }

    /// Reads a line, without its end.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (verb, rest) = line.split_once(' ')?;
        match verb {
            "shell" => Some(Self::Shell(rest.parse().ok()?)),
            "failed" => {
                let (no_shell, reason) = rest.split_once(' ')?;
                Some(Self::Failed { no_shell: no_shell == "1", reason: reason.to_owned() })
            }
            "ended" => {
                let mut fields = rest.split(' ');
                let kind = fields.next()?;
                let code = fields.next()?.parse().ok()?;
                let end = if kind == "exit" { ProcessEnd::Exit(code) } else { ProcessEnd::Signal(code) };
                let mut time = || Some(Duration::from_micros(fields.next()?.parse().ok()?));
                let (user, system) = (time()?, time()?);
                Some(Self::Ended(end, Usage { user, system, max_rss: fields.next()?.parse().ok()? }))
            }
            _ => None,
        }
    }

    fn say(&self, report: &OwnedFd) {
        // A line is shorter than what a pipe takes at once.
        let _ = rustix::io::write(report, self.to_line().as_bytes());
    }
}

/// All that the shell's process needs, made before the forks.
pub(crate) struct Launch {
    stage: u32,
    programs: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    workdir: String,
    identity: Identity,
}

impl Launch {
    /// Checks what can be checked before anything runs. `script` is the last argument of the shell.
    pub(crate) fn prepare(spec: &StageSpec, identity: Identity, script: String) -> Result<Self, String> {
        let shell = spec.shell.first().filter(|shell| !shell.is_empty()).ok_or("no shell is named")?;
        let path = spec.environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        let programs = candidates(shell, path).into_iter().map(|program| text("the shell", program));
        let script = (!spec.script.is_empty()).then_some(script);
        let arguments = spec.shell.iter().cloned().chain(script).map(|word| text("the shell", word));
        Ok(Self {
            stage: spec.stage,
            programs: programs.collect::<Result<_, _>>()?,
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment(&spec.environment, &identity.home)?,
            workdir: spec.workdir.clone(),
            identity,
        })
    }

    /// Forks the supervisor. `output` is what the stage writes to, `report` takes the [`Word`]s.
    pub(crate) fn start(self, output: &OwnedFd, report: OwnedFd) -> io::Result<Pid> {
        match sys::fork()? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => self.supervise(output, report),
        }
    }

    fn supervise(self, output: &OwnedFd, report: OwnedFd) -> ! {
        sys::set_name(c"buildr-stage");
        let forked = sys::become_subreaper().and_then(|()| sys::fork());
        let shell = match forked {
            Ok(Fork::Child) => self.become_shell(output, &report),
            Ok(Fork::Parent(pid)) => pid,
            Err(error) => {
                let reason = format!("start a process: {error}");
                Word::Failed { no_shell: false, reason }.say(&report);
                sys::exit_now(1)
            }
        };
        if sys::place(&report, 0).is_err() {
            sys::exit_now(1);
        }
        sys::close_from(1);
        watch(shell)
    }

    fn become_shell(self, output: &OwnedFd, report: &OwnedFd) -> ! {
        // Said before anything of the build's can run.
        Word::Shell(Pid::try_from(std::process::id()).unwrap_or(0)).say(report);
        let word = match self.enter(output) {
            Ok(()) => self.exec(),
            Err(reason) => Word::Failed { no_shell: false, reason },
        };
        word.say(report);
        sys::exit_now(127)
    }

    fn enter(&self, output: &OwnedFd) -> Result<(), String> {
        let name = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        sys::new_session().map_err(name("start a session"))?;
        processes::set_mark(self.stage);
        sys::reset_signals();
        sys::set_umask(0o022);
        let input = empty_input().map_err(name("make an empty standard input"))?;
        // Both may be anywhere from 0 to 2 only if init itself was started without these three.
        for (from, target) in [(input.as_fd(), 0), (output.as_fd(), 1), (output.as_fd(), 2)] {
            sys::place(from, target).map_err(name("connect the output"))?;
        }
        let Identity { uid, gid, groups, .. } = &self.identity;
        sys::become_user(*uid, *gid, groups).map_err(|error| format!("become user {uid}:{gid}: {error}"))?;
        std::env::set_current_dir(&self.workdir)
            .map_err(|error| format!("enter the working directory {}: {error}", self.workdir))
    }

    /// Tries each place where the shell may be, as `execvp` does.
    fn exec(&self) -> Word {
        let name = self.arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut problem = None;
        for program in &self.programs {
            let error = sys::exec(program, &self.arguments, &self.environment);
            let path = program.to_string_lossy();
            match error.raw_os_error() {
                Some(libc::ENOENT) if Path::new(&*path).exists() => {
                    let reason = format!("start {path}: its interpreter is not in the image");
                    problem = Some(reason);
                }
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::E2BIG) => {
                    let limit = "the system takes 128 KiB for one variable, and about 2 MiB for all";
                    problem = Some(format!("start {path}: its environment is too large: {limit}"));
                }
                _ => problem = Some(format!("start {path}: {error}")),
            }
        }
        match problem {
            Some(reason) => Word::Failed { no_shell: false, reason },
            None => Word::Failed { no_shell: true, reason: format!("no {name} in the image") },
        }
    }
}

/// The rest of a supervisor's life: says how the shell ended, and takes in orphans until there is
/// none left. Its end therefore says that nothing of the stage lives. The report is descriptor 0.
fn watch(shell: Pid) -> ! {
    let report = io::stdin();
    while let Ok(ended) = sys::wait_peek() {
        if ended.pid == shell {
            let mut usage = sys::children_usage();
            usage.user += ended.usage.user;
            usage.system += ended.usage.system;
            usage.max_rss = usage.max_rss.max(ended.usage.max_rss);
            // Said before it is taken off the kernel's list: if this process is killed between the
            // two, init finds it there instead.
            let _ = rustix::io::write(&report, Word::Ended(ended.end, usage).to_line().as_bytes());
        }
        sys::discard(ended.pid);
    }
    sys::exit_now(0)
}

/// Something that is at its end at once.
fn empty_input() -> io::Result<OwnedFd> {
    let null = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/null");
    match null {
        // Null is device 1:3; in its place there may be anything.
        Ok(file)
            if file.metadata().is_ok_and(|meta| {
                meta.file_type().is_char_device() && meta.rdev() == libc::makedev(1, 3)
            }) =>
        {
            rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::empty())?;
            Ok(file.into())
        }
        _ => Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?.0),
    }
}

fn candidates(shell: &str, path: &str) -> Vec<String> {
    if shell.contains('/') {
        return vec![shell.to_owned()];
    }
    let place = |folder: &str| match folder {
        "" => format!("./{shell}"),
        folder => format!("{folder}/{shell}"),
    };
    path.split(':').map(place).collect()
}

fn environment(wanted: &BTreeMap<String, String>, home: &str) -> Result<Vec<CString>, String> {
    if let Some(name) = wanted.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Err(format!("no variable can have the name {name:?}"));
    }
    let fill = (!wanted.contains_key("HOME")).then(|| format!("HOME={home}"));
    let all = wanted.iter().map(|(name, value)| format!("{name}={value}")).chain(fill);
    all.map(|variable| text("a variable", variable)).collect()
}

fn text(what: &str, text: String) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("{what} has a zero byte in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_its_line() {
        let usage = Usage { user: Duration::from_micros(7), system: Duration::from_secs(3), max_rss: 4096 };
        for word in [
            Word::Shell(42),
            Word::Failed { no_shell: true, reason: "no sh in the image".into() },
            Word::Ended(ProcessEnd::Exit(3), usage),
            Word::Ended(ProcessEnd::Signal(9), Usage::default()),
        ] {
            assert_eq!(Word::parse(word.to_line().trim_end_matches('\n')), Some(word));
        }
        assert_eq!(Word::parse("ended exit 3"), None);
    }

    #[test]
    fn a_shell_is_looked_for_in_the_path_unless_it_is_one() {
        assert_eq!(candidates("sh", "/a:/b"), ["/a/sh", "/b/sh"]);
        assert_eq!(candidates("sh", ":/b"), ["./sh", "/b/sh"]);
        assert_eq!(candidates("/x/sh", "/a"), ["/x/sh"]);
    }

    #[test]
    fn the_environment_is_exact_and_has_a_home() {
        let wanted = BTreeMap::from([("a-b.c".to_owned(), "1\n2".to_owned())]);
        let made = environment(&wanted, "/root").unwrap();
        assert_eq!(made, [c"a-b.c=1\n2".to_owned(), c"HOME=/root".to_owned()]);
        let home = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        assert_eq!(environment(&home, "/root").unwrap(), [c"HOME=/h".to_owned()]);
        for name in ["", "a=b", "a\0b"] {
            assert!(environment(&BTreeMap::from([(name.to_owned(), String::new())]), "/").is_err());
        }
    }
}
