//! Keeps the mirrors small: within their share of the disk, and each of few packs, however often it
//! was fetched. What anybody uses is left alone; there is a next time.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use tokio_util::sync::CancellationToken;

use super::{
    SourceError, Sources, blocking,
    mirror::remove_all,
    mirrors::{Idle, Kept},
};

/// With more packs than this, git makes fewer of them. Every lookup asks all packs, and every
/// workspace gets all of them.
const MAX_PACKS: usize = 20;

/// Without a git program a mirror with more packs than this is fetched anew.
const MAX_PACKS_WITHOUT_GIT: usize = 200;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Upkeep {
    /// How many mirrors were removed.
    pub removed: usize,
    /// How many were packed anew.
    pub packed: usize,
    /// What the mirrors take of the disk now, in bytes.
    pub disk: u64,
}

impl Sources {
    /// Removes the mirrors that were not used for the longest time until the others are within the
    /// limit on the disk, then packs anew. To be called now and then, from any process.
    pub async fn upkeep(&self, cancel: &CancellationToken) -> Result<Upkeep, SourceError> {
        let (mirrors, limit) = (self.mirrors.clone(), self.limits.disk);
        let (kept, mut done) = blocking(move || evict(mirrors.all()?, limit)).await?;
        for mirror in kept {
            let packs = packs(&mirror.path);
            if packs <= MAX_PACKS || (self.program.is_none() && packs <= MAX_PACKS_WITHOUT_GIT) {
                continue;
            }
            let Some(idle) = mirror.take()? else { continue };
            match self.tidy(&mirror, cancel).await? {
                Tidied::Packed => done.packed += 1,
                Tidied::Useless => {
                    blocking(move || remove(&mirror, &idle)).await?;
                    done.removed += 1;
                }
            }
        }
        Ok(done)
    }

    async fn tidy(&self, mirror: &Kept, cancel: &CancellationToken) -> Result<Tidied, SourceError> {
        let Some(program) = &self.program else { return Ok(Tidied::Useless) };
        match program.tidy(&mirror.path, cancel).await {
            Ok(()) => Ok(Tidied::Packed),
            Err(error) if error.may_be_the_mirror() => {
                tracing::warn!(%error, path = %mirror.path.display(), "a broken mirror is removed");
                Ok(Tidied::Useless)
            }
            Err(error) => Err(error),
        }
    }
}

/// What became of a mirror with many packs.
enum Tidied {
    Packed,
    /// It is best fetched anew.
    Useless,
}

/// Gives those that are left.
fn evict(mut mirrors: Vec<Kept>, limit: u64) -> Result<(Vec<Kept>, Upkeep), SourceError> {
    mirrors.sort_by_key(|mirror| mirror.used);
    let sizes: Vec<u64> = mirrors.iter().map(|mirror| size(&mirror.path)).collect();
    let mut done = Upkeep { disk: sizes.iter().sum(), ..Upkeep::default() };
    let mut left = Vec::new();
    for (mirror, size) in mirrors.into_iter().zip(sizes) {
        if done.disk > limit
            && let Some(idle) = mirror.take()?
        {
            remove(&mirror, &idle)?;
            done.disk -= size;
            done.removed += 1;
        } else {
            left.push(mirror);
        }
    }
    Ok((left, done))
}

/// The files of its locks stay: others may be waiting for them.
fn remove(mirror: &Kept, _idle: &Idle) -> Result<(), SourceError> {
    for kind in ["git", "old", "new"] {
        remove_all(&mirror.path.with_extension(kind))?;
    }
    Ok(())
}

/// What a folder takes of the disk, in bytes. Others may be writing to it.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(its) if its.is_dir() => size(&entry.path()),
        Ok(its) => its.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(of).sum()
}

fn packs(mirror: &Path) -> usize {
    let entries = fs::read_dir(mirror.join("objects/pack")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "idx")).count()
}
