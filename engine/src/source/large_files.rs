//! Files that git LFS keeps outside of the repository. Git's own extension fetches them, with the
//! machine's credentials, into a store beside the mirror's objects.

use std::{ffi::OsString, path::PathBuf};

use git2::{Oid, Repository};
use tokio_util::sync::CancellationToken;

use super::{
    SourceError, UrlPolicy,
    address::Address,
    mirror::{Mirror, local},
    program::Program,
    tree,
    workspace::Place,
};

/// The file in which a repository names another server for them.
const SETTINGS_FILE: &str = ".lfsconfig";

/// Where git LFS keeps its files.
const STORE: &str = "lfs.storage";

/// The largest file of attributes that is looked at, in bytes.
const MAX_ATTRIBUTES: usize = 1 << 20;

/// What becomes of the pointers to large files.
#[derive(Clone, Debug)]
pub(super) enum LargeFiles {
    /// They stay.
    Pointers,
    /// They are replaced by the files, which are kept in this store.
    Files {
        /// Where they are kept.
        store: PathBuf,
    },
}

impl LargeFiles {
    /// Checks that the files of a commit can be had: the machine has LFS, and the server that the
    /// repository names is one that may be asked.
    pub(super) async fn of(
        (program, mirror): (Option<&Program>, &Mirror),
        (address, commit): (&Address, Oid),
        policy: UrlPolicy,
        cancel: &CancellationToken,
    ) -> Result<Self, SourceError> {
        let missing = |program| {
            let what = "`clone: {lfs: true}`";
            SourceError::NoProgram {
                what,
                program,
                package: "git and git-lfs (on Debian: apt-get install git-lfs)",
            }
        };
        let program = program.ok_or_else(|| missing("git"))?;
        if !program.has_large_files(address, cancel).await? {
            return Err(missing("git-lfs"));
        }
        // Whoever may write to the repository may not send this machine to its own disk.
        let policy = UrlPolicy { allow_file: policy.allow_file && address.is_file() };
        if let Some(settings) = tree::blob_at_root(mirror, commit, SETTINGS_FILE)? {
            for (name, value) in program.settings_in(mirror.path(), settings, address, cancel).await? {
                if name.ends_with("url") {
                    Address::parse(&value, policy)?;
                }
            }
        }
        Ok(Self::Files { store: mirror.path().join("lfs") })
    }

    /// Settings of git that make it so.
    pub(super) fn settings(&self) -> Vec<OsString> {
        let Self::Files { .. } = self else { return Vec::new() };
        let filter = [
            "filter.lfs.process=git-lfs filter-process",
            "filter.lfs.smudge=git-lfs smudge -- %f",
            "filter.lfs.clean=git-lfs clean -- %f",
            "filter.lfs.required=true",
        ];
        filter.into_iter().map(OsString::from).collect()
    }

    /// Tells the repository of a checkout where the store is, until [`LargeFiles::forget`]. As a
    /// setting of git's command it would also count for a remote on this machine. Blocks.
    pub(super) fn set_store(&self, place: &Place) -> Result<(), SourceError> {
        let Self::Files { store } = self else { return Ok(()) };
        let set = || Repository::open(&place.git)?.config()?.set_str(STORE, &store.to_string_lossy());
        set().map_err(local(&place.git))
    }

    /// After [`LargeFiles::set_store`]. Blocks.
    pub(super) fn forget(&self, place: &Place) -> Result<(), SourceError> {
        let Self::Files { .. } = self else { return Ok(()) };
        let forget = || Repository::open(&place.git)?.config()?.remove(STORE);
        forget().map_err(local(&place.git))
    }
}

/// What to say of a checkout whose attributes name LFS, and whose pointers stayed. Blocks.
pub(super) fn warning(place: &Place) -> Result<Option<String>, SourceError> {
    let find = || -> Result<Option<String>, git2::Error> {
        let repository = Repository::open(&place.git)?;
        let odb = repository.odb()?;
        for entry in repository.index()?.iter().filter(|entry| entry.path.ends_with(b".gitattributes")) {
            if odb.read_header(entry.id).is_ok_and(|(size, _)| size <= MAX_ATTRIBUTES)
                && names_filter(repository.find_blob(entry.id)?.content())
            {
                return Ok(Some(format!(
                    "{} says that files are kept by git LFS: they are pointers here; `clone: {{lfs: true}}` brings the files",
                    String::from_utf8_lossy(&entry.path)
                )));
            }
        }
        Ok(None)
    };
    find().map_err(local(&place.git))
}

fn names_filter(attributes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(attributes);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(str::split_whitespace).any(|word| word == "filter=lfs")
}
