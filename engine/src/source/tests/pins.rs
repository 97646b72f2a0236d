//! What can be had of a commit before its files are there.

use std::os::unix::fs::symlink;

use super::*;

const LIMIT: usize = 1000;

async fn pin(place: &Place) -> Pinned {
    let source = place.source(GitReference::Default, None);
    place.sources(Backend::Detect).pin(&source, &CancellationToken::new()).await.unwrap()
}

async fn read(pinned: &Pinned, path: &str) -> Result<Option<String>, String> {
    let read = pinned.read_file(Path::new(path), LIMIT).await;
    read.map(|text| text.map(|text| String::from_utf8(text).unwrap())).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_file_is_read_and_links_are_followed_inside_the_project() {
    let place = Place::new();
    let origin = place.origin();
    for (link, target) in [
        ("link", "sub/b.txt"),
        ("sub/up", "../a.txt"),
        ("folder", "sub"),
        ("twice", "./folder//up"),
        ("out", "../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("round", "round"),
        ("nowhere", "none"),
    ] {
        symlink(target, origin.join(link)).unwrap();
    }
    fs::write(origin.join("large"), "x".repeat(LIMIT + 1)).unwrap();
    place.commit("full", &"x".repeat(LIMIT));
    let pinned = pin(&place).await;
    let one = Ok(Some("one\n".to_owned()));
    for path in ["a.txt", "./a.txt", "sub/../a.txt", "sub/up", "twice", "folder/up"] {
        assert_eq!(read(&pinned, path).await, one, "{path}");
    }
    assert_eq!(read(&pinned, "link").await, Ok(Some("two\n".to_owned())));
    assert_eq!(read(&pinned, "full").await.unwrap().unwrap().len(), LIMIT);
    for path in ["none", "sub/none", "a.txt/none", "nowhere", "c.txt"] {
        assert_eq!(read(&pinned, path).await, Ok(None), "{path}");
    }
    for (path, why) in [
        ("out", "outside the project"),
        ("absolute", "outside the project"),
        ("../a.txt", "outside the project"),
        ("/a.txt", "outside the project"),
        ("round", "too many symbolic links"),
        ("large", "larger than"),
        ("sub", "not a regular file"),
        (".", "not a regular file"),
    ] {
        let error = read(&pinned, path).await.unwrap_err();
        assert!(error.contains(why) && error.contains(path), "{error}");
    }
}

#[tokio::test]
async fn a_submodule_in_the_place_of_a_file_is_named_so() {
    let place = Place::new();
    let commit = place.git(&["rev-parse", "HEAD"]);
    place.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
    place.git(&["commit", "-q", "-m", "module"]);
    let pinned = pin(&place).await;
    for path in ["module", "module/file"] {
        let error = read(&pinned, path).await.unwrap_err();
        assert!(error.contains("submodule"), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_is_chosen_in_a_commit_as_in_a_folder() {
    let place = Place::new();
    let error = manifest_file::read_pinned(&pin(&place).await, None).await.unwrap_err();
    assert_eq!(Err(told(error)), manifest_file::read(&place.origin(), None).map(|_| ()));
    fs::create_dir(place.origin().join(".buildr.yml")).unwrap();
    place.commit(".buildr.yml/x", "x\n");
    place.commit(".buildr", "x\n");
    symlink("a.txt", place.origin().join(".buildr.yaml")).unwrap();
    place.commit("d.txt", "x\n");
    let found = manifest_file::read_pinned(&pin(&place).await, None).await;
    assert_eq!(
        (found.as_ref().unwrap().name.as_str(), &found.as_ref().unwrap().text[..]),
        (".buildr.yaml", &b"one\n"[..])
    );
    assert_eq!(found.map_err(told), manifest_file::read(&place.origin(), None));
    fs::remove_file(place.origin().join(".buildr.yaml")).unwrap();
    symlink("/etc/passwd", place.origin().join(".buildr.yaml")).unwrap();
    place.commit("e.txt", "x\n");
    let found = manifest_file::read_pinned(&pin(&place).await, None).await;
    assert_eq!(found.map_err(told), manifest_file::read(&place.origin(), None));
    let pinned = pin(&place).await;
    for wanted in ["none", "../x"] {
        let error = told(manifest_file::read_pinned(&pinned, Some(Path::new(wanted))).await.unwrap_err());
        assert!(error.contains("cannot read the manifest") && error.contains(wanted), "{error}");
    }
}

fn told(outcome: Outcome) -> String {
    match outcome {
        Outcome::ManifestError { message } => message,
        other => panic!("not about the manifest: {other:?}"),
    }
}

#[tokio::test]
async fn a_pinned_commit_is_checked_out_whatever_becomes_of_the_remote_and_its_branch() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    let pinned = sources.pin(&place.source(branch("main"), None), &CancellationToken::new()).await.unwrap();
    place.git(&["reset", "-q", "--hard", "HEAD~1"]);
    place.commit("z.txt", "other\n");
    // While it is pinned another build may fetch.
    place.checkout(&sources, branch("main"), "other").await;
    fs::remove_dir_all(place.origin()).unwrap();
    let commit = pinned.commit.clone();
    let done = pinned
        .check_out(&place.path("w"), &CloneOptions::default(), &CancellationToken::new())
        .await
        .unwrap();
    assert_eq!(git(&place.path("w"), &["rev-parse", "HEAD"]), commit);
    assert_eq!(git(&place.path("w"), &["status", "--porcelain"]), "");
    assert!(done.took > Duration::ZERO);
}

#[tokio::test]
async fn a_mirror_that_breaks_after_the_pin_is_made_anew() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let sources = place.sources(backend);
        let source = place.source(branch("main"), None);
        let pinned = sources.pin(&source, &CancellationToken::new()).await.unwrap();
        fs::remove_dir_all(mirror_of(&place).join("objects")).unwrap();
        let (commit, dest) = (pinned.commit.clone(), place.path("w"));
        pinned.check_out(&dest, &CloneOptions::default(), &CancellationToken::new()).await.unwrap();
        assert_eq!(git(&dest, &["rev-parse", "HEAD"]), commit);
        git(&dest, &["fsck", "--strict"]);
    }
}
