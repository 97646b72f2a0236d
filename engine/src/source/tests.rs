//! Real git, real repositories, a real ssh server.

mod checkouts;
mod faults;
mod hostile;
mod kinds;
mod options;
mod pins;
mod remotes;
mod upkeeping;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use buildr_manifest::{CloneOptions, Outcome};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{job::GitReference, manifest_file};

/// A folder with a repository `origin` of some commits, and a place for mirrors and workspaces.
struct Place {
    folder: TempDir,
}

impl Place {
    /// `main` with two commits, `feature/x` with one more, the annotated tag `v1` and the light
    /// tag `light` at the first commit of `main`.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.origin()).unwrap();
        place.git(&["init", "-q", "-b", "main"]);
        place.commit("a.txt", "one\n");
        place.git(&["tag", "-a", "v1", "-m", "v1"]);
        place.git(&["tag", "light"]);
        place.commit("sub/b.txt", "two\n");
        place.git(&["checkout", "-q", "-b", "feature/x"]);
        place.commit("c.txt", "three\n");
        place.git(&["checkout", "-q", "main"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn origin(&self) -> PathBuf {
        self.path("origin")
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.origin(), arguments)
    }

    fn commit(&self, file: &str, text: &str) -> String {
        let path = self.origin().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", text.trim()]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("file://{}", self.origin().display())
    }

    fn sources(&self, backend: Backend) -> Sources {
        let policy = UrlPolicy { allow_file: true };
        let environment = vec![("GIT_CONFIG_GLOBAL".into(), "/dev/null".into())];
        let settings = Settings { policy, backend, environment, ..Settings::default() };
        Sources::with_settings(self.path("mirrors"), settings)
    }

    fn source(&self, reference: GitReference, commit: Option<String>) -> GitSource {
        GitSource { url: self.url(), reference, commit }
    }

    async fn checkout(&self, sources: &Sources, reference: GitReference, dest: &str) -> Checkout {
        let source = self.source(reference, None);
        check_out(sources, &source, &self.path(dest), &CancellationToken::new()).await.unwrap()
    }

    async fn refused(&self, sources: &Sources, source: GitSource) -> SourceError {
        let dest = self.path("refused");
        let error = check_out(sources, &source, &dest, &CancellationToken::new()).await.unwrap_err();
        let left = fs::read_dir(&dest).map_or(0, Iterator::count);
        assert_eq!(left, 0, "something was left in the workspace after: {error}");
        error
    }
}

/// What was brought.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checkout {
    commit: String,
    branch: Option<String>,
    tag: Option<String>,
}

/// Both halves of bringing a project here.
async fn check_out(
    sources: &Sources,
    source: &GitSource,
    dest: &Path,
    cancel: &CancellationToken,
) -> Result<Checkout, SourceError> {
    let pinned = sources.pin(source, cancel).await?;
    let (commit, branch, tag) = (pinned.commit.clone(), pinned.branch.clone(), pinned.tag.clone());
    pinned.check_out(dest, &CloneOptions::default(), cancel).await?;
    Ok(Checkout { commit, branch, tag })
}

/// Runs git as a person would, apart from this machine's own settings.
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.current_dir(folder).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "a").env(format!("GIT_{role}_EMAIL"), "a@example.org");
    }
    run(&mut command)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn branch(name: &str) -> GitReference {
    GitReference::Branch(name.to_owned())
}

fn tag(name: &str) -> GitReference {
    GitReference::Tag(name.to_owned())
}

/// An entry of a tree.
fn entry(mode: &str, name: impl AsRef<[u8]>, id: &str) -> Vec<u8> {
    let id = git2::Oid::from_str(id).unwrap();
    [mode.as_bytes(), b" ", name.as_ref(), b"\0", id.as_bytes()].concat()
}

/// A tree of `origin` that no well-behaved git would write; gives its id.
fn tree(place: &Place, entries: &[Vec<u8>]) -> String {
    let object = place.path("tree");
    fs::write(&object, entries.concat()).unwrap();
    place.git(&["hash-object", "--literally", "-w", "-t", "tree", object.to_str().unwrap()])
}

/// Puts `main` of `origin` at a commit with this tree.
fn commit_tree(place: &Place, tree: &str) {
    let commit = place.git(&["commit-tree", tree, "-m", "evil"]);
    place.git(&["update-ref", "refs/heads/main", &commit]);
}

/// All that is in the only mirror.
fn mirror_of(place: &Place) -> PathBuf {
    let mirrors = fs::read_dir(place.path("mirrors")).unwrap();
    let mut mirrors =
        mirrors.map(|entry| entry.unwrap().path()).filter(|path| path.extension() == Some(OsStr::new("git")));
    let mirror = mirrors.next().expect("there is a mirror");
    assert!(mirrors.next().is_none(), "there is more than one mirror");
    mirror
}
