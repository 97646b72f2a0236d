//! A commit that was decided on: it is here, and stays here until it is dropped.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use buildr_manifest::CloneOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    SourceError, Sources,
    address::Address,
    blocking,
    fetch::Pin,
    large_files::{self, LargeFiles},
    mirror::Mirror,
    on,
    submodules::{self, Submodule},
    tree::{self, Lookup},
    wanted::{Line, Wanted},
    workspace::{self, Place},
};

/// A commit in a mirror. As long as this is there, the mirror is neither removed nor tidied.
#[derive(Debug)]
pub struct Pinned {
    /// The full commit id.
    pub commit: String,
    /// The branch that it was found by, or the default branch where the commit is on that.
    pub branch: Option<String>,
    /// The tag that was asked for.
    pub tag: Option<String>,
    sources: Sources,
    mirror: Arc<Mirror>,
    address: Address,
    pin: Pin,
    /// How long all took, without waiting for others.
    spent: Duration,
}

/// What a checkout has to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedOut {
    /// How long fetching and checking out took, waits for others left out.
    pub took: Duration,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Pinned {
    pub(super) fn new(
        sources: Sources,
        mirror: &Arc<Mirror>,
        address: Address,
        pin: Pin,
        spent: Duration,
    ) -> Self {
        let (branch, tag) = match pin.line.clone() {
            Some(Line::Branch(name)) => (Some(name), None),
            Some(Line::Tag(name)) => (None, Some(name)),
            None => (None, None),
        };
        let commit = pin.commit.to_string();
        Self { commit, branch, tag, sources, mirror: mirror.clone(), address, pin, spent }
    }

    /// True where the commit has a file of this name, or a link to one; also one that would lead out
    /// of the project, which [`Pinned::read_file`] refuses.
    pub async fn has_file(&self, path: &Path) -> Result<bool, SourceError> {
        let found = self.look(path, 0).await?;
        Ok(!matches!(found, Lookup::Missing | Lookup::Folder))
    }

    /// A file of the commit, of at most `limit` bytes; none where there is nothing of that name.
    /// Links are followed inside the project only.
    pub async fn read_file(&self, path: &Path, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
        let refused =
            |why: &str| Err(SourceError::File { path: path.display().to_string(), why: why.to_owned() });
        match self.look(path, limit).await? {
            Lookup::File(text) => Ok(Some(text)),
            Lookup::Missing => Ok(None),
            Lookup::Folder => refused("it is not a regular file"),
            Lookup::Submodule => refused("it is in a submodule"),
            Lookup::Outside => refused("it is outside the project"),
            Lookup::TooManyLinks => refused("it is behind too many symbolic links"),
            Lookup::TooLarge => refused(&format!("it is larger than {} KiB", limit >> 10)),
        }
    }

    async fn look(&self, path: &Path, limit: usize) -> Result<Lookup, SourceError> {
        let (path, commit) = (path.to_owned(), self.pin.commit);
        on(&self.mirror, move |mirror| tree::look(mirror, commit, &path, limit)).await
    }

    /// Checks the commit out into `dest`, which must be empty or not there.
    ///
    /// HEAD is on the branch for branches, and detached for tags, and for commits that are on no
    /// branch known here. `dest` stands for itself: it can be mounted anywhere. With a depth, also
    /// the history of submodules ends there. After an error it is empty again. A cancel ends git and
    /// all its children.
    pub async fn check_out(
        self,
        dest: &Path,
        options: &CloneOptions,
        cancel: &CancellationToken,
    ) -> Result<CheckedOut, SourceError> {
        let folder = dest.to_owned();
        blocking(move || workspace::vacant(&folder)).await?;
        let mut checkout =
            Checkout { options, cancel, left: submodules::MAX_COUNT, done: CheckedOut::default() };
        let result = Box::pin(checkout.all(self, Place::top(dest))).await;
        let folder = dest.to_owned();
        if result.is_err()
            && let Err(error) = blocking(move || workspace::clear(&folder)).await
        {
            tracing::warn!(%error, "a workspace that failed could not be emptied");
        }
        result.map(|()| checkout.done)
    }

    /// The same commit in a new mirror.
    async fn renew(self, cancel: &CancellationToken) -> Result<Self, SourceError> {
        let Self { sources, mirror, address, pin, spent, .. } = self;
        drop(mirror);
        let (turn, since) = (Arc::new(sources.mirrors.turn(&address, cancel).await?), Instant::now());
        let wanted = Wanted { address, line: pin.line, commit: Some(pin.commit) };
        let pin = sources.bring_anew(&turn, &wanted, cancel).await?;
        Ok(Self::new(sources, turn.mirror(), wanted.address, pin, spent + since.elapsed()))
    }

    async fn fill(&self, place: &Place, checkout: &Checkout<'_>) -> Result<(), SourceError> {
        let Checkout { options, cancel, .. } = checkout;
        let program = self.sources.program.as_ref();
        let large_files = match options.lfs {
            true => {
                let what = (&self.address, self.pin.commit);
                LargeFiles::of((program, &self.mirror), what, self.sources.policy, cancel).await?
            }
            false => LargeFiles::Pointers,
        };
        let (its, address, pin, depth, token) =
            (place.clone(), self.address.clone(), self.pin.clone(), options.depth, (*cancel).clone());
        let make =
            move |mirror: &Mirror| workspace::make_repository(&its, mirror, (&address, &pin), depth, &token);
        on(&self.mirror, make).await?;
        match program {
            Some(program) => {
                let (its, files) = (place.clone(), large_files.clone());
                blocking(move || files.set_store(&its)).await?;
                program.fill(place, &self.address, &large_files, cancel).await?;
                let its = place.clone();
                blocking(move || large_files.forget(&its)).await
            }
            None => {
                let (place, commit, token) = (place.clone(), self.pin.commit, (*cancel).clone());
                blocking(move || workspace::fill(&place, commit, &token)).await
            }
        }
    }
}

