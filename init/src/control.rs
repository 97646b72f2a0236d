//! The control directory: the files of a stage. A build that is root can put anything there, so
//! every file is made anew, below a descriptor, and nothing that was in its place is followed.

use std::{fs::File, io, os::fd::OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// The directory, open.
pub(crate) struct Control {
    directory: OwnedFd,
    path: String,
}

/// Both ends of both FIFOs of a stage's script; they never wait and never end.
pub(crate) struct Fifos {
    /// From the script.
    pub(crate) step: OwnedFd,
    /// To the script.
    pub(crate) go: OwnedFd,
}

impl Control {
    /// Opens it and makes sure that every user can reach the files in it.
    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode);
        let wanted = mode | Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if wanted != mode {
            // Where root is not the owner's equal this fails, and matters to other users only.
            let _ = rustix::fs::fchmod(&directory, wanted);
        }
        Ok(Self { directory, path: path.trim_end_matches('/').to_owned() })
    }

    /// Where a file of a stage is, as the stage sees it.
    pub(crate) fn path(&self, stage: u32, kind: &str) -> String {
        format!("{}/{stage}.{kind}", self.path)
    }

    /// A new, empty file that everybody may read.
    pub(crate) fn create(&self, stage: u32, kind: &str) -> Result<File, String> {
        self.file(&format!("{stage}.{kind}"))
            .map_err(|error| format!("make {}: {error}", self.path(stage, kind)))
    }

    /// The same for somebody to write to. Everybody may read it, since an engine need not be root.
    pub(crate) fn create_for(&self, stage: u32, kind: &str, uid: u32, gid: u32) -> Result<(), String> {
        self.file(&format!("{stage}.{kind}"))
            .and_then(|file| crate::sys::own_descriptor(&file, uid, gid))
            .map_err(|error| format!("make {}: {error}", self.path(stage, kind)))
    }

    fn file(&self, name: &str) -> io::Result<File> {
        self.clear(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.directory, name, flags, mode)?;
        rustix::fs::fchmod(&file, mode)?;
        Ok(File::from(file))
    }

    /// The FIFOs of a stage's script, `<stage>.step` and `<stage>.go`, for one user alone.
    pub(crate) fn fifos(&self, stage: u32, uid: u32, gid: u32) -> Result<Fifos, String> {
        let make = |kind: &str| {
            self.fifo(&format!("{stage}.{kind}"), uid, gid)
                .map_err(|error| format!("make {}: {error}", self.path(stage, kind)))
        };
        Ok(Fifos { step: make("step")?, go: make("go")? })
    }

    fn fifo(&self, name: &str, uid: u32, gid: u32) -> io::Result<OwnedFd> {
        self.clear(name)?;
        rustix::fs::mknodat(&self.directory, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fifo = rustix::fs::openat(&self.directory, name, flags, Mode::empty())?;
        crate::sys::own_descriptor(&fifo, uid, gid)?;
        Ok(fifo)
    }

    /// Removes a stage's FIFOs; what is left of them harms nobody.
    pub(crate) fn remove_fifos(&self, stage: u32) {
        for kind in ["step", "go"] {
            let _ = self.clear(&format!("{stage}.{kind}"));
        }
    }

    /// Makes way for a new file.
    fn clear(&self, name: &str) -> io::Result<()> {
        let unlinked =
            rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()).or_else(|error| match error {
                rustix::io::Errno::ISDIR => rustix::fs::unlinkat(&self.directory, name, AtFlags::REMOVEDIR),
                other => Err(other),
            });
        match unlinked {
            Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
            _ => Ok(()),
        }
    }
}
