//! When which byte of a log was written: pairs of offset and time, sparse, ascending.
//!
//! For display only, so it is not synced; a torn or missing tail loses times and nothing else.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// Offset and microseconds since 1970, both little-endian.
const ENTRY: usize = 16;

/// Marks nearer than this to the one before are left out, so an index stays small beside its log.
const SPARSE: u64 = 128;

/// The most marks that one read gives.
const MAX_READ: u64 = 4096;

/// The index beside a log.
pub(super) fn path_of(log: &Path) -> PathBuf {
    log.with_extension("idx")
}

/// Writes an index.
#[derive(Debug)]
pub(super) struct IndexWriter {
    file: File,
    entries: u64,
    last: Option<u64>,
}

impl IndexWriter {
    /// Opens an index; of a torn entry at its end nothing is kept, nor what is past the log's end.
    pub(super) fn open(log: &Path, log_length: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path_of(log))?;
        let mut entries = file.metadata()?.len() / ENTRY as u64;
        let mut last = None;
        while entries > 0 {
            let (offset, _) = entry(&file, entries - 1)?;
            if offset < log_length {
                last = Some(offset);
                break;
            }
            entries -= 1;
        }
        file.set_len(entries * ENTRY as u64)?;
        Ok(Self { file, entries, last })
    }

    /// Appends what is not too near to what is there.
    pub(super) fn append(&mut self, marks: &[(u64, Timestamp)], from: u64, to: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (offset, at) in marks.iter().filter(|(offset, _)| (from..to).contains(offset)) {
            if self.last.is_some_and(|last| *offset < last.saturating_add(SPARSE)) {
                continue;
            }
            self.last = Some(*offset);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(at.as_microsecond().to_le_bytes());
        }
        self.file.write_all_at(&bytes, self.entries * ENTRY as u64)?;
        self.entries += (bytes.len() / ENTRY) as u64;
        Ok(())
    }
}

/// The marks of a part of a log.
pub(super) fn read(log: &Path, from: u64, to: u64) -> io::Result<Vec<(u64, Timestamp)>> {
    let file = match File::open(path_of(log)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let entries = file.metadata()?.len() / ENTRY as u64;
    let (mut low, mut high) = (0, entries);
    while low < high {
        let middle = low + (high - low) / 2;
        if entry(&file, middle)?.0 < from { low = middle + 1 } else { high = middle }
    }
    let mut marks = Vec::new();
    for number in low..entries.min(low + MAX_READ) {
        let (offset, at) = entry(&file, number)?;
        if offset >= to {
            break;
        }
        marks.extend(Timestamp::from_microsecond(at).ok().map(|at| (offset, at)));
    }
    Ok(marks)
}

fn entry(file: &File, number: u64) -> io::Result<(u64, i64)> {
    let mut bytes = [0; ENTRY];
    file.read_exact_at(&mut bytes, number * ENTRY as u64)?;
    let (offset, at) = bytes.split_at(8);
    Ok((
        u64::from_le_bytes(offset.try_into().expect("half of 16 bytes")),
        i64::from_le_bytes(at.try_into().expect("half of 16 bytes")),
    ))
}
