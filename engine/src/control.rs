//! The control directory: the folder that is shared with a build container, and the log files that
//! init writes there. All in it can be written by the build, so it is opened by descriptor below
//! the folder, links and pipes are refused, and what it claims is checked.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use buildr_init::wire::TimeRecord;
use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};

use crate::{
    error::chain,
    handed_on::{self, HandedOn},
};

/// The largest piece of output that is passed on at once, in bytes.
pub(crate) const PIECE: usize = 256 << 10;

/// How much is read at once: fewer trips to the blocking threads than pieces.
const BATCH: usize = 4 * PIECE;

/// The most of a times file that is read at once, in bytes: 4,096 records, more than init may
/// write for one batch unless it is a very slow one.
const TIMES_BATCH: usize = 4096 * TimeRecord::SIZE;

/// How many times that is read for one piece of a log: a build may have put a file there that has no end.
const TIMES_BATCHES: usize = 16;

/// How many records are kept for later at most.
const TIMES_AHEAD: usize = 1 << 16;

/// An open control directory. Whatever is done to its path afterwards, this stays the same folder.
#[derive(Debug)]
pub(crate) struct ControlFolder {
    folder: rustix::fd::OwnedFd,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("{name} cannot be opened")]
    Open {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} is not a regular file")]
    NotAFile { name: String },
    #[error("{name} is shorter than what was written to it")]
    Short { name: String },
    #[error("{name} cannot be read")]
    Read {
        name: String,
        #[source]
        source: io::Error,
    },
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) data: Bytes,
    pub(crate) times: Vec<(u64, Timestamp)>,
}

impl ControlFolder {
    /// Opens the folder at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Ok(Self { folder: open(path, flags, Mode::empty())? })
    }

    /// Opens the files of a stage's log. Blocks, but never for long.
    pub(crate) fn log(&self, stage: u32) -> Result<Log, Damage> {
        let name = format!("{stage}.log");
        let file = self.file(&name)?;
        // The times are worth less than the log: without them it is read all the same.
        let times = self.file(&format!("{stage}.times")).ok();
        Ok(Log { name, file, times: Times { file: times, at: 0, ahead: VecDeque::new(), last: None } })
    }

    /// What a stage hands on to later ones. Blocks for as long as the disk takes.
    pub(crate) fn handed_on(&self, stage: u32) -> HandedOn {
        let mut text = Vec::new();
        let read = self.file(&format!("{stage}.env")).and_then(|file| {
            let most = handed_on::MAX_BYTES as u64 + 1;
            file.take(most)
                .read_to_end(&mut text)
                .map_err(|source| Damage::Read { name: format!("{stage}.env"), source })
        });
        match read {
            Ok(_) => HandedOn::parse(&text),
            Err(damage) => HandedOn::nothing(&chain(&damage)),
        }
    }

    fn file(&self, name: &str) -> Result<File, Damage> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat(&self.folder, name, flags, Mode::empty())
            .and_then(|file| fstat(&file).map(|stat| (file, stat)))
            .map_err(|error| Damage::Open { name: name.to_owned(), source: error.into() });
        let (file, stat) = opened?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Damage::NotAFile { name: name.to_owned() });
        }
        Ok(File::from(file))
    }
}

/// A stage's log, read forward.
#[derive(Debug)]
pub(crate) struct Log {
    name: String,
    file: File,
    times: Times,
}

impl Log {
    /// Reads from `from` up to `to`, or less where that is a lot; at least one piece where `from <
    /// to`. Blocks for as long as the disk takes.
    pub(crate) fn read(&mut self, from: u64, to: u64) -> Result<Vec<Piece>, Damage> {
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(BATCH).min(BATCH);
        let mut data = vec![0; length];
        self.file.read_exact_at(&mut data, from).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Damage::Short { name: self.name.clone() },
            _ => Damage::Read { name: self.name.clone(), source },
        })?;
        let mut data = Bytes::from(data);
        let mut pieces = Vec::with_capacity(length.div_ceil(PIECE));
        let mut offset = from;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(PIECE));
            let end = offset + piece.len() as u64;
            pieces.push(Piece { offset, data: piece, times: self.times.up_to(offset, end) });
            offset = end;
        }
        Ok(pieces)
    }
}

/// A times file, read forward. Records that make no sense are passed over.
#[derive(Debug)]
struct Times {
    file: Option<File>,
    at: u64,
    ahead: VecDeque<(u64, Timestamp)>,
    last: Option<(u64, Timestamp)>,
}

impl Times {
    /// The records for the bytes from `from` to `to`; those below `from` that were not asked for
    /// in time are lost.
    fn up_to(&mut self, from: u64, to: u64) -> Vec<(u64, Timestamp)> {
        for _ in 0..TIMES_BATCHES {
            if self.ahead.back().is_some_and(|(offset, _)| *offset >= to) || !self.read_ahead() {
                break;
            }
        }
        let mut times = Vec::new();
        while let Some(record) = self.ahead.pop_front_if(|(offset, _)| *offset < to) {
            if record.0 >= from {
                times.push(record);
            }
        }
        times
    }

