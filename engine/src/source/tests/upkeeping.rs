//! How the mirrors stay small.

use super::*;

fn limited(place: &Place, backend: Backend, disk: u64) -> Sources {
    let settings = Settings {
        policy: UrlPolicy { allow_file: true },
        backend,
        limits: Limits { disk, ..Limits::default() },
        environment: vec![("GIT_CONFIG_GLOBAL".into(), "/dev/null".into())],
    };
    Sources::with_settings(place.path("mirrors"), settings)
}

fn mirrors(place: &Place) -> usize {
    let entries = fs::read_dir(place.path("mirrors")).unwrap().flatten();
    entries.filter(|entry| entry.path().extension() == Some(OsStr::new("git"))).count()
}

fn packs(place: &Place) -> usize {
    let entries = fs::read_dir(mirror_of(place).join("objects/pack")).unwrap().flatten();
    entries.filter(|entry| entry.path().extension() == Some(OsStr::new("pack"))).count()
}

/// A second repository.
fn other(place: &Place) -> GitSource {
    git(place.folder.path(), &["clone", "-q", "--bare", &place.url(), "other"]);
    let url = format!("file://{}", place.path("other").display());
    GitSource { url, reference: GitReference::Default, commit: None }
}

#[tokio::test]
async fn the_mirror_that_was_used_last_stays_and_one_in_use_is_never_removed() {
    let place = Place::new();
    let (first, second) = (place.source(GitReference::Default, None), other(&place));
    let cancel = CancellationToken::new();
    let sources = limited(&place, Backend::Detect, 20 << 30);
    drop(sources.pin(&first, &cancel).await.unwrap());
    drop(sources.pin(&second, &cancel).await.unwrap());
    let all = sources.upkeep(&cancel).await.unwrap();
    assert_eq!((all.removed, mirrors(&place)), (0, 2));
    assert!(all.disk > 1000, "{all:?}");
    // Room for one: the first is used again, so the second goes.
    let small = limited(&place, Backend::Detect, all.disk * 2 / 3);
    drop(small.pin(&first, &cancel).await.unwrap());
    assert_eq!(small.upkeep(&cancel).await.unwrap().removed, 1);
    let name = address::Address::parse(&first.url, UrlPolicy { allow_file: true }).unwrap().folder_name();
    assert_eq!(mirror_of(&place).file_stem().unwrap().to_str(), Some(name.as_str()));
    // No room at all; another process, for all that the locks know, has a commit pinned.
    let none = limited(&place, Backend::Detect, 0);
    let pinned = sources.pin(&first, &cancel).await.unwrap();
    assert_eq!(none.upkeep(&cancel).await.unwrap().removed, 0);
    pinned.check_out(&place.path("w"), &CloneOptions::default(), &cancel).await.unwrap();
    let done = none.upkeep(&cancel).await.unwrap();
    assert_eq!((done.removed, done.disk, mirrors(&place)), (1, 0, 0));
    // What was removed comes again.
    place.checkout(&sources, branch("main"), "again").await;
}

#[tokio::test]
async fn a_mirror_that_is_fetched_often_does_not_pile_up_packs() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    let cancel = CancellationToken::new();
    let lost = place.commit("lost.txt", "lost\n");
    let mut most = 0;
    for round in 0..60 {
        if round == 1 {
            place.git(&["reset", "-q", "--hard", "HEAD~1"]);
        }
        place.commit("n.txt", &format!("{round}\n"));
        drop(sources.pin(&place.source(branch("main"), None), &cancel).await.unwrap());
        if round == 0 {
            // A commit that no branch has any more is still pinned by builds that wait.
            drop(sources.pin(&place.source(branch("main"), Some(lost.clone())), &cancel).await.unwrap());
        }
        sources.upkeep(&cancel).await.unwrap();
        most = most.max(packs(&place));
    }
    assert!(most <= 20, "{most}");
    place.checkout(&sources, branch("main"), "w").await;
    git(&place.path("w"), &["fsck", "--strict"]);
    fs::remove_dir_all(place.origin()).unwrap();
    let source = place.source(GitReference::Default, Some(lost));
    check_out(&sources, &source, &place.path("lost"), &cancel).await.unwrap();
}

#[tokio::test]
async fn a_mirror_in_use_is_not_packed_anew() {
    let place = Place::new();
    let (sources, cancel) = (place.sources(Backend::Detect), CancellationToken::new());
    let source = place.source(branch("main"), None);
    let pinned = sources.pin(&source, &cancel).await.unwrap();
    for round in 0..25 {
        place.commit("n.txt", &format!("{round}\n"));
        drop(sources.pin(&source, &cancel).await.unwrap());
    }
    assert_eq!(sources.upkeep(&cancel).await.unwrap().packed, 0);
    drop(pinned);
    assert_eq!(sources.upkeep(&cancel).await.unwrap().packed, 1);
    assert!(packs(&place) < 20);
}

#[tokio::test]
async fn a_mirror_that_is_found_broken_is_removed() {
    let place = Place::new();
    let (sources, cancel) = (place.sources(Backend::Detect), CancellationToken::new());
    let source = place.source(branch("main"), None);
    for round in 0..25 {
        place.commit("n.txt", &format!("{round}\n"));
        drop(sources.pin(&source, &cancel).await.unwrap());
    }
    for entry in fs::read_dir(mirror_of(&place).join("objects/pack")).unwrap() {
        let path = entry.unwrap().path();
        fs::remove_file(&path).unwrap();
        fs::write(path, "broken").unwrap();
    }
    assert_eq!(sources.upkeep(&cancel).await.unwrap().removed, 1);
    place.checkout(&sources, branch("main"), "w").await;
}
