//! Repositories of all kinds: other ids, shallow, partial, worktrees.

use super::*;

#[tokio::test]
async fn a_sha256_repository_is_refused_in_words() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let folder = place.path("other");
        fs::create_dir(&folder).unwrap();
        git(&folder, &["init", "-q", "-b", "main", "--object-format=sha256"]);
        fs::write(folder.join("a"), "a").unwrap();
        git(&folder, &["add", "-A"]);
        git(&folder, &["commit", "-q", "-m", "a"]);
        let url = format!("file://{}", folder.display());
        let source = GitSource { url: url.clone(), reference: branch("main"), commit: None };
        let sources = place.sources(backend);
        let error = place.refused(&sources, source).await;
        assert!(matches!(error, SourceError::OtherFormat { .. }), "{error:?}");
        let commit = Some(git(&folder, &["rev-parse", "HEAD"]));
        let source = GitSource { url, reference: branch("main"), commit };
        let error = place.refused(&sources, source).await.to_string();
        assert!(error.contains("SHA-256"), "{error}");
        // As a folder it is one like any other.
        assert_eq!(describe_folder(&folder), FolderFacts::default());
        assert_eq!(changed_paths(&folder), None);
    }
}

#[test]
fn partial_and_shallow_clones_and_worktrees_are_described() {
    let place = Place::new();
    place.git(&["config", "uploadpack.allowFilter", "true"]);
    place.git(&["worktree", "add", "-q", "-b", "beside", "../worktree"]);
    let (root, url) = (place.folder.path(), place.url());
    git(root, &["clone", "-q", "--filter=blob:none", &url, "partial"]);
    git(root, &["clone", "-q", "--filter=tree:0", "--no-checkout", &url, "treeless"]);
    git(root, &["clone", "-q", "--depth", "1", &url, "shallow"]);
    git(root, &["clone", "-q", "--sparse", &url, "sparse"]);
    for (name, branch) in [
        ("partial", "main"),
        ("treeless", "main"),
        ("shallow", "main"),
        ("sparse", "main"),
        ("worktree", "beside"),
    ] {
        let folder = place.path(name);
        let facts = describe_folder(&folder);
        assert_eq!(facts.branch.as_deref(), Some(branch), "{name}");
        assert_eq!(facts.commit, Some(git(&folder, &["rev-parse", "HEAD"])), "{name}");
        assert_eq!(facts.root.unwrap().canonicalize().unwrap(), folder.canonicalize().unwrap(), "{name}");
    }
    for name in ["partial", "shallow"] {
        fs::write(place.path(name).join("new"), "").unwrap();
        assert_eq!(changed_paths(&place.path(name)), Some(vec!["new".to_owned()]), "{name}");
    }
}
