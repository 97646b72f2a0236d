//! One bare mirror: made, remade where it is broken, asked what is in it. It holds what was ever
//! fetched; nothing in it comes from a build.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};

use super::{SourceError, mirrors::Lock, wanted::Line};

/// A mirror that nothing is taken out of while this is there.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    users: Lock,
}

impl Mirror {
    /// The folder may not be there; `users` is locked.
    pub(super) fn new(path: PathBuf, users: Lock) -> Self {
        Self { path, users }
    }

    /// What is locked by all who read it.
    pub(super) fn users(&self) -> &Lock {
        &self.users
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it usable: made where it is not there, remade where it is no repository, rid of what a
    /// killed git has left.
    pub(super) fn prepare(&self) -> Result<(), SourceError> {
        if Repository::open_bare(&self.path).is_ok_and(|repository| repository.is_bare()) {
            sweep(&self.path).map_err(SourceError::io(&self.path))?;
            remove_all(&self.aside())?;
            return Ok(());
        }
        remove_all(&self.path)?;
        let unfinished = self.path.with_extension("new");
        remove_all(&unfinished)?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).mkpath(true).no_reinit(true);
        Repository::init_opts(&unfinished, &options).map_err(local(&unfinished))?;
        fs::rename(&unfinished, &self.path).map_err(SourceError::io(&self.path))
    }

    /// Puts it out of the way, so that [`Mirror::prepare`] makes a new one.
    pub(super) fn set_aside(&self) -> Result<(), SourceError> {
        remove_all(&self.aside())?;
        match fs::rename(&self.path, self.aside()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SourceError::io(&self.path)(error)),
            _ => Ok(()),
        }
    }

    /// After [`Mirror::set_aside`]: the new one is good.
    pub(super) fn drop_aside(&self) -> Result<(), SourceError> {
        remove_all(&self.aside())
    }

    /// After [`Mirror::set_aside`]: the new one was no better, so the old one was not the reason.
    pub(super) fn take_back(&self) -> Result<(), SourceError> {
        if !self.aside().exists() {
            return Ok(());
        }
        remove_all(&self.path)?;
        fs::rename(self.aside(), &self.path).map_err(SourceError::io(&self.path))
    }

    fn aside(&self) -> PathBuf {
        self.path.with_extension("old")
    }

    /// The commit that a branch or a tag was at when it was fetched last.
    pub(super) fn tip(&self, line: &Line) -> Result<Option<Oid>, SourceError> {
        let repository = self.open()?;
        let Ok(reference) = repository.find_reference(&line.full_name()) else { return Ok(None) };
        Ok(reference.peel_to_commit().ok().map(|commit| commit.id()))
    }

    /// True where the commit is here with its first tree.
    pub(super) fn has(&self, commit: Oid) -> Result<bool, SourceError> {
        Ok(self.open()?.find_commit(commit).is_ok_and(|commit| commit.tree().is_ok()))
    }

    /// True where a commit is in the history of a branch.
    pub(super) fn is_on(&self, commit: Oid, branch: &Line) -> Result<bool, SourceError> {
        let Some(tip) = self.tip(branch)? else { return Ok(false) };
        Ok(tip == commit || self.open()?.graph_descendant_of(tip, commit).unwrap_or(false))
    }

    /// The remote's default branch, as it was last heard of.
    pub(super) fn default_branch(&self) -> Result<Option<Line>, SourceError> {
        let repository = self.open()?;
        let Ok(head) = repository.head() else { return Ok(None) };
        Ok(head.shorthand().ok().map(|name| Line::Branch(name.to_owned())))
    }

    /// Remembers the remote's default branch.
    pub(super) fn set_default_branch(&self, branch: &Line) -> Result<(), SourceError> {
        self.open()?.set_head(&branch.full_name()).map_err(local(&self.path))
    }

    /// All tags, as full name and object, sorted by name.
    pub(super) fn tags(&self) -> Result<Vec<(String, Oid)>, SourceError> {
        let repository = self.open()?;
        let references = repository.references_glob("refs/tags/*").map_err(local(&self.path))?;
        let mut tags: Vec<_> = references
            .flatten()
            .filter_map(|tag| Some((tag.name().ok()?.to_owned(), tag.target()?)))
            .filter(|(_, target)| repository.find_object(*target, Some(ObjectType::Any)).is_ok())
            .collect();
        tags.sort();
        Ok(tags)
    }

    pub(super) fn open(&self) -> Result<Repository, SourceError> {
        Repository::open_bare(&self.path).map_err(local(&self.path))
    }
}

/// For `map_err` on libgit2's work in a folder of ours.
pub(super) fn local(path: &Path) -> impl FnOnce(git2::Error) -> SourceError {
    let path = path.to_owned();
    move |error| SourceError::io(path)(io::Error::other(error))
}

/// Removes a folder with all that is in it, if it is there.
pub(super) fn remove_all(path: &Path) -> Result<(), SourceError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            fs::remove_file(path).map_err(SourceError::io(path))
        }
        result => result.map_err(SourceError::io(path)),
    }
}

/// Removes locks and unfinished packs. Nobody else fetches, so nobody is using them.
fn sweep(mirror: &Path) -> io::Result<()> {
    for entry in fs::read_dir(mirror.join("objects/pack"))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("tmp_") {
            fs::remove_file(entry.path())?;
        }
    }
    sweep_locks(mirror, false)?;
    sweep_locks(&mirror.join("refs"), true)
}

fn sweep_locks(folder: &Path, below: bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && below {
            sweep_locks(&entry.path(), true)?;
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
