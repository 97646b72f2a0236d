//! The system calls that need `unsafe`, each behind a function that does not. Nothing here decides
//! anything.

use std::{
    ffi::CString,
    io::{self, Write},
    mem,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

/// A process.
pub(crate) type Pid = i32;

/// What processes used that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) max_rss: u64,
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Child,
    Parent(Pid),
}

/// A process that has ended.
pub(crate) struct Ended {
    pub(crate) pid: Pid,
    pub(crate) end: ProcessEnd,
    pub(crate) usage: Usage,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessEnd {
    Exit(i32),
    Signal(i32),
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Says what is wrong on standard error, if anybody reads it.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "buildr-init: {message}");
}

/// The time since the machine started, sleep included.
pub(crate) fn boot_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Blocks every signal and gives a descriptor that tells of SIGCHLD.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    // SAFETY: the sets are initialized by the calls that fill them; the descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()))?;
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        let descriptor = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// Gives every signal its default action and unblocks all.
pub(crate) fn reset_signals() {
    // SAFETY: default actions run no code of ours; the set is initialized by `sigemptyset`.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut());
    }
}

/// Forks. The child shares nothing but open files.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: this program has one thread, so the child may do what it likes.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Ends this process without any clean-up; for forked children.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Orphans below this process come to it.
pub(crate) fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes numbers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }).map(drop)
}

/// What `ps` shows.
pub(crate) fn set_name(name: &std::ffi::CStr) {
    // SAFETY: the name outlives the call, which copies it.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Starts a session of this process's own.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: takes nothing.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Becomes somebody else for good.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: `groups` is as long as it is said to be.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid)).map(drop)
    }
}

/// Sets the mask for new files.
pub(crate) fn set_umask(mask: u32) {
    // SAFETY: takes a number only.
    unsafe { libc::umask(mask) };
}

/// Gives an open file, pipe or FIFO to somebody.
pub(crate) fn own_descriptor(descriptor: impl AsFd, uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { libc::fchown(descriptor.as_fd().as_raw_fd(), uid, gid) }).map(drop)
}

/// Makes `target` another name of `descriptor`, open across an exec.
pub(crate) fn place(descriptor: impl AsFd, target: RawFd) -> io::Result<()> {
    // SAFETY: whoever owned `target` in this freshly forked process does not use it any more.
    check(unsafe { libc::dup2(descriptor.as_fd().as_raw_fd(), target) }).map(drop)
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) {
    // SAFETY: only called in freshly forked processes that use none of them any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) != 0 {
            let most = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 1 << 16);
            for descriptor in i64::from(first)..most {
                libc::close(descriptor as RawFd);
            }
        }
    }
}

/// Replaces this process; returns only why it could not.
pub(crate) fn exec(program: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null and point to strings that are still there.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Limits the locks on files, in number, of this process and all that it will start; kernels since 2.4
/// keep the limit and ask nobody to obey it.
pub(crate) fn limit_locks(limit: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: `limit` outlives the call, which copies it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &limit) }).map(drop)
}

/// The group of this process.
pub(crate) fn own_group() -> Pid {
    // SAFETY: takes nothing.
    unsafe { libc::getpgrp() }
}

/// Sends a signal, to a whole group where the number is negative; a process that is gone is no error.
pub(crate) fn kill(pid: Pid, signal: i32) {
    // SAFETY: takes numbers only.
    unsafe { libc::kill(pid, signal) };
}

/// A child that has ended, and takes it off the kernel's list. None: none has by now.
pub(crate) fn reap() -> io::Result<Option<Ended>> {
    // SAFETY: both places are for answers; all zeros is a valid `rusage`.
    unsafe {
        let mut status = 0;
        let mut usage: libc::rusage = mem::zeroed();
        let pid = check(libc::wait4(-1, &mut status, libc::WNOHANG, &mut usage))?;
        let end = if libc::WIFSIGNALED(status) {
            ProcessEnd::Signal(libc::WTERMSIG(status))
        } else {
            ProcessEnd::Exit(libc::WEXITSTATUS(status))
        };
        Ok((pid > 0).then(|| Ended { pid, end, usage: convert(&usage) }))
    }
}

/// Waits for a child to end and leaves it on the kernel's list. An error: there is no child.
pub(crate) fn wait_peek() -> io::Result<Ended> {
    // SAFETY: both places are for answers, and the kernel knows no more of them than their size;
    // the fields read from `info` are those that it fills for a child.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let mut usage: libc::rusage = mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT;
        // The library's `waitid` has no place for the usage; the kernel's has.
        let result = libc::syscall(libc::SYS_waitid, libc::P_ALL, 0, &mut info, flags, &mut usage);
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let code = info.si_status();
        let end =
            if info.si_code == libc::CLD_EXITED { ProcessEnd::Exit(code) } else { ProcessEnd::Signal(code) };
        Ok(Ended { pid: info.si_pid(), end, usage: convert(&usage) })
    }
}

/// Takes a child that [`wait_peek`] told of off the kernel's list.
pub(crate) fn discard(pid: Pid) {
    // SAFETY: no place for an answer is given.
    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
}

/// Whether this process is the parent of `pid`.
pub(crate) fn is_child(pid: Pid) -> bool {
    // SAFETY: `info` is a place for the answer.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        let flags = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) == 0
    }
}

/// What all children used that were waited for so far.
pub(crate) fn children_usage() -> Usage {
    // SAFETY: `usage` is a place for the answer.
    unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        convert(&usage)
    }
}

fn convert(usage: &libc::rusage) -> Usage {
    let duration = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    }
}
