//! Gives the files below a path to somebody, for a tree that the build may be changing or may have
//! made to be a trap: never through a symbolic link, never to another file system, and with a
//! bounded number of open directories however deep it is.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::OwnedFd,
};

use buildr_init::wire::Owner;
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

/// How many errors are worth telling.
const MAX_ERRORS: usize = 10;

/// How many directories are open at once at most; those further up are opened again on the way back.
const MAX_OPEN: usize = 128;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Changes the owner of `path` and all below it that belongs to one of `from` (to anybody, where
/// that is empty), and gives what could not be changed.
pub(crate) fn give(path: &str, from: &[u32], to: Owner) -> Vec<String> {
    let mut walk = Walk { from, to, device: 0, frames: Vec::new(), errors: Vec::new() };
    if let Err(error) = walk.begin(path) {
        walk.fail(path, &error);
    }
    walk.run();
    walk.errors
}

/// A directory whose subdirectories are being seen to.
struct Frame {
    /// None while it is too far up to be kept open.
    directory: Option<OwnedFd>,
    identity: (u64, u64),
    name: String,
    waiting: Vec<CString>,
}

struct Walk<'a> {
    from: &'a [u32],
    to: Owner,
    device: u64,
    frames: Vec<Frame>,
    errors: Vec<String>,
}

impl Walk<'_> {
    fn begin(&mut self, path: &str) -> io::Result<()> {
        let stat = rustix::fs::lstat(path)?;
        self.device = stat.st_dev;
        if self.concerns(&stat) {
            let (uid, gid) = self.ids();
            rustix::fs::chownat(rustix::fs::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let directory = rustix::fs::open(path, DIRECTORY, Mode::empty())?;
            self.enter(directory, path.to_owned())?;
        }
        Ok(())
    }

    fn run(&mut self) {
        while !self.frames.is_empty() {
            self.step();
        }
    }

    /// One subdirectory in, or one directory out.
    fn step(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        let (Some(name), Some(directory)) = (frame.waiting.pop(), &frame.directory) else {
            return self.leave();
        };
        let opened = rustix::fs::openat(directory, &name, DIRECTORY, Mode::empty());
        let result = opened.map_err(io::Error::from).and_then(|inner| self.enter(inner, lossy(&name)));
        if let Err(error) = result {
            self.fail(&lossy(&name), &error);
        }
    }

    /// Changes what is directly in a directory and goes down into it.
    fn enter(&mut self, directory: OwnedFd, name: String) -> io::Result<()> {
        let stat = rustix::fs::fstat(&directory)?;
        if stat.st_dev != self.device {
            return Ok(());
        }
        let mut waiting = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let inner = entry.file_name();
            if inner == c"." || inner == c".." {
                continue;
            }
            match self.change(&directory, inner) {
                Ok(FileType::Directory) => waiting.push(inner.to_owned()),
                Ok(_) => {}
                Err(error) => self.fail(&format!("{name}/{}", lossy(inner)), &error),
            }
        }
        let depth = self.frames.len();
        if depth >= MAX_OPEN {
            self.frames[depth - MAX_OPEN].directory = None;
        }
        let identity = (stat.st_dev, stat.st_ino);
        self.frames.push(Frame { directory: Some(directory), identity, name, waiting });
        Ok(())
    }

    /// Goes back up, through `..` where the directory above is not open any more.
    fn leave(&mut self) {
        let Some(left) = self.frames.pop() else { return };
        let Some(above) = self.frames.last_mut() else { return };
        if above.directory.is_some() {
            return;
        }
        let reopened = left.directory.and_then(|directory| {
            let parent = rustix::fs::openat(directory, "..", DIRECTORY, Mode::empty()).ok()?;
            let stat = rustix::fs::fstat(&parent).ok()?;
            ((stat.st_dev, stat.st_ino) == above.identity).then_some(parent)
        });
        above.directory = reopened;
        if above.directory.is_none() && !above.waiting.is_empty() {
            let moved = io::Error::other("moved away while its files were given back");
            self.fail(&left.name, &moved);
        }
    }

    fn change(&self, directory: &OwnedFd, name: &CStr) -> io::Result<FileType> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => return Ok(FileType::Unknown),
            other => other?,
        };
        if stat.st_dev != self.device {
            return Ok(FileType::Unknown);
        }
        if self.concerns(&stat) {
            let (uid, gid) = self.ids();
            rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn concerns(&self, stat: &Stat) -> bool {
        let wanted = self.from.is_empty() || self.from.contains(&stat.st_uid);
        wanted && (stat.st_uid, stat.st_gid) != (self.to.uid, self.to.gid)
    }

    fn ids(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.to.uid)), Some(Gid::from_raw(self.to.gid)))
    }

    fn fail(&mut self, name: &str, error: &io::Error) {
        if self.errors.len() < MAX_ERRORS {
            let path: Vec<&str> = self.frames.iter().map(|frame| frame.name.as_str()).chain([name]).collect();
            self.errors.push(format!("{}: {error}", shorten(path.join("/"))));
        }
    }
}

/// A path can be of any length where a tree is deep; its end says most.
fn shorten(path: String) -> String {
    const MAX: usize = 1000;
    match path.char_indices().rev().nth(MAX) {
        Some((at, _)) => format!("...{}", &path[at..]),
        None => path,
    }
}

fn lossy(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// Who runs the test owns what it makes, so only a foreign `from` leaves everything alone.
    #[test]
    fn files_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let errors = give(folder.path().to_str().unwrap(), &[4_000_000_000], Owner { uid: 1, gid: 1 });
        assert_eq!(errors, Vec::<String>::new());
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        let errors = give("/nowhere/at/all", &[], Owner { uid: 1, gid: 1 });
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("/nowhere/at/all: "), "{errors:?}");
    }

    #[test]
    fn a_tree_deeper_than_the_open_directories_is_walked_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut at: OwnedFd = rustix::fs::open(folder.path(), DIRECTORY, Mode::empty()).unwrap();
        let depth = 3 * MAX_OPEN;
        for _ in 0..depth {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            at = rustix::fs::openat(&at, "d", DIRECTORY, Mode::empty()).unwrap();
        }
        symlink("/etc", folder.path().join("link")).unwrap();
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let to = Owner { uid, gid };
        let mut walk = Walk { from: &[], to, device: 0, frames: Vec::new(), errors: Vec::new() };
        walk.begin(folder.path().to_str().unwrap()).unwrap();
        let mut deepest = 0;
        while !walk.frames.is_empty() {
            deepest = deepest.max(walk.frames.len());
            let open = walk.frames.iter().filter(|frame| frame.directory.is_some()).count();
            assert!(open <= MAX_OPEN);
            walk.step();
        }
        assert_eq!((deepest, walk.errors.len()), (depth + 1, 0), "{:?}", walk.errors);
    }
}
