//! What is in a workspace afterwards.

use std::os::unix::fs::MetadataExt;

use super::*;

const BOTH: [Backend; 2] = [Backend::Detect, Backend::Library];

#[tokio::test]
async fn the_default_branch_is_found_and_reported() {
    for backend in BOTH {
        let place = Place::new();
        let sources = place.sources(backend);
        let checkout = place.checkout(&sources, GitReference::Default, "w").await;
        assert_eq!(checkout.branch.as_deref(), Some("main"));
        assert_eq!(checkout.commit, place.git(&["rev-parse", "main"]));
        assert_eq!(fs::read_to_string(place.path("w/sub/b.txt")).unwrap(), "two\n");
        assert!(!place.path("w/c.txt").exists());
    }
}

#[tokio::test]
async fn a_workspace_is_a_whole_repository_by_itself() {
    for backend in BOTH {
        let place = Place::new();
        let sources = place.sources(backend);
        place.checkout(&sources, branch("feature/x"), "made").await;
        fs::rename(place.path("made"), place.path("workspace")).unwrap();
        fs::remove_dir_all(place.path("mirrors")).unwrap();
        fs::remove_dir_all(place.origin()).unwrap();
        let workspace = place.path("workspace");
        assert_eq!(git(&workspace, &["status", "--porcelain"]), "");
        assert_eq!(git(&workspace, &["rev-parse", "--abbrev-ref", "HEAD"]), "feature/x");
        assert_eq!(git(&workspace, &["log", "--format=%s"]), "three\ntwo\none");
        let described = git(&workspace, &["describe", "--always"]);
        assert!(described.starts_with("v1-2-g"), "{described}");
        assert_eq!(git(&workspace, &["tag"]), "light\nv1");
        assert_eq!(git(&workspace, &["config", "remote.origin.url"]), place.url());
        git(&workspace, &["fsck", "--strict"]);
        assert!(git(&workspace, &["status"]).contains("up to date with 'origin/feature/x'"));
    }
}

#[tokio::test]
async fn a_tag_is_checked_out_without_a_branch() {
    for backend in BOTH {
        let place = Place::new();
        let sources = place.sources(backend);
        for (index, name) in ["v1", "light"].into_iter().enumerate() {
            let dest = format!("w{index}");
            let checkout = place.checkout(&sources, tag(name), &dest).await;
            assert_eq!((checkout.branch, checkout.tag.as_deref()), (None, Some(name)));
            assert_eq!(checkout.commit, place.git(&["rev-parse", "v1^{commit}"]));
            let workspace = place.path(&dest);
            assert_eq!(git(&workspace, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
            assert_eq!(git(&workspace, &["describe", "--always"]), "v1");
        }
    }
}

#[tokio::test]
async fn a_new_commit_is_seen_by_the_second_checkout_and_a_pinned_one_stays() {
    for backend in BOTH {
        let place = Place::new();
        let sources = place.sources(backend);
        let first = place.checkout(&sources, branch("main"), "first").await;
        let newest = place.commit("a.txt", "four\n");
        let second = place.checkout(&sources, branch("main"), "second").await;
        assert_eq!(second.commit, newest);
        assert_eq!(fs::read_to_string(place.path("second/a.txt")).unwrap(), "four\n");
        let source = place.source(branch("main"), Some(first.commit.clone()));
        let pinned =
            check_out(&sources, &source, &place.path("pinned"), &CancellationToken::new()).await.unwrap();
        assert_eq!(pinned, first);
        assert_eq!(git(&place.path("pinned"), &["rev-parse", "main", "HEAD"]).lines().count(), 2);
        assert_eq!(fs::read_to_string(place.path("pinned/a.txt")).unwrap(), "one\n");
    }
}

#[tokio::test]
async fn a_rewritten_branch_is_followed() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    place.checkout(&sources, branch("main"), "first").await;
    place.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let commit = place.commit("z.txt", "other\n");
    assert_eq!(place.checkout(&sources, branch("main"), "second").await.commit, commit);
}

#[tokio::test]
async fn a_branch_may_take_the_place_of_a_folder_of_branches() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    place.checkout(&sources, branch("feature/x"), "first").await;
    place.git(&["branch", "-q", "-m", "feature/x", "feature"]);
    place.checkout(&sources, branch("feature"), "second").await;
}

#[tokio::test]
async fn a_pinned_commit_in_the_mirror_needs_no_remote() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    let first = place.checkout(&sources, GitReference::Default, "first").await;
    fs::rename(place.origin(), place.path("gone")).unwrap();
    for reference in [GitReference::Default, branch("main")] {
        let source = place.source(reference, Some(first.commit.clone()));
        let dest = place.path("again");
        let again = check_out(&sources, &source, &dest, &CancellationToken::new()).await.unwrap();
        assert_eq!(again, first);
        fs::remove_dir_all(dest).unwrap();
    }
}

