//! A stage's log and its index of times. Only ever appended to, at a position of its own, so that
//! a build that shortens the file cannot move what follows; never longer than its limit.

use std::{fs::File, io, os::unix::fs::FileExt, time::Duration};

use buildr_init::wire::TimeRecord;

use crate::clock;

/// Between two records of the index.
const TIME_STEP: Duration = Duration::from_millis(5);

/// The two files.
pub(crate) struct Log {
    data: File,
    times: File,
    length: u64,
    limit: u64,
    records: u64,
    last_record: Option<Duration>,
}

/// What became of a piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is all there.
    Whole,
    /// The log is full; it was cut.
    Full,
}

impl Log {
    /// A log in two new files.
    pub(crate) fn new(data: File, times: File, limit: u64) -> Self {
        Self { data, times, length: 0, limit, records: 0, last_record: None }
    }

    /// How much is in it.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Adds a piece of output, as much as fits.
    pub(crate) fn append(&mut self, piece: &[u8]) -> io::Result<Appended> {
        let room = usize::try_from(self.limit - self.length).unwrap_or(usize::MAX);
        let fitting = &piece[..piece.len().min(room)];
        if !fitting.is_empty() {
            self.write(fitting)?;
        }
        Ok(if fitting.len() == piece.len() { Appended::Whole } else { Appended::Full })
    }

    fn write(&mut self, mut piece: &[u8]) -> io::Result<()> {
        self.record_time()?;
        while !piece.is_empty() {
            match self.data.write_at(piece, self.length) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.length += written as u64;
                    piece = &piece[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn record_time(&mut self) -> io::Result<()> {
        let now = clock::now();
        if self.last_record.is_some_and(|last| now < last + TIME_STEP) {
            return Ok(());
        }
        let record = TimeRecord { offset: self.length, unix_nanos: clock::unix_nanos() };
        self.times.write_all_at(&record.to_bytes(), self.records * TimeRecord::SIZE as u64)?;
        self.records += 1;
        self.last_record = Some(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limit: u64) -> (tempfile::TempDir, Log) {
        let folder = tempfile::tempdir().unwrap();
        let [data, times] = ["log", "times"].map(|name| File::create(folder.path().join(name)).unwrap());
        (folder, Log::new(data, times, limit))
    }

    #[test]
    fn a_log_is_cut_at_its_limit_exactly() {
        let (folder, mut log) = log(5);
        assert_eq!(log.append(b"abc").unwrap(), Appended::Whole);
        assert_eq!(log.append(b"de").unwrap(), Appended::Whole);
        assert_eq!(log.append(b"f").unwrap(), Appended::Full);
        assert_eq!(std::fs::read(folder.path().join("log")).unwrap(), b"abcde");
    }

    #[test]
    fn the_first_byte_has_a_time() {
        let (folder, mut log) = log(100);
        log.append(b"abc").unwrap();
        let times = std::fs::read(folder.path().join("times")).unwrap();
        let record = TimeRecord::from_bytes(times[..16].try_into().unwrap());
        assert_eq!(record.offset, 0);
        assert!(record.unix_nanos > 1_600_000_000_000_000_000);
        assert_eq!(TimeRecord::from_bytes(record.to_bytes()), record);
    }

    #[test]
    fn a_log_that_was_shortened_goes_on_where_it_was() {
        let (folder, mut log) = log(100);
        log.append(b"abc").unwrap();
        File::create(folder.path().join("log")).unwrap();
        log.append(b"d").unwrap();
        assert_eq!(std::fs::read(folder.path().join("log")).unwrap(), b"\0\0\0d");
    }
}
