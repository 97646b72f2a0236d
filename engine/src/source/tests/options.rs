//! Depth, submodules and large files.

use std::{collections::BTreeMap, os::unix::ffi::OsStringExt};

use super::*;
use crate::source::submodules::address as address_of;

const BOTH: [Backend; 2] = [Backend::Detect, Backend::Library];

fn depth(depth: u32) -> CloneOptions {
    let mut options = CloneOptions::default();
    options.depth = Some(depth);
    options
}

fn submodules() -> CloneOptions {
    let mut options = CloneOptions::default();
    options.submodules = true;
    options
}

fn large_files() -> CloneOptions {
    let mut options = CloneOptions::default();
    options.lfs = true;
    options
}

async fn bring(
    place: &Place,
    backend: Backend,
    options: &CloneOptions,
    dest: &str,
) -> Result<CheckedOut, SourceError> {
    let (sources, cancel) = (place.sources(backend), CancellationToken::new());
    let pinned = sources.pin(&place.source(GitReference::Default, None), &cancel).await?;
    pinned.check_out(&place.path(dest), options, &cancel).await
}

/// An error with its causes.
fn chain(error: &SourceError) -> String {
    crate::error::chain(error)
}

/// All files below a folder with what is in them, without those of git.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in
            fs::read_dir(next).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != ".git")
        {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let below = path.strip_prefix(folder).unwrap().to_owned();
            if kind.is_dir() {
                folders.push(path);
                found.insert(below, Vec::new());
            } else if kind.is_symlink() {
                found.insert(below, fs::read_link(path).unwrap().into_os_string().into_vec());
            } else {
                found.insert(below, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_history_is_as_deep_as_asked_and_the_mirror_stays_whole() {
    for backend in BOTH {
        let place = Place::new();
        place.commit("d.txt", "three\n");
        place.git(&["tag", "-a", "v2", "-m", "v2", "HEAD~1"]);
        for (commits, tags) in [(1, ""), (2, "v2"), (3, "light\nv1\nv2"), (50, "light\nv1\nv2")] {
            let (dest, theirs) = (format!("w{commits}"), place.path(&format!("theirs{commits}")));
            bring(&place, backend.clone(), &depth(commits), &dest).await.unwrap();
            let workspace = place.path(&dest);
            assert_eq!(git(&workspace, &["rev-list", "--count", "HEAD"]), commits.min(3).to_string());
            assert_eq!(git(&workspace, &["tag"]), tags, "{commits}");
            assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
            git(&workspace, &["fsck", "--strict"]);
            git(
                place.folder.path(),
                &["clone", "-q", "--depth", &commits.to_string(), &place.url(), theirs.to_str().unwrap()],
            );
            let shallow = |folder: &Path| fs::read_to_string(folder.join(".git/shallow")).ok();
            // Git marks the first commit too, where the history ends just there.
            let expected = shallow(&theirs).filter(|_| commits < 3);
            assert_eq!(shallow(&workspace), expected, "{commits}");
        }
        let mirror = mirror_of(&place);
        assert_eq!(git(&mirror, &["rev-list", "--count", "main"]), "3");
    }
}

#[tokio::test]
async fn a_merge_ends_where_git_ends_it() {
    let place = Place::new();
    place.git(&["merge", "-q", "--no-ff", "-m", "merge", "feature/x"]);
    place.commit("d.txt", "after\n");
    for commits in 1..5 {
        let (dest, theirs) = (format!("w{commits}"), place.path(&format!("theirs{commits}")));
        bring(&place, Backend::Detect, &depth(commits), &dest).await.unwrap();
        git(
            place.folder.path(),
            &["clone", "-q", "--depth", &commits.to_string(), &place.url(), theirs.to_str().unwrap()],
        );
        let history = |folder: &Path| git(folder, &["log", "--format=%H"]);
        assert_eq!(history(&place.path(&dest)), history(&theirs), "{commits}");
    }
}

/// Two more repositories: `origin` has `inner` as a submodule at `libs/in`, `inner` has `core`.
fn with_submodules() -> Place {
    let place = Place::new();
    for name in ["inner", "core"] {
        let folder = place.path(name);
        fs::create_dir(&folder).unwrap();
        git(&folder, &["init", "-q", "-b", "main"]);
        fs::write(folder.join(format!("{name}.txt")), name).unwrap();
        git(&folder, &["add", "-A"]);
        git(&folder, &["commit", "-q", "-m", name]);
    }
    add_submodule(&place.path("inner"), "../core", "deep");
    add_submodule(&place.origin(), "../inner", "libs/in");
    add_submodule(&place.origin(), &format!("file://{}", place.path("core").display()), "again");
    // It is the named commit that counts, not the newest.
    fs::write(place.path("core/newer.txt"), "").unwrap();
    git(&place.path("core"), &["add", "-A"]);
    git(&place.path("core"), &["commit", "-q", "-m", "newer"]);
    place
}

/// As `git submodule add`, which would ask the remote of the folder's branch.
fn add_submodule(folder: &Path, url: &str, path: &str) {
    let there = folder.join(url);
    let there = url.strip_prefix("file://").map_or(there, PathBuf::from);
    let commit = git(&there, &["rev-parse", "HEAD"]);
    say(folder, path, path, url);
    link(folder, path, &commit);
}

/// Writes a section of `.gitmodules`.
fn say(folder: &Path, name: &str, path: &str, url: &str) {
    for (variable, value) in [("path", path), ("url", url)] {
        git(folder, &["config", "-f", ".gitmodules", &format!("submodule.{name}.{variable}"), value]);
    }
    git(folder, &["add", ".gitmodules"]);
}

fn link(folder: &Path, path: &str, commit: &str) {
    git(folder, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    git(folder, &["commit", "-q", "-m", "module"]);
}

#[tokio::test]
async fn submodules_are_what_git_makes_of_them() {
    let place = with_submodules();
    bring(&place, Backend::Detect, &submodules(), "made").await.unwrap();
    // Wherever it is mounted, and with nothing of this machine around it.
    let workspace = place.path("workspace");
    fs::rename(place.path("made"), &workspace).unwrap();
    let allow = "protocol.file.allow=always";
    let clone = ["-c", allow, "clone", "-q", "--recurse-submodules", &place.url(), "theirs"];
    git(place.folder.path(), &clone);
    assert_eq!(files(&workspace), files(&place.path("theirs")));
    assert!(workspace.join("libs/in/deep/core.txt").exists());
    let status = |folder: &Path| {
        let status = git(folder, &["submodule", "status", "--recursive"]);
        status.lines().map(|line| line.split(" (").next().unwrap().trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(status(&workspace), status(&place.path("theirs")));
    fs::remove_dir_all(place.path("mirrors")).unwrap();
    assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
    git(&workspace, &["submodule", "foreach", "--recursive", "-q", "git fsck --strict && git log -1"]);
}

#[tokio::test]
async fn without_being_asked_for_submodules_are_empty_folders() {
    let place = with_submodules();
    bring(&place, Backend::Detect, &CloneOptions::default(), "w").await.unwrap();
    assert_eq!(fs::read_dir(place.path("w/libs/in")).unwrap().count(), 0);
}

#[tokio::test]
async fn submodules_have_the_depth_that_was_asked_for() {
    let place = with_submodules();
    let mut options = depth(1);
    options.submodules = true;
    bring(&place, Backend::Detect, &options, "w").await.unwrap();
    for folder in ["w", "w/libs/in", "w/libs/in/deep", "w/again"] {
        assert_eq!(git(&place.path(folder), &["rev-list", "--count", "HEAD"]), "1", "{folder}");
    }
}

#[tokio::test]
async fn a_repository_may_be_its_own_submodule_for_as_long_as_that_ends() {
    let place = Place::new();
    let first = place.git(&["rev-parse", "HEAD"]);
    say(&place.origin(), "self", "self", "../origin");
    link(&place.origin(), "self", &first);
    bring(&place, Backend::Detect, &submodules(), "w").await.unwrap();
    assert!(place.path("w/self/a.txt").exists());
    // Each is in the one before it, so this has a new level with every commit.
    for _ in 0..10 {
        let head = place.git(&["rev-parse", "HEAD"]);
        link(&place.origin(), "self", &head);
    }
    let error = bring(&place, Backend::Detect, &submodules(), "deep").await.unwrap_err();
    assert!(chain(&error).contains("submodules deep"), "{}", chain(&error));
    assert_eq!(fs::read_dir(place.path("deep")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_submodule_that_git_is_needed_for_says_so() {
    let place = with_submodules();
    let error = bring(&place, Backend::Library, &submodules(), "w").await.unwrap_err().to_string();
    assert!(error.contains("needs git"), "{error}");
}

#[tokio::test]
async fn hostile_urls_of_submodules_are_refused_by_name() {
    for (url, why) in [
        ("ext::sh -c touch% /tmp/x", "white space"),
        ("ext::sh", "remote helpers"),
        ("-u./x", "`-`"),
        ("ssh://-oProxyCommand=x/y", "`-`"),
        ("../../../../../../../../../../x", "above"),
        ("file://host/x", "absolute path"),
    ] {
        let place = Place::new();
        let commit = place.git(&["rev-parse", "HEAD"]);
        say(&place.origin(), "evil", "evil", url);
        link(&place.origin(), "evil", &commit);
        let error = chain(&bring(&place, Backend::Detect, &submodules(), "w").await.unwrap_err());
        assert!(error.contains("submodule `evil`") && error.contains(why), "{url}: {error}");
        assert_eq!(fs::read_dir(place.path("w")).unwrap().count(), 0);
    }
}

#[test]
fn a_repository_from_elsewhere_cannot_name_this_machines_disk() {
    let policy = UrlPolicy { allow_file: true };
    let far = address::Address::parse("https://example.org/a/b", policy).unwrap();
    for url in ["file:///etc", "/etc"] {
        let error = address_of(&far, url, policy).unwrap_err();
        assert!(matches!(error, SourceError::FileNotAllowed { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_commit_that_a_submodule_has_not_is_named_with_the_submodule() {
    let place = with_submodules();
    link(&place.origin(), "libs/in", &"0123456789".repeat(4));
    let error = chain(&bring(&place, Backend::Detect, &submodules(), "w").await.unwrap_err());
    assert!(error.contains("`libs/in`") && error.contains("no commit 0123456789"), "{error}");
}

#[tokio::test]
async fn hostile_names_and_paths_of_submodules_are_refused() {
    type Prepare = fn(&Place, &str);
    let prepare: [(&str, Prepare); 4] = [
        ("leads out", |place, commit| {
            say(&place.origin(), "../../x", "sub/m", "../origin");
            link(&place.origin(), "sub/m", commit);
        }),
        ("same folder", |place, commit| {
            say(&place.origin(), "x", "x", "../origin");
            say(&place.origin(), "x/hooks", "y", "../origin");
            link(&place.origin(), "x", commit);
        }),
        ("command", |place, commit| {
            say(&place.origin(), "x", "x", "../origin");
            place.git(&["config", "-f", ".gitmodules", "submodule.x.update", "!touch x"]);
            place.git(&["add", ".gitmodules"]);
            link(&place.origin(), "x", commit);
        }),
        ("does not name its URL", |place, commit| link(&place.origin(), "x", commit)),
    ];
    for (why, prepare) in prepare {
        let place = Place::new();
        let commit = place.git(&["rev-parse", "HEAD"]);
        prepare(&place, &commit);
        let error = chain(&bring(&place, Backend::Detect, &submodules(), "w").await.unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(!place.path("x").exists());
    }
}

/// A tree that no well-behaved git would write: `a` is a link to `.git`, and a folder with a
/// submodule `a/modules` all the same.
#[tokio::test]
async fn a_link_in_the_place_of_a_submodules_folder_is_not_followed() {
    let place = Place::new();
    let commit = place.git(&["rev-parse", "HEAD"]);
    say(&place.origin(), "x", "a/x", "../origin");
    let modules = place.git(&["rev-parse", ":.gitmodules"]);
    fs::write(place.path("target"), ".git").unwrap();
    let link = place.git(&["hash-object", "-w", place.path("target").to_str().unwrap()]);
    let inner = tree(&place, &[entry("160000", "x", &commit)]);
    let root =
        [entry("100644", ".gitmodules", &modules), entry("120000", "a", &link), entry("40000", "a", &inner)];
    commit_tree(&place, &tree(&place, &root));
    // Git may leave out the one or the other.
    let done = bring(&place, Backend::Detect, &submodules(), "w").await;
    assert!(!place.path("w/.git/x").exists(), "{done:?}");
    assert!(!place.path("w/.git/.git").exists(), "{done:?}");
}

/// `origin` with a large file, which its LFS store has.
fn with_large_file() -> Place {
    let place = Place::new();
    place.git(&["lfs", "install", "--local"]);
    place.git(&["lfs", "track", "*.bin"]);
    place.commit("big.bin", &"large\n".repeat(10_000));
    assert!(place.git(&["show", "HEAD:big.bin"]).starts_with("version https://git-lfs"));
    place
}

#[tokio::test]
async fn large_files_come_where_they_are_asked_for() {
    let place = with_large_file();
    let done = bring(&place, Backend::Detect, &large_files(), "w").await.unwrap();
    assert_eq!(done.warnings, Vec::<String>::new());
    assert_eq!(fs::read_to_string(place.path("w/big.bin")).unwrap(), "large\n".repeat(10_000));
    assert!(!place.path("w/.git/hooks").exists());
    // Who has LFS in the container sees a clean tree.
    let clean = "filter.lfs.clean=git-lfs clean -- %f";
    assert_eq!(git(&place.path("w"), &["-c", clean, "status", "--porcelain"]), "");
    let left = fs::read_to_string(place.path("w/.git/config")).unwrap();
    assert!(!left.contains("mirrors"), "{left}");
    // They are kept beside the mirror: the next build needs no server for them.
    fs::rename(place.origin().join(".git/lfs"), place.path("lfs")).unwrap();
    bring(&place, Backend::Detect, &large_files(), "again").await.unwrap();
    assert_eq!(files(&place.path("again")), files(&place.path("w")));
}

#[tokio::test]
async fn large_files_stay_pointers_otherwise_and_one_warning_says_so() {
    let place = with_large_file();
    for backend in BOTH {
        let dest = format!("{backend:?}");
        let done = bring(&place, backend, &CloneOptions::default(), &dest).await.unwrap();
        assert_eq!(done.warnings.len(), 1, "{:?}", done.warnings);
        assert!(done.warnings[0].contains("lfs: true"), "{:?}", done.warnings);
        assert!(fs::read_to_string(place.path(&dest).join("big.bin")).unwrap().starts_with("version https"));
    }
}

#[tokio::test]
async fn a_large_file_that_was_never_pushed_is_told() {
    let place = with_large_file();
    fs::remove_dir_all(place.origin().join(".git/lfs/objects")).unwrap();
    let error = bring(&place, Backend::Detect, &large_files(), "w").await.unwrap_err();
    assert!(matches!(error, SourceError::LargeFile { .. }), "{error:?}");
    assert!(error.to_string().contains("big.bin"), "{error}");
    assert_eq!(fs::read_dir(place.path("w")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_repository_cannot_send_lfs_wherever_it_likes() {
    for url in ["ssh://-oProxyCommand=x/y", "ext::sh", "file://host/x"] {
        let place = with_large_file();
        place.git(&["config", "-f", ".lfsconfig", "lfs.url", url]);
        place.commit("x", "x");
        let error = bring(&place, Backend::Detect, &large_files(), "w").await.unwrap_err();
        assert!(matches!(error, SourceError::RefusedUrl { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn without_the_program_large_files_are_refused_with_what_to_install() {
    let place = with_large_file();
    let error = bring(&place, Backend::Library, &large_files(), "w").await.unwrap_err().to_string();
    assert!(error.contains("git-lfs"), "{error}");
}