    /// Reads some more; false where that was all for now.
    fn read_ahead(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut bytes = [0; TIMES_BATCH];
        let length = file.read_at(&mut bytes, self.at).unwrap_or(0);
        let records = bytes[..length].chunks_exact(TimeRecord::SIZE);
        self.at += (records.len() * TimeRecord::SIZE) as u64;
        for record in records.filter_map(time_record) {
            if self.last.is_none_or(|last| last.0 < record.0 && last.1 <= record.1) {
                self.last = Some(record);
                self.ahead.push_back(record);
            }
        }
        length == bytes.len() && self.ahead.len() < TIMES_AHEAD
    }
}

fn time_record(bytes: &[u8]) -> Option<(u64, Timestamp)> {
    let record = TimeRecord::from_bytes(bytes.try_into().ok()?);
    let time = Timestamp::from_nanosecond(i128::from(record.unix_nanos)).ok()?;
    Some((record.offset, time))
}

/// Where in a run's folder its control directory is.
pub(crate) fn control_path(run_folder: &Path) -> PathBuf {
    run_folder.join("control")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn folder() -> (TempDir, ControlFolder) {
        let folder = tempfile::tempdir().unwrap();
        let control = ControlFolder::open(folder.path()).unwrap();
        (folder, control)
    }

    fn record(offset: u64, seconds: u64) -> [u8; TimeRecord::SIZE] {
        TimeRecord { offset, unix_nanos: seconds * 1_000_000_000 }.to_bytes()
    }

    fn seconds(pieces: &[Piece]) -> Vec<Vec<(u64, i64)>> {
        pieces.iter().map(|p| p.times.iter().map(|(at, time)| (*at, time.as_second())).collect()).collect()
    }

    #[test]
    fn a_log_comes_in_pieces_that_follow_each_other() {
        let (folder, control) = folder();
        let text: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        std::fs::write(folder.path().join("0.log"), &text).unwrap();
        let mut log = control.log(0).unwrap();
        let mut read = Vec::new();
        while read.len() < text.len() {
            for piece in log.read(read.len() as u64, text.len() as u64).unwrap() {
                assert_eq!(piece.offset, read.len() as u64);
                assert!(piece.data.len() <= PIECE);
                read.extend_from_slice(&piece.data);
            }
        }
        assert_eq!(read, text);
    }

    #[test]
    fn times_go_with_the_bytes_that_they_are_of() {
        let (folder, control) = folder();
        std::fs::write(folder.path().join("0.log"), vec![b'x'; 100]).unwrap();
        let times = [record(0, 1), record(10, 2), record(50, 3)].concat();
        std::fs::write(folder.path().join("0.times"), times).unwrap();
        let mut log = control.log(0).unwrap();
        assert_eq!(seconds(&log.read(0, 40).unwrap()), [vec![(0, 1), (10, 2)]]);
        assert_eq!(seconds(&log.read(40, 100).unwrap()), [vec![(50, 3)]]);
    }

    #[test]
    fn times_that_make_no_sense_are_passed_over() {
        let (folder, control) = folder();
        std::fs::write(folder.path().join("0.log"), vec![b'x'; 100]).unwrap();
        let mut times = [record(20, 5), record(10, 6), record(30, 2), record(40, 7)].concat();
        times.extend([0xff; 20]);
        std::fs::write(folder.path().join("0.times"), times).unwrap();
        let mut log = control.log(0).unwrap();
        assert_eq!(seconds(&log.read(0, 100).unwrap()), [vec![(20, 5), (40, 7)]]);
    }

    #[test]
    fn a_file_of_times_without_end_costs_a_bounded_part_of_it_for_each_piece() {
        let (folder, control) = folder();
        std::fs::write(folder.path().join("0.log"), vec![b'x'; 100]).unwrap();
        File::create(folder.path().join("0.times")).unwrap().set_len(1 << 40).unwrap();
        let mut log = control.log(0).unwrap();
        let read = log.read(0, 100).unwrap();
        assert_eq!((read[0].data.len(), read[0].times.len()), (100, 1));
        assert_eq!(log.times.at, (TIMES_BATCHES * TIMES_BATCH) as u64);
    }

    #[test]
    fn a_log_that_is_shorter_than_reported_is_damaged() {
        let (folder, control) = folder();
        std::fs::write(folder.path().join("0.log"), "short").unwrap();
        let damage = control.log(0).unwrap().read(0, 6).unwrap_err();
        assert_eq!(damage.to_string(), "0.log is shorter than what was written to it");
    }

    #[test]
    fn what_a_stage_hands_on_is_read_and_never_followed_or_waited_for() {
        let (folder, control) = folder();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("0.env"), "A=1\n").unwrap();
        std::fs::write(path("secret"), "S=1\n").unwrap();
        symlink("secret", path("1.env")).unwrap();
        std::fs::create_dir(path("2.env")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("3.env"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        File::create(path("4.env")).unwrap().set_len(10 << 30).unwrap();
        let read = control.handed_on(0);
        assert_eq!((&*read.values[0].0, read.values[0].1.as_str(), read.warnings.len()), ("A", "1", 0));
        for stage in 1..6 {
            let read = control.handed_on(stage);
            assert_eq!((read.values.len(), read.warnings.len()), (0, 1), "{stage} {read:?}");
        }
    }

    #[test]
    fn links_pipes_and_folders_are_no_logs() {
        let (folder, control) = folder();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        symlink("secret", folder.path().join("0.log")).unwrap();
        std::fs::create_dir(folder.path().join("1.log")).unwrap();
        let pipe = folder.path().join("2.log");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for stage in 0..4 {
            control.log(stage).unwrap_err();
        }
    }
}
