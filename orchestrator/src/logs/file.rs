//! One log that is being written.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::sync::watch;

use super::{Chunk, Error, MAX_LOG, index::IndexWriter};

/// A log's file with what is known of it.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// None until the first byte comes, and between uses.
    files: Option<(File, IndexWriter)>,
    length: u64,
    /// Of all bytes; none where the log was opened with some in it.
    crc: Option<u32>,
    sealed: bool,
    pub(super) durable: watch::Sender<u64>,
    pub(super) used: Instant,
}

impl LogFile {
    /// Opens a log. What a former process has written counts once it is synced.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let (durable, _) = watch::channel(0);
        let mut log =
            Self { path, files: None, length: 0, crc: Some(0), sealed: false, durable, used: Instant::now() };
        if log.path.exists() {
            let (file, length) = open_file(&log.path)?;
            file.sync_data()?;
            log.length = length;
            log.crc = (length == 0).then_some(0);
            log.files = Some((file, IndexWriter::open(&log.path, length)?));
            log.durable.send_replace(length);
        }
        Ok(log)
    }

    /// Takes what is new of a chunk; false where it begins above the end.
    pub(super) fn append(&mut self, chunk: &Chunk) -> Result<bool, Error> {
        self.used = Instant::now();
        if chunk.offset > self.length {
            return Ok(false);
        }
        let known = usize::try_from(self.length - chunk.offset).unwrap_or(usize::MAX);
        let Some(data) = chunk.data.get(known..).filter(|data| !data.is_empty()) else { return Ok(true) };
        if self.sealed {
            return Err(Error::Sealed(chunk.key.log.clone()));
        }
        let end = self.length + data.len() as u64;
        if end > MAX_LOG {
            return Err(Error::TooLong(chunk.key.log.clone()));
        }
        self.write(data, &chunk.times, end).map_err(|source| {
            // The end of the file is the end of the log: nothing half written may stay.
            self.cut_back();
            Error::Io { path: self.path.clone(), source }
        })?;
        self.crc = self.crc.map(|crc| crc32c::crc32c_append(crc, data));
        self.length = end;
        Ok(true)
    }

    fn write(&mut self, data: &[u8], times: &[(u64, jiff::Timestamp)], end: u64) -> io::Result<()> {
        if self.files.is_none() {
            let is_new = self.length == 0;
            if is_new {
                create_folders(&self.path)?;
            }
            let (file, _) = open_file(&self.path)?;
            let index = IndexWriter::open(&self.path, self.length)?;
            if is_new {
                sync_folder(self.path.parent())?;
            }
            self.files = Some((file, index));
        }
        let Some((file, index)) = &mut self.files else { return Ok(()) };
        file.write_all_at(data, self.length)?;
        index.append(times, self.length, end)
    }

    fn cut_back(&self) {
        if let Some((file, _)) = &self.files
            && let Err(error) = file.set_len(self.length)
        {
            tracing::error!(path = %self.path.display(), %error, "cutting a log back failed");
        }
    }

    /// There are bytes that are not durable.
    pub(super) fn is_dirty(&self) -> bool {
        *self.durable.borrow() < self.length
    }

    /// Makes all bytes durable and tells the readers.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some((file, _)) = &self.files else { return Ok(()) };
        if let Err(error) = file.sync_data() {
            // What the system failed to write it may have forgotten: only what was durable is sure.
            self.length = *self.durable.borrow();
            self.crc = None;
            self.cut_back();
            return Err(error);
        }
        self.durable.send_replace(self.length);
        Ok(())
    }

    /// It has files open.
    pub(super) fn is_open(&self) -> bool {
        self.files.is_some()
    }

    /// Closes the files until there is something to write again.
    pub(super) fn rest(&mut self) {
        if !self.is_dirty() {
            self.files = None;
        }
    }

    /// Takes no more; gives the length and, where it is known, the checksum.
    pub(super) fn seal(&mut self) -> io::Result<(u64, Option<u32>)> {
        self.sync()?;
        self.sealed = true;
        self.used = Instant::now();
        Ok((self.length, self.crc))
    }

    /// Nobody waits for more of it.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_dirty() && self.durable.receiver_count() == 0
    }
}

fn open_file(path: &Path) -> io::Result<(File, u64)> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// Makes the folders of a log so that they survive a crash.
fn create_folders(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    for above in folder.ancestors().skip(1).take(2) {
        sync_folder(Some(above))?;
    }
    Ok(())
}

fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
