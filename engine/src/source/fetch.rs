//! Getting what is wanted into a mirror, and deciding which commit it is.

use std::sync::Arc;

use git2::Oid;
use tokio_util::sync::CancellationToken;

use super::{
    SourceError, Sources,
    address::Address,
    library::Library,
    mirror::Mirror,
    mirrors::Turn,
    on,
    wanted::{Line, Wanted},
};

/// How many names that look like a missing one are told.
const NEAR_NAMES: usize = 3;

/// A commit that was decided on, and the line of history that it was found by.
#[derive(Clone, Debug)]
pub(super) struct Pin {
    pub(super) commit: Oid,
    pub(super) line: Option<Line>,
}

/// What became of a fetch that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    Done,
    /// The remote has no such ref or commit.
    NotThere,
}

/// Getting what is wanted into a mirror that nobody else fetches into.
pub(super) struct Fetch<'a> {
    pub(super) sources: &'a Sources,
    pub(super) address: &'a Address,
    pub(super) turn: &'a Arc<Turn>,
    pub(super) cancel: &'a CancellationToken,
}

impl Fetch<'_> {
    /// Decides on the commit; it is in the mirror afterwards.
    pub(super) async fn pin(&self, wanted: &Wanted) -> Result<Pin, SourceError> {
        match (wanted.commit, &wanted.line) {
            (None, Some(line)) => self.pin_line(line.clone()).await,
            (None, None) => {
                let branch = self.default_branch().await?;
                self.pin_line(branch).await
            }
            (Some(commit), line) => self.pin_commit(commit, line.clone()).await,
        }
    }

    async fn pin_line(&self, line: Line) -> Result<Pin, SourceError> {
        if self.fetch_line(&line).await? == Fetched::NotThere {
            return Err(self.no_reference(&line).await?);
        }
        let wanted = line.clone();
        let Some(commit) = self.on_mirror(move |mirror| mirror.tip(&wanted)).await? else {
            let detail = format!("{} is not at a commit", line.full_name());
            return Err(SourceError::Git { url: self.url(), detail });
        };
        Ok(Pin { commit, line: Some(line) })
    }

    async fn pin_commit(&self, commit: Oid, line: Option<Line>) -> Result<Pin, SourceError> {
        let has = || self.on_mirror(move |mirror| mirror.has(commit));
        let mut line = line;
        if !has().await? {
            let found_by = match line.clone() {
                Some(line) => line,
                None => self.default_branch().await?,
            };
            self.fetch_line(&found_by).await?;
        }
        if !has().await? {
            let refspec = format!("+{commit}:refs/buildr/{commit}");
            let fetched = self.fetch(&refspec).await?;
            if fetched == Fetched::NotThere || !has().await? {
                return Err(SourceError::NoCommit { url: self.url(), commit: commit.to_string() });
            }
        }
        if line.is_none() {
            line = self
                .on_mirror(move |mirror| {
                    let branch = mirror.default_branch()?;
                    Ok(match branch {
                        Some(branch) if mirror.is_on(commit, &branch)? => Some(branch),
                        _ => None,
                    })
                })
                .await?;
        }
        Ok(Pin { commit, line })
    }

    async fn default_branch(&self) -> Result<Line, SourceError> {
        let found = match &self.sources.program {
            Some(program) => program.default_branch(self.address, self.cancel).await?,
            None => self.library(|library, _| library.default_branch()).await?,
        };
        let (name, _) = found.ok_or_else(|| SourceError::Empty { url: self.url() })?;
        let branch = Line::Branch(name);
        // The remote's word is no more trusted than the submitter's.
        branch.check()?;
        let head = branch.clone();
        self.on_mirror(move |mirror| mirror.set_default_branch(&head)).await?;
        Ok(branch)
    }

    async fn fetch_line(&self, line: &Line) -> Result<Fetched, SourceError> {
        let name = line.full_name();
        self.fetch(&format!("+{name}:{name}")).await
    }

    async fn fetch(&self, refspec: &str) -> Result<Fetched, SourceError> {
        if let Some(program) = &self.sources.program {
            return program.fetch(self.turn.mirror().path(), self.address, refspec, self.cancel).await;
        }
        let refspec = refspec.to_owned();
        self.library(move |library, mirror| library.fetch(mirror.path(), &refspec)).await
    }

    /// The error for a branch or tag that is not there, with the names that look like it.
    async fn no_reference(&self, line: &Line) -> Result<SourceError, SourceError> {
        let names = match &self.sources.program {
            Some(program) => program.names(self.address, line, self.cancel).await?,
            None => {
                let like = line.clone();
                self.library(move |library, _| library.names(&like)).await?
            }
        };
        let (url, name, kind) = (self.url(), line.name().to_owned(), line.kind());
        Ok(SourceError::NoReference { url, kind, near: nearest(&name, names), name })
    }

    /// Uses libgit2 on a thread that may block. A cancel is answered at once; the thread ends by
    /// itself and keeps the mirror's lock until then.
    async fn library<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Library, &Mirror) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let library = Library::new(self.sources.limits, self.address.clone(), self.cancel.clone());
        tokio::select! {
            result = self.on_mirror(move |mirror| work(&library, mirror)) => result,
            () = self.cancel.cancelled() => Err(SourceError::Canceled),
        }
    }

    /// Works on the mirror on a thread that may block.
    async fn on_mirror<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Mirror) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        on(self.turn, move |turn| work(turn.mirror())).await
    }

    fn url(&self) -> String {
        self.address.shown().to_owned()
    }
}

/// The names that look like this one, the nearest first.
fn nearest(name: &str, names: Vec<String>) -> Vec<String> {
    let mut near: Vec<_> = names
        .into_iter()
        .map(|other| (strsim::jaro_winkler(name, &other), other))
        .filter(|(likeness, _)| *likeness > 0.7)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    near.into_iter().take(NEAR_NAMES).map(|(_, name)| name).collect()
}
