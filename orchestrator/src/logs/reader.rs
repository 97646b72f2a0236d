//! Reading a log from any offset.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::{Error, index};

/// Reads one log. Never reads beyond what it is told to be there.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Option<Arc<File>>,
}

impl LogReader {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// The bytes from an offset up to an end, at most `most`. Fewer where the file is shorter.
    pub async fn read(&mut self, offset: u64, end: u64, most: usize) -> Result<Bytes, Error> {
        let wanted = usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX).min(most);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let (path, file) = (self.path.clone(), self.file.clone());
        let read = spawn_blocking(move || read_at(&path, file, offset, wanted)).await;
        let (file, data) = self.outcome(read)?;
        self.file = file;
        Ok(data)
    }

    /// The time marks of a part of the log.
    pub async fn times(&self, from: u64, to: u64) -> Result<Vec<(u64, Timestamp)>, Error> {
        let path = self.path.clone();
        let read = spawn_blocking(move || index::read(&path, from, to)).await;
        self.outcome(read)
    }

    fn outcome<T>(&self, read: Result<io::Result<T>, tokio::task::JoinError>) -> Result<T, Error> {
        read.map_err(|_| Error::Stopped)?.map_err(|source| Error::Io { path: self.path.clone(), source })
    }
}

fn read_at(
    path: &Path,
    file: Option<Arc<File>>,
    offset: u64,
    wanted: usize,
) -> io::Result<(Option<Arc<File>>, Bytes)> {
    let file = match file {
        Some(file) => file,
        None => match File::open(path) {
            Ok(file) => Arc::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, Bytes::new())),
            Err(error) => return Err(error),
        },
    };
    let mut data = BytesMut::zeroed(wanted);
    let mut filled = 0;
    while filled < wanted {
        match file.read_at(&mut data[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok((Some(file), data.freeze()))
}

/// CRC-32C of a whole file; that of nothing where there is none.
pub(super) async fn checksum(path: PathBuf) -> Result<u32, Error> {
    let name = path.clone();
    let sum = spawn_blocking(move || {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut buffer = vec![0; 256 << 10];
        let mut crc = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(crc),
                count => crc = crc32c::crc32c_append(crc, &buffer[..count]),
            }
        }
    })
    .await;
    sum.map_err(|_| Error::Stopped)?.map_err(|source| Error::Io { path: name, source })
}
