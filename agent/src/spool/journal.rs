//! The journal of an attempt: one JSON object per line. Appended to and never changed; a torn last
//! line is what a killed process leaves, and is cut off.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use buildr_manifest::{Event, LogName};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub(super) enum Record {
    /// The next event; the first has the number 1.
    Event {
        /// It.
        event: Event,
    },
    /// There is a log from now on; its files are named by how many such lines came before.
    Log {
        /// Whose.
        log: LogName,
    },
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// A new one.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(path).map(Self)
    }

    /// Opens one, gives what it holds, and cuts off a torn end.
    pub(super) fn reopen(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let (records, good) = read(&file)?;
        file.set_len(good)?;
        (&file).seek(SeekFrom::End(0))?;
        Ok((Self(file), records))
    }

    /// Adds a record. After an error the journal must not be written to again.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

/// All whole records, and how many bytes they take. What follows a record that is none is ignored.
fn read(file: &File) -> io::Result<(Vec<Record>, u64)> {
    let mut lines = BufReader::new(file);
    let (mut records, mut good, mut line) = (Vec::new(), 0, Vec::new());
    loop {
        line.clear();
        let length = lines.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice(&line) {
            Ok(record) if whole => records.push(record),
            _ => return Ok((records, good)),
        }
        good += length as u64;
    }
}