#[tokio::test]
async fn a_commit_off_the_default_branch_is_checked_out_without_a_branch() {
    for backend in BOTH {
        let place = Place::new();
        place.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let commit = place.git(&["rev-parse", "feature/x"]);
        let sources = place.sources(backend);
        let source = place.source(GitReference::Default, Some(commit.clone()));
        let checkout =
            check_out(&sources, &source, &place.path("w"), &CancellationToken::new()).await.unwrap();
        assert_eq!(checkout, Checkout { commit, branch: None, tag: None });
        assert_eq!(git(&place.path("w"), &["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn a_new_tag_on_an_old_commit_arrives() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    place.checkout(&sources, branch("main"), "first").await;
    place.git(&["tag", "-a", "v2", "-m", "v2"]);
    place.checkout(&sources, branch("main"), "second").await;
    assert_eq!(git(&place.path("second"), &["describe"]), "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_checkouts_of_one_repository_do_not_meet() {
    let place = Arc::new(Place::new());
    // Two of each: one `Sources` is a process to the other.
    let both = [Arc::new(place.sources(Backend::Detect)), Arc::new(place.sources(Backend::Detect))];
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..12 {
        let (place, sources) = (place.clone(), both[index % 2].clone());
        let reference = [branch("main"), branch("feature/x"), tag("v1")][index % 3].clone();
        tasks.spawn(async move {
            let dest = format!("w{index}");
            let checkout = place.checkout(&sources, reference, &dest).await;
            assert_eq!(git(&place.path(&dest), &["status", "--porcelain"]), "");
            assert_eq!(git(&place.path(&dest), &["rev-parse", "HEAD"]), checkout.commit);
        });
    }
    assert_eq!(tasks.join_all().await.len(), 12);
    mirror_of(&place);
}

#[tokio::test]
async fn a_build_cannot_write_to_the_mirror_through_its_workspace() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    place.checkout(&sources, branch("main"), "w").await;
    let packs = fs::read_dir(place.path("w/.git/objects/pack")).unwrap();
    for pack in packs.map(Result::unwrap) {
        assert_eq!(pack.metadata().unwrap().nlink(), 1, "{pack:?}");
    }
    assert!(!place.path("w/.git/objects/info/alternates").exists());
}

#[tokio::test]
async fn nothing_of_the_repository_is_run() {
    let place = Place::new();
    let mark = place.path("ran");
    let script = format!("#!/bin/sh\ntouch {}\n", mark.display());
    for hook in ["post-checkout", "post-merge", "reference-transaction", "post-index-change"] {
        let path = place.origin().join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &script).unwrap();
        run(Command::new("chmod").arg("+x").arg(path));
    }
    place.commit(".gitattributes", "*.txt filter=evil\n");
    place.git(&["config", "filter.evil.smudge", &format!("touch {}", mark.display())]);
    let sources = place.sources(Backend::Detect);
    let _ = fs::remove_file(&mark);
    place.checkout(&sources, branch("main"), "w").await;
    assert!(!mark.exists());
    assert!(!place.path("w/.git/hooks").exists());
}

#[test]
fn a_folder_is_described() {
    let place = Place::new();
    place.git(&["remote", "add", "origin", "https://user:secret@example.org/a.git"]);
    let facts = describe_folder(&place.origin().join("sub"));
    assert_eq!(facts.branch.as_deref(), Some("main"));
    assert_eq!(facts.commit, Some(place.git(&["rev-parse", "HEAD"])));
    assert_eq!(facts.tag, None);
    assert_eq!(facts.root.unwrap().canonicalize().unwrap(), place.origin().canonicalize().unwrap());
    assert_eq!(facts.origin.as_deref(), Some("https://example.org/a.git"));
    place.git(&["checkout", "-q", "v1"]);
    let facts = describe_folder(&place.origin());
    assert_eq!((facts.branch, facts.tag.is_some()), (None, true));
    place.git(&["checkout", "-q", "--orphan", "empty"]);
    let facts = describe_folder(&place.origin());
    assert_eq!((facts.commit, facts.branch.as_deref()), (None, Some("empty")));
    fs::create_dir(place.path("plain")).unwrap();
    assert_eq!(describe_folder(&place.path("plain")), FolderFacts::default());
    assert_eq!(describe_folder(&place.path("nowhere")), FolderFacts::default());
}
