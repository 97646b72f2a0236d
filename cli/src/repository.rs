//! What the git repository around a folder says about a project. Reads only.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository, StatusOptions};

use crate::Error;

/// A checked-out repository.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    /// Its working tree.
    pub(crate) root: PathBuf,
    /// The URL of its remote `origin`.
    pub(crate) origin: Option<String>,
    /// The branch that is checked out.
    pub(crate) branch: Option<String>,
    /// The commit that is checked out; none before the first one.
    pub(crate) commit: Option<String>,
    /// As far as is known here, the remote does not have that commit.
    pub(crate) unpushed: bool,
    /// Tracked files differ from that commit.
    pub(crate) dirty: bool,
}

impl Checkout {
    /// Looks for a repository around a folder.
    pub(crate) fn around(folder: &Path) -> Result<Self, Error> {
        let repository = Repository::discover(folder).map_err(|error| match error.code() {
            ErrorCode::NotFound => Error::NotARepository { folder: folder.to_owned() },
            _ => Error::Git(error),
        })?;
        let root = repository.workdir().unwrap_or(repository.path()).to_owned();
        let head = repository.head().ok();
        let branch = head
            .as_ref()
            .filter(|head| head.is_branch())
            .and_then(|head| head.shorthand().ok().map(str::to_owned));
        let id = head.and_then(|head| head.peel_to_commit().ok()).map(|commit| commit.id());
        Ok(Self {
            origin: origin(&repository, &root),
            unpushed: id.is_some_and(|id| is_unpushed(&repository, id)),
            dirty: is_dirty(&repository),
            commit: id.map(|id| id.to_string()),
            root,
            branch,
        })
    }
}

fn origin(repository: &Repository, root: &Path) -> Option<String> {
    let remote = repository.find_remote("origin").ok()?;
    let url = remote.url().ok()?;
    Some(as_url(url, root))
}

/// Makes a file URL of what names a folder of this machine, as agents take no bare paths.
pub(crate) fn as_url(text: &str, base: &Path) -> String {
    let colon = text.find(':').unwrap_or(usize::MAX);
    let slash = text.find('/').unwrap_or(usize::MAX);
    let is_remote = colon < slash;
    let path = base.join(text);
    if is_remote || !path.is_dir() {
        return text.to_owned();
    }
    match path.canonicalize() {
        Ok(path) => format!("file://{}", path.display()),
        Err(_) => text.to_owned(),
    }
}

/// No remote branch that is known here has the commit.
fn is_unpushed(repository: &Repository, commit: git2::Oid) -> bool {
    let Ok(branches) = repository.branches(Some(git2::BranchType::Remote)) else { return false };
    let mut heads = branches.flatten().filter_map(|(branch, _)| branch.get().target()).peekable();
    heads.peek().is_some()
        && !heads.any(|head| head == commit || repository.graph_descendant_of(head, commit).unwrap_or(false))
}

fn is_dirty(repository: &Repository) -> bool {
    let mut options = StatusOptions::new();
    options.include_untracked(false).exclude_submodules(true);
    repository.statuses(Some(&mut options)).is_ok_and(|statuses| !statuses.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_becomes_a_file_url_and_a_url_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("project")).unwrap();
        assert_eq!(as_url("project", &root), format!("file://{}/project", root.display()));
        for url in ["https://example.com/a.git", "git@example.com:a/b", "no/such/folder"] {
            assert_eq!(as_url(url, &root), url);
        }
    }

    #[test]
    fn a_folder_without_git_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Checkout::around(folder.path()), Err(Error::NotARepository { .. })));
    }

    #[test]
    fn a_commit_that_no_remote_branch_has_is_unpushed() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init(folder.path()).unwrap();
        let who = git2::Signature::now("a", "a@example.com").unwrap();
        let tree = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let first = repository.commit(Some("HEAD"), &who, &who, "one", &tree, &[]).unwrap();
        repository.reference("refs/remotes/origin/main", first, true, "").unwrap();
        repository.remote("origin", "https://example.com/a.git").unwrap();
        let checkout = Checkout::around(folder.path()).unwrap();
        assert!(!checkout.unpushed && !checkout.dirty);
        assert_eq!(checkout.origin.as_deref(), Some("https://example.com/a.git"));
        let parent = repository.find_commit(first).unwrap();
        repository.commit(Some("HEAD"), &who, &who, "two", &tree, &[&parent]).unwrap();
        assert!(Checkout::around(folder.path()).unwrap().unpushed);
    }
}
