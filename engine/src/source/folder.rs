//! What git says of a folder of the user's. Reads only.

use std::{
    path::{Path, PathBuf},
    sync::Once,
};

use git2::{DescribeOptions, Repository};

use super::address::without_credentials;

/// What is known of a folder for a local run; all of it is none outside of a git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderFacts {
    /// The commit that HEAD is at; none before the first.
    pub commit: Option<String>,
    /// The branch that HEAD is on; none where it is detached.
    pub branch: Option<String>,
    /// A tag at that very commit, where there is one.
    pub tag: Option<String>,
    /// The top of the working tree, which may be above the folder.
    pub root: Option<PathBuf>,
    /// The URL of the remote `origin`, without credentials.
    pub origin: Option<String>,
}

/// Looks at a folder. Runs nothing, writes nothing, and never fails: what cannot be read is none.
pub fn describe_folder(path: &Path) -> FolderFacts {
    let Some(repository) = discover(path) else { return FolderFacts::default() };
    let commit = repository.head().and_then(|head| head.peel_to_commit()).ok();
    let tag = commit.as_ref().and_then(|commit| {
        let mut exact = DescribeOptions::new();
        exact.describe_tags().max_candidates_tags(0);
        commit.as_object().describe(&exact).and_then(|found| found.format(None)).ok()
    });
    FolderFacts {
        commit: commit.map(|commit| commit.id().to_string()),
        branch: branch(&repository),
        tag,
        root: repository.workdir().map(Path::to_path_buf),
        origin: repository
            .find_remote("origin")
            .ok()
            .and_then(|remote| remote.url().map(without_credentials).ok()),
    }
}

/// The repository that a folder is in. None for those that libgit2 cannot read, such as SHA-256 ones:
/// what is in them is a folder like any other.
pub(super) fn discover(path: &Path) -> Option<Repository> {
    static EXTENSIONS: Once = Once::new();
    EXTENSIONS.call_once(|| {
        // Objects that a partial clone has not fetched are missing, and nothing else is different.
        // SAFETY: a setting of libgit2, written once; nothing here opens such a repository before.
        if let Err(error) = unsafe { git2::opts::set_extensions(&["partialclone"]) } {
            tracing::warn!(%error, "libgit2 will not read partial clones");
        }
    });
    Repository::discover(path).ok()
}

/// Also the branch that has no commit yet.
fn branch(repository: &Repository) -> Option<String> {
    let head = repository.find_reference("HEAD").ok()?;
    let target = head.symbolic_target().ok()??.to_owned();
    target.strip_prefix("refs/heads/").map(str::to_owned)
}
