//! The files of a commit, looked up by path in a mirror as a file system would do it, with links
//! followed. Nothing outside the commit is ever looked at.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Component, Path},
};

use git2::{ObjectType, Oid, Repository, Tree, TreeEntry};

use super::{
    SourceError,
    mirror::{Mirror, local},
};

/// How many symbolic links are followed on one path.
const MAX_LINKS: usize = 8;

/// The longest that a link may say, as Linux has it.
const MAX_LINK: usize = 4096;

const LINK_MODE: i32 = 0o120_000;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    File(Vec<u8>),
    /// A file that is larger than the limit.
    TooLarge,
    Missing,
    Folder,
    Submodule,
    /// The path, or a link on it, leads out of the project.
    Outside,
    TooManyLinks,
}

/// What is at `path` in the tree of a commit.
pub(super) fn look(mirror: &Mirror, commit: Oid, path: &Path, limit: usize) -> Result<Lookup, SourceError> {
    let repository = mirror.open()?;
    let look = || {
        let root = repository.find_commit(commit)?.tree()?;
        Walk { repository: &repository, folders: vec![root], links: 0 }.to(path, limit)
    };
    look().map_err(local(mirror.path()))
}

/// Where a lookup is.
struct Walk<'r> {
    repository: &'r Repository,
    /// From the root to here.
    folders: Vec<Tree<'r>>,
    links: usize,
}

impl<'r> Walk<'r> {
    fn to(mut self, path: &Path, limit: usize) -> Result<Lookup, git2::Error> {
        // What is still to go, the next at the end.
        let mut way = parts(path);
        while let Some(part) = way.pop() {
            let name = match part {
                Part::Above if self.folders.len() > 1 => {
                    self.folders.pop();
                    continue;
                }
                Part::Above | Part::Root => return Ok(Lookup::Outside),
                Part::Name(name) => name,
            };
            let Some(entry) = self.here().get_name_bytes(&name).map(|entry| entry.to_owned()) else {
                return Ok(Lookup::Missing);
            };
            match entry.kind() {
                Some(ObjectType::Tree) => self.folders.push(self.repository.find_tree(entry.id())?),
                Some(ObjectType::Commit) => return Ok(Lookup::Submodule),
                Some(ObjectType::Blob) if entry.filemode() == LINK_MODE => {
                    self.links += 1;
                    if self.links > MAX_LINKS {
                        return Ok(Lookup::TooManyLinks);
                    }
                    match self.blob(&entry, MAX_LINK)? {
                        Lookup::File(target) => way.extend(parts(Path::new(OsStr::from_bytes(&target)))),
                        other => return Ok(other),
                    }
                }
                Some(ObjectType::Blob) if way.is_empty() => return self.blob(&entry, limit),
                _ => return Ok(Lookup::Missing),
            }
        }
        Ok(Lookup::Folder)
    }

    fn here(&self) -> &Tree<'r> {
        self.folders.last().expect("the root is never left")
    }

    fn blob(&self, entry: &TreeEntry<'_>, limit: usize) -> Result<Lookup, git2::Error> {
        // Its size first: it may be larger than this machine's memory.
        let (size, _) = self.repository.odb()?.read_header(entry.id())?;
        if size > limit {
            return Ok(Lookup::TooLarge);
        }
        Ok(Lookup::File(self.repository.find_blob(entry.id())?.content().to_vec()))
    }
}

/// A step of a path.
enum Part {
    Name(Vec<u8>),
    Above,
    Root,
}

/// The steps of a path, the first at the end.
fn parts(path: &Path) -> Vec<Part> {
    let parts = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(Part::Name(name.as_bytes().to_vec())),
        Component::ParentDir => Some(Part::Above),
        Component::RootDir | Component::Prefix(_) => Some(Part::Root),
        Component::CurDir => None,
    });
    parts.collect()
}

/// The file of this name in the root of a commit; a link or folder of that name is none.
pub(super) fn blob_at_root(mirror: &Mirror, commit: Oid, name: &str) -> Result<Option<Oid>, SourceError> {
    let repository = mirror.open()?;
    let find = || {
        let root = repository.find_commit(commit)?.tree()?;
        let entry = root.get_name(name);
        let file = entry.filter(|file| file.kind() == Some(ObjectType::Blob) && file.filemode() != LINK_MODE);
        Ok(file.map(|file| file.id()))
    };
    find().map_err(local(mirror.path()))
}
