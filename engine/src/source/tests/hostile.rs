//! Repositories that mean harm, and remotes that do.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Instant};

use tokio::io::AsyncWriteExt;

use super::*;

const BOTH: [Backend; 2] = [Backend::Detect, Backend::Library];

async fn bring(place: &Place, backend: Backend) -> Result<Checkout, SourceError> {
    let source = place.source(branch("main"), None);
    check_out(&place.sources(backend), &source, &place.path("w"), &CancellationToken::new()).await
}

/// The id of a blob of `origin`.
fn blob(place: &Place, text: &str) -> String {
    fs::write(place.path("blob"), text).unwrap();
    place.git(&["hash-object", "-w", place.path("blob").to_str().unwrap()])
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    for name in [".git", ".GIT", "git~1", "..", "."] {
        for backend in BOTH {
            let place = Place::new();
            let hook = blob(&place, "#!/bin/sh\n");
            let inner = tree(&place, &[entry("100755", "config", &hook)]);
            commit_tree(&place, &tree(&place, &[entry("40000", name, &inner)]));
            let error = bring(&place, backend.clone()).await.unwrap_err();
            assert!(matches!(error, SourceError::BadTree { .. }), "{name}, {backend:?}: {error:?}");
            assert_eq!(fs::read_dir(place.path("w")).unwrap().count(), 0);
            assert!(!place.path("config").exists());
        }
    }
}

#[tokio::test]
async fn odd_names_are_files_like_others() {
    for backend in BOTH {
        let place = Place::new();
        let text = blob(&place, "x");
        let names: [&[u8]; 6] = [b"-rf", b"A", b"a", b"bad\xff\xfe", b"new\nline", "ümlaut".as_bytes()];
        let entries: Vec<_> = names.iter().map(|name| entry("100644", name, &text)).collect();
        commit_tree(&place, &tree(&place, &entries));
        bring(&place, backend).await.unwrap();
        for name in names {
            let path = place.path("w").join(OsString::from_vec(name.to_vec()));
            assert_eq!(fs::read_to_string(&path).unwrap(), "x", "{path:?}");
        }
    }
}

#[tokio::test]
async fn links_out_of_the_tree_are_never_written_through() {
    for backend in BOTH {
        let place = Place::new();
        fs::create_dir(place.path("outside")).unwrap();
        let (link, text) = (blob(&place, "../outside"), blob(&place, "x"));
        let inner = tree(&place, &[entry("100644", "file", &text)]);
        commit_tree(&place, &tree(&place, &[entry("120000", "a", &link), entry("40000", "a", &inner)]));
        let done = bring(&place, backend).await;
        assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 0, "{done:?}");
    }
}

#[tokio::test]
async fn a_broken_object_of_the_remote_is_an_error() {
    for backend in BOTH {
        let place = Place::new();
        let id = blob(&place, "to be lost");
        commit_tree(&place, &tree(&place, &[entry("100644", "a", &id)]));
        let object = place.origin().join(".git/objects").join(&id[..2]).join(&id[2..]);
        fs::remove_file(&object).unwrap();
        fs::write(&object, "broken").unwrap();
        bring(&place, backend).await.unwrap_err();
        assert!(fs::read_dir(place.path("w")).map_or(0, Iterator::count) == 0);
    }
}

#[tokio::test]
async fn a_remote_that_sends_for_ever_is_given_up() {
    let place = Place::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("git://127.0.0.1:{}/x", listener.local_addr().unwrap().port());
    let limits = Limits { total: Duration::from_secs(1), ..Limits::default() };
    let sources = Sources::with_settings(place.path("mirrors"), Settings { limits, ..Settings::default() });
    let endless = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let line = format!("{} refs/heads/x\n", "0123456789".repeat(4));
        let line = format!("{:04x}{line}", line.len() + 4);
        while connection.write_all(line.as_bytes()).await.is_ok() {}
    };
    let (since, source) = (Instant::now(), GitSource { url, reference: branch("main"), commit: None });
    let (error, ()) = tokio::join!(place.refused(&sources, source), endless);
    assert!(matches!(error, SourceError::TimedOut { .. }), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
}