/// A checkout under way, with all submodules.
struct Checkout<'a> {
    options: &'a CloneOptions,
    cancel: &'a CancellationToken,
    /// How many more submodules there may be.
    left: usize,
    done: CheckedOut,
}

impl Checkout<'_> {
    /// A repository and all submodules in it, level by level. Nothing is pinned in between: a
    /// submodule may be of the very same repository.
    async fn all(&mut self, pinned: Pinned, place: Place) -> Result<(), SourceError> {
        let sources = pinned.sources.clone();
        let mut found = VecDeque::from(Box::pin(self.one(pinned, &place, 0)).await?);
        while let Some(submodule) = found.pop_front() {
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                submodule.refused(format!("there are more than {} submodules", submodules::MAX_COUNT))
            })?;
            let inside = Box::pin(self.submodule(&sources, &submodule)).await;
            found.extend(inside.map_err(|error| submodule.failed(error))?);
            blocking(move || submodule.register()).await?;
        }
        Ok(())
    }

    /// A submodule; gives those in it.
    async fn submodule(
        &mut self,
        sources: &Sources,
        submodule: &Submodule,
    ) -> Result<Vec<Submodule>, SourceError> {
        let (address, commit) = (submodule.address.clone(), Some(submodule.commit));
        let mut pinned = sources.pin_wanted(Wanted { address, line: None, commit }, self.cancel).await?;
        // As git has it: on no branch.
        pinned.pin.line = None;
        Box::pin(self.one(pinned, &submodule.place, submodule.level)).await
    }

    /// One repository; once more with a new mirror where the mirror may be the reason for a failure.
    /// Gives the submodules in it, where they are wanted.
    async fn one(
        &mut self,
        mut pinned: Pinned,
        place: &Place,
        level: usize,
    ) -> Result<Vec<Submodule>, SourceError> {
        let mut since = Instant::now();
        let mut result = pinned.fill(place, self).await;
        if let Err(error) = &result
            && error.may_be_the_mirror()
            && !self.cancel.is_cancelled()
        {
            tracing::warn!(%error, url = pinned.address.shown(), "the mirror may be broken: it is made anew");
            let its = place.clone();
            blocking(move || its.clear()).await?;
            self.done.took += since.elapsed();
            pinned = pinned.renew(self.cancel).await?;
            since = Instant::now();
            result = pinned.fill(place, self).await;
        }
        result?;
        if !self.options.lfs && self.done.warnings.is_empty() {
            let its = place.clone();
            self.done.warnings.extend(blocking(move || large_files::warning(&its)).await?);
        }
        self.done.took += pinned.spent + since.elapsed();
        if !self.options.submodules {
            return Ok(Vec::new());
        }
        let Pinned { sources, address, .. } = pinned;
        submodules::of(sources.program.as_ref(), (place, level), &address, sources.policy, self.cancel).await
    }
}
