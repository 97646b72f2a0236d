//! The log of one stage or service: a file with its bytes, and one with time marks of 16 bytes each (offset,
//! microseconds since 1970, both little-endian).

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use bytes::Bytes;
use jiff::Timestamp;

const MARK: u64 = 16;

/// The most time marks in one piece; more than that are thinned out by leaving out the last ones.
const MAX_MARKS: usize = 2048;

/// The writing end.
#[derive(Debug)]
pub(super) struct LogFile {
    data: File,
    times: File,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub data: Bytes,
    /// When which byte was written, by its offset in the log.
    pub times: Vec<(u64, Timestamp)>,
}

impl LogFile {
    /// New files.
    pub(super) fn create(folder: &Path, index: usize) -> io::Result<Self> {
        let create =
            |name| OpenOptions::new().append(true).create_new(true).mode(0o600).open(folder.join(name));
        Ok(Self { data: create(data_name(index))?, times: create(times_name(index))? })
    }

    /// Files of an earlier process, that made `length` bytes. What it marked and never wrote goes: that
    /// comes again, with marks of its own.
    pub(super) fn reopen(folder: &Path, index: usize, length: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let open = |name| options.open(folder.join(name));
        let marks = LogReader { data: open(data_name(index))?, times: open(times_name(index))? };
        let whole = marks.first_mark(length)?;
        let LogReader { data, times } = marks;
        times.set_len(whole * MARK)?;
        Ok(Self { data, times })
    }

    /// Adds bytes. The marks go first, so that whoever sees the bytes sees their marks.
    pub(super) fn append(&mut self, data: &[u8], times: &[(u64, Timestamp)]) -> io::Result<()> {
        let mut marks = Vec::with_capacity(times.len() * MARK as usize);
        for (offset, at) in times {
            marks.extend(offset.to_le_bytes());
            marks.extend(at.as_microsecond().to_le_bytes());
        }
        self.times.write_all(&marks)?;
        self.data.write_all(data)
    }

    /// Length and CRC-32C of what a file of an earlier process holds; none where it never was made.
    pub(super) fn measure(folder: &Path, index: usize) -> io::Result<(u64, u32)> {
        let mut file = match File::open(folder.join(data_name(index))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
            file => file?,
        };
        let (mut length, mut crc, mut buffer) = (0, 0, vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((length, crc)),
                read => {
                    crc = crc32c::crc32c_append(crc, &buffer[..read]);
                    length += read as u64;
                }
            }
        }
    }
}

/// The reading end. It does not know how much was written: whoever asks does.
#[derive(Debug)]
pub struct LogReader {
    data: File,
    times: File,
}

impl LogReader {
    /// Opens the files of the log with this index in [`super::Progress::logs`].
    pub fn open(folder: &Path, index: usize) -> io::Result<Self> {
        let open = |name| File::open(folder.join(name));
        Ok(Self { data: open(data_name(index))?, times: open(times_name(index))? })
    }

    /// Reads `length` bytes that were written.
    pub fn read(&self, offset: u64, length: usize) -> io::Result<Piece> {
        let mut data = vec![0; length];
        self.data.read_exact_at(&mut data, offset)?;
        Ok(Piece { data: data.into(), times: self.marks(offset, offset + length as u64)? })
    }

    fn marks(&self, from: u64, to: u64) -> io::Result<Vec<(u64, Timestamp)>> {
        let first = self.first_mark(from)?;
        let available = (self.count()? - first).min(MAX_MARKS as u64);
        let mut raw = vec![0; (available.min(16) * MARK) as usize];
        let mut marks = Vec::new();
        for batch in (0..available).step_by(16) {
            let length = ((available - batch).min(16) * MARK) as usize;
            self.times.read_exact_at(&mut raw[..length], (first + batch) * MARK)?;
            for record in raw[..length].chunks_exact(MARK as usize) {
                match decode(record) {
                    (offset, _) if offset >= to => return Ok(marks),
                    (offset, Some(at)) => marks.push((offset, at)),
                    (_, None) => {}
                }
            }
        }
        Ok(marks)
    }

    /// The index of the first mark that is not below an offset.
    fn first_mark(&self, offset: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, self.count()?);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut record = [0; MARK as usize];
            self.times.read_exact_at(&mut record, middle * MARK)?;
            if decode(&record).0 < offset { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn count(&self) -> io::Result<u64> {
        Ok(self.times.metadata()?.len() / MARK)
    }
}

fn decode(record: &[u8]) -> (u64, Option<Timestamp>) {
    let word = |at: usize| <[u8; 8]>::try_from(&record[at..at + 8]).expect("eight bytes of sixteen");
    (u64::from_le_bytes(word(0)), Timestamp::from_microsecond(i64::from_le_bytes(word(8))).ok())
}

fn data_name(index: usize) -> String {
    format!("{index}.log")
}

fn times_name(index: usize) -> String {
    format!("{index}.times")
}
