//! The journal of a run: what was decided and what was told, one JSON object per line, written before
//! it is done. An engine that comes back after its process died reads it, and the job goes on where it
//! was. A torn last line is what became of a record that was never acted on: it is dropped.
//!
//! It lies in the run's folder, outside of what a build can see.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use buildr_init::wire::Owner;
use buildr_manifest::{Context, Event, Outcome, StageName, VarName};
use serde::{Deserialize, Serialize};

use crate::{image::Image, job::JobRequest, texts::Texts};

/// In a run's folder.
const NAME: &str = "journal";

/// The largest journal that is read back, in bytes: a job has 1,000 stages at most, and the largest
/// manifest has a megabyte.
const MAX_JOURNAL: u64 = 256 << 20;

/// One line of a journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(crate) enum Record {
    /// The listener is told this.
    Told {
        /// What.
        event: Event,
    },
    /// The stages may begin: all that the job is made from.
    Begun(Box<Begun>),
    /// The texts of the plan in full.
    Texts(Texts),
    /// A container is going to be made.
    Container(ContainerRecord),
    /// A try of a stage is going to be started.
    Try(Try),
    /// A stage has handed these values on.
    HandedOver {
        /// The stage.
        stage: StageName,
        /// The values.
        values: Vec<(VarName, String)>,
    },
    /// This decides the job's outcome, unless something did before.
    Decided {
        /// How the job is to end.
        outcome: Outcome,
    },
    /// The job is being ended; stages that run after a failure still run.
    Ending {
        /// The job's outcome.
        outcome: Outcome,
        /// When, since the machine was started.
        at: Duration,
    },
}

/// What a job is made from. The plan is made again from the manifest's text: that gives the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// What was asked for.
    pub(crate) request: JobRequest,
    /// The manifest's text.
    pub(crate) manifest: String,
    /// The manifest's name in messages.
    pub(crate) name: String,
    /// What it is planned for.
    pub(crate) context: Context,
    /// The folder that becomes the workspace.
    pub(crate) workspace: PathBuf,
    /// When the job was taken up, since the machine was started.
    pub(crate) at: Duration,
    /// What ends it without a sign of life from an engine, where that is sooner than the engine's own
    /// dead man's time.
    #[serde(default)]
    pub(crate) unattended: Option<Duration>,
}

/// A container that is going to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    /// The stage that it is for alone; none: the build container.
    pub(crate) stage: Option<usize>,
    /// Its name.
    pub(crate) name: String,
    /// What it is made of.
    pub(crate) image: Image,
    /// To whom it gives the workspace back.
    pub(crate) hand_back: Option<Owner>,
}

/// A try of a stage that is going to be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Try {
    /// The stage's place in the plan.
    pub(crate) stage: usize,
    /// Which try, from 1.
    pub(crate) attempt: u32,
    /// Where in the stage's log it begins, in bytes.
    pub(crate) base: u64,
    /// When, since the machine was started.
    pub(crate) at: Duration,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Begins the journal of a new run. Blocks.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(folder.join(NAME))?;
        Ok(Self { file })
    }

    /// Reads a journal back and goes on with it. Blocks.
    pub(crate) fn reopen(folder: &Path) -> io::Result<(Self, Vec<Record>)> {
        let mut file = OpenOptions::new().read(true).append(true).open(folder.join(NAME))?;
        let mut text = Vec::new();
        (&mut file).take(MAX_JOURNAL).read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut records = Vec::new();
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            records.push(serde_json::from_slice(line).map_err(io::Error::from)?);
        }
        file.set_len(whole as u64)?;
        file.seek(SeekFrom::End(0))?;
        Ok((Self { file }, records))
    }

    /// Adds a record. It is there once this comes back, whatever becomes of this process. After an
    /// error the journal must not be written to again. Blocks for as long as a page cache does.
    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record).map_err(io::Error::from)?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}
