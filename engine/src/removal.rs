//! Removes a folder tree that anybody may have made: of any depth, with any modes and flags, with any
//! names. Works by descriptor below the tree, so that no link leads out of it, and removes what it can
//! where something must stay.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{
        AtFlags, Dir, FileType, IFlags, Mode, OFlags, fchmod, ioctl_getflags, ioctl_setflags, open, openat,
        renameat, statat, unlinkat,
    },
    io::{Errno, Result},
};

/// Folders below this depth are moved up before they are emptied: each level takes a descriptor, and
/// a process may not have many.
const DEPTH: usize = 32;

/// So often the top is looked at again for folders that were moved up; a tree of this many times
/// [`DEPTH`] levels, or one that somebody still writes to, stays.
const ROUNDS: usize = 10_000;

/// Where the names of folders that were moved up begin.
const MOVED: &str = ".buildr-moved-";

/// Removes the folder at `path`, which need not be there. Where something in it cannot be removed the
/// rest is, and the error names the first that stayed. Blocks.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open_top(path) {
        Err(Errno::NOENT) => return Ok(()),
        top => top?,
    };
    let mut removal = Removal { top: &top, moved: 0, failed: None };
    for _ in 0..ROUNDS {
        let before = removal.moved;
        removal.failed = None;
        removal.empty(&top, 0)?;
        if removal.moved == before {
            break;
        }
    }
    match removal.failed {
        Some((name, error)) => {
            let error = io::Error::from(error);
            Err(io::Error::new(error.kind(), format!("{}: {error}", name.to_string_lossy().escape_debug())))
        }
        None => fs::remove_dir(path),
    }
}

fn open_top(path: &Path) -> Result<OwnedFd> {
    match open(path, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = open(path, FOLDER | OFlags::PATH, Mode::empty())?;
            let _shown_by_the_next_try = open_up(&handle);
            open(path, FOLDER, Mode::empty())
        }
        opened => opened,
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tree that is being removed.
struct Removal<'a> {
    top: &'a OwnedFd,
    /// How many folders were moved up.
    moved: usize,
    /// What could not be removed first.
    failed: Option<(CString, Errno)>,
}

impl Removal<'_> {
    /// Removes all that is in a folder, but for what was moved up from it.
    fn empty(&mut self, folder: &OwnedFd, depth: usize) -> Result<()> {
        for entry in Dir::read_from(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_bytes() == b"." || name.to_bytes() == b".." {
                continue;
            }
            if let Err(error) = self.remove(folder, name, depth)
                && error != Errno::NOENT
            {
                self.failed.get_or_insert((name.to_owned(), error));
            }
        }
        Ok(())
    }

    fn remove(&mut self, folder: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory {
            return insist(folder, name, kind, || unlinkat(folder, name, AtFlags::empty()));
        }
        if depth >= DEPTH {
            self.moved += 1;
            let up = format!("{MOVED}{}-{}", std::process::id(), self.moved);
            return insist(folder, name, kind, || renameat(folder, name, self.top, &*up));
        }
        let child = open_child(folder, name)?;
        let stays = self.failed.clone();
        self.empty(&child, depth + 1)?;
        drop(child);
        match insist(folder, name, kind, || unlinkat(folder, name, AtFlags::REMOVEDIR)) {
            // What is in it has been told.
            Err(Errno::NOTEMPTY) if self.failed.is_some() && self.failed != stays => Ok(()),
            removed => removed,
        }
    }
}

fn open_child(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    match openat(folder, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = openat(folder, name, FOLDER | OFlags::PATH, Mode::empty())?;
            let _shown_by_the_next_try = open_up(&handle);
            openat(folder, name, FOLDER, Mode::empty())
        }
        opened => opened,
    }
}

/// Lets its owner into a folder that was opened without leave to read it.
fn open_up(handle: &OwnedFd) -> io::Result<()> {
    // There is no call that does it by such a descriptor.
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Tries, and once more where modes or flags are in the way that can be taken off.
fn insist(folder: &OwnedFd, name: &CStr, kind: FileType, act: impl Fn() -> Result<()>) -> Result<()> {
    match act() {
        Err(Errno::ACCESS) => {
            fchmod(folder, Mode::RWXU)?;
            if kind == FileType::Directory {
                // Moving one needs leave to write to it.
                let handle = openat(folder, name, FOLDER | OFlags::PATH, Mode::empty())?;
                let _shown_by_the_next_try = open_up(&handle);
            }
            act()
        }
        Err(Errno::PERM) => {
            let _shown_by_the_next_try = loosen(folder.as_fd());
            if matches!(kind, FileType::RegularFile | FileType::Directory) {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(folder, name, flags, Mode::empty())?;
                let _shown_by_the_next_try = loosen(file.as_fd());
            }
            act()
        }
        done => done,
    }
}

/// Takes off the flags that keep even root from removing a file, as `chattr -ia` does.
fn loosen(file: BorrowedFd<'_>) -> Result<()> {
    let flags = ioctl_getflags(file)?;
    let fixed = IFlags::IMMUTABLE | IFlags::APPEND;
    if flags.intersects(fixed) { ioctl_setflags(file, flags.difference(fixed)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
