//! A commit that was decided on: it is here, and stays here until it is dropped.

use std::{path::Path, sync::Arc, time::Duration};

use buildr_manifest::CloneOptions;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    SourceError, Sources,
    address::Address,
    blocking,
    fetch::Pin,
    mirror::Mirror,
    on,
    tree::{self, Lookup},
    wanted::{Line, Wanted},
    workspace,
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
    /// branch known here. `dest` stands for itself: it can be mounted anywhere. After an error it is
    /// empty again. A cancel ends git and all its children.
    pub async fn check_out(
        mut self,
        dest: &Path,
        options: &CloneOptions,
        cancel: &CancellationToken,
    ) -> Result<CheckedOut, SourceError> {
        let since = Instant::now();
        let folder = dest.to_owned();
        blocking(move || workspace::vacant(&folder)).await?;
        let mut result = self.fill(dest, options, cancel).await;
        let mut waited = Duration::ZERO;
        if let Err(error) = &result
            && error.may_be_the_mirror()
            && !cancel.is_cancelled()
        {
            tracing::warn!(%error, url = self.address.shown(), "the mirror may be broken: it is made anew");
            clear(dest).await?;
            (self, waited) = self.renew(cancel).await?;
            result = self.fill(dest, options, cancel).await;
        }
        if result.is_err()
            && let Err(error) = clear(dest).await
        {
            tracing::warn!(%error, "a workspace that failed could not be emptied");
        }
        let took = self.spent + since.elapsed().saturating_sub(waited);
        result.map(|()| CheckedOut { took, ..CheckedOut::default() })
    }

    /// The same commit in a new mirror, and how long others were waited for.
    async fn renew(self, cancel: &CancellationToken) -> Result<(Self, Duration), SourceError> {
        let Self { sources, mirror, address, pin, spent, .. } = self;
        drop(mirror);
        let turn = Arc::new(sources.mirrors.turn(&address, cancel).await?);
        let wanted = Wanted { address, line: pin.line, commit: Some(pin.commit) };
        let pin = sources.bring_anew(&turn, &wanted, cancel).await?;
        Ok((Self::new(sources, turn.mirror(), wanted.address, pin, spent), turn.waited))
    }

    async fn fill(
        &self,
        dest: &Path,
        _options: &CloneOptions,
        cancel: &CancellationToken,
    ) -> Result<(), SourceError> {
        let (folder, address, pin, token) =
            (dest.to_owned(), self.address.clone(), self.pin.clone(), cancel.clone());
        on(&self.mirror, move |mirror| workspace::make_repository(&folder, mirror, &address, &pin, &token))
            .await?;
        match &self.sources.program {
            Some(program) => program.fill(dest, &self.address, cancel).await,
            None => {
                let (folder, commit, token) = (dest.to_owned(), self.pin.commit, cancel.clone());
                blocking(move || workspace::fill(&folder, commit, &token)).await
            }
        }
    }
}

async fn clear(folder: &Path) -> Result<(), SourceError> {
    let folder = folder.to_owned();
    blocking(move || workspace::clear(&folder)).await
}
