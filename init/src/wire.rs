//! What the engine and init say to each other.
//!
//! Every message is one line of JSON. A line that does not parse is dropped: that is what becomes
//! of a frame that was torn when an engine died in the middle of it, since every writer that
//! attaches begins with an empty line. Commands are numbered, by each process of the engine for
//! itself; a number that init has seen before is acknowledged again and never carried out again. So
//! a command may be sent again until its answer has come, over any number of connections, and an
//! engine that takes over from one that died need not know how far that one was. Unknown fields are ignored, so that an engine
//! can talk to the init of an older or newer one.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

/// The version of this protocol; in [`Report::State`].
pub const VERSION: u32 = 3;

/// The longest line that either side accepts, in bytes.
pub const MAX_LINE: usize = 16 << 20;

/// Where the control directory is mounted in the container.
pub const CONTROL_DIR: &str = "/buildr";

/// Where init itself is mounted in the container, inside the control directory.
pub const INIT_PATH: &str = "/buildr/init";

/// From the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Who counts: a number that no other process of an engine has had.
    pub session: u64,
    /// Ascending from 1 over the session; 0 for what needs no acknowledgement and may be repeated.
    pub seq: u64,
    /// What to do.
    #[serde(flatten)]
    pub order: Order,
}

/// What the engine wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Report the whole state. Also a sign of life.
    Query,
    /// Run a stage.
    Start(StageSpec),
    /// End a stage: TERM to all its processes, KILL to what is left after the grace. A stage that
    /// has ended already is left alone.
    Stop {
        /// The stage's number.
        stage: u32,
        /// Between TERM and KILL.
        grace: Duration,
    },
    /// Give every file below `path` that belongs to one of `from` to `to`. Never follows symbolic
    /// links, never leaves the file system. Answered by [`Report::Owned`], also where it is sent again.
    Own {
        /// An absolute path.
        path: String,
        /// Whose files: any uid where it is empty.
        from: Vec<u32>,
        /// The new owner.
        to: NewOwner,
    },
    /// End everything and exit.
    Exit,
}

/// Whom files are given to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NewOwner {
    /// By number.
    Ids(Owner),
    /// `USER[:GROUP]` as in [`StageSpec::user`]; only init can look a name up in the container's
    /// `/etc/passwd`.
    Named(String),
}

/// A user and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// How init itself behaves; the single argument of its program, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Exit at once when standard input ends. For local runs, whose engine does not come back.
    pub exit_on_eof: bool,
    /// Without a command for this long, end everything and exit.
    pub dead_man: Option<Duration>,
    /// On [`Order::Exit`], end of input and the dead man's time: give the workspace back first.
    pub hand_back: Option<HandBack>,
}

/// Whom the workspace belongs to when all is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandBack {
    /// The workspace, an absolute path.
    pub path: String,
    /// The owner; every file that belongs to somebody else is given to them.
    pub to: Owner,
}

/// A stage to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// Its number in the container, from 0; a stage that is tried again has a number for each try. Its
    /// files in the control directory are `<number>.log`, `<number>.times`, `<number>.sh` and
    /// `<number>.env`, an empty file that belongs to the stage's user, for values that it hands on.
    pub stage: u32,
    /// The shell and its options; the script's path is added as the last argument. Without a script:
    /// the program to run and all its arguments.
    pub shell: Vec<String>,
    /// The entries; each is a step. Empty: no script, a program.
    pub script: Vec<String>,
    /// The whole environment. `HOME` is set from the user's entry in `/etc/passwd` where it is missing.
    pub environment: BTreeMap<String, String>,
    /// The working directory, an absolute path.
    pub workdir: String,
    /// `USER[:GROUP]` as an image's USER has it, by name or number; empty means root.
    pub user: String,
    /// The most that it may write, in bytes; beyond it the stage is ended.
    pub log_limit: u64,
}

/// From init.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// The answer to [`Order::Query`], and the first line that init writes.
    State {
        /// [`VERSION`] of this init.
        version: u32,
        /// The sessions that were heard of lately.
        sessions: Vec<Heard>,
        /// Every stage that was ever started, in order of its number.
        stages: Vec<StageStatus>,
    },
    /// A command was taken.
    Ack {
        /// Who counts.
        session: u64,
        /// Its number.
        seq: u64,
    },
    /// A stage has news: output, a step, its end. Carries the whole of what is known, so a lost
    /// one does no harm. At most one every few milliseconds for output alone.
    Stage(StageStatus),
    /// [`Order::Own`] was carried out.
    Owned {
        /// Who counts.
        session: u64,
        /// The number of the command.
        seq: u64,
        /// What could not be changed, and why; at most ten.
        errors: Vec<String>,
    },
}

/// What was heard of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// [`Command::session`].
    pub session: u64,
    /// All its numbers up to this one were seen.
    pub up_to: u64,
}

/// All that is known of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its number.
    pub stage: u32,
    /// How much of its output is in the log file, in bytes.
    pub log_bytes: u64,
    /// For each step that began, where in the log its output begins.
    pub steps: Vec<u64>,
    /// How it ended; none while it runs.
    pub end: Option<StageEnd>,
}

/// How a stage ended, with what it used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageEnd {
    /// What ended it.
    pub cause: EndCause,
    /// [`Order::Stop`] had come before it ended.
    pub stopped: bool,
    /// From its start to its end.
    pub duration: Duration,
    /// CPU time in user mode of all its processes that were waited for.
    pub user_cpu: Duration,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// The largest resident set of any one of them, in bytes.
    pub max_rss: u64,
    /// How many processes of the container the kernel ended for want of memory while it ran.
    #[serde(default)]
    pub oom_kills: u64,
    /// The most memory that the container had in use so far, in bytes; none where the cgroup cannot be
    /// read.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// What went through the container's network while it ran; none where it cannot be read.
    #[serde(default)]
    pub network: Option<Traffic>,
}

/// What went through a network, loopback left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes that came in.
    pub received: u64,
    /// Bytes that went out.
    pub sent: u64,
}

/// What ended a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// The shell exited.
    Exit(i32),
    /// A signal ended the shell.
    Signal(i32),
    /// It wrote more than it may.
    LogLimit,
    /// Its output could not be written down, as on a full disk; what is in the log is whole up to
    /// its end.
    LogFailed {
        /// What went wrong, for people.
        reason: String,
    },
    /// The shell could not be started: no such program, no such user, no such directory.
    CannotStart {
        /// What is wrong, for people.
        reason: String,
        /// The shell's program does not exist in the image.
        no_shell: bool,
    },
}

/// One record of a `<number>.times` file, 16 bytes little-endian: an offset in the log, and the
/// time at which the byte there was read, in nanoseconds since the Unix epoch. Ascending in both,
/// at most one record every few milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRecord {
    /// In the log, in bytes.
    pub offset: u64,
    /// Since the Unix epoch.
    pub unix_nanos: u64,
}

impl TimeRecord {
    /// The length of a record.
    pub const SIZE: usize = 16;

    /// As it stands in the file.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.unix_nanos.to_le_bytes());
        bytes
    }

    /// Reads a record.
    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [offset, unix_nanos] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        });
        Self { offset, unix_nanos }
    }
}
