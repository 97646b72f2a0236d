//! What goes wrong, and what is said of it.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_branch_that_is_not_there_is_named_with_its_likes() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let sources = place.sources(backend);
        let error = place.refused(&sources, place.source(branch("mian"), None)).await.to_string();
        assert!(error.contains("no branch `mian`") && error.contains("there is main"), "{error}");
        let error = place.refused(&sources, place.source(tag("v11"), None)).await.to_string();
        assert!(error.contains("no tag `v11`") && error.contains("there is v1"), "{error}");
    }
}

#[tokio::test]
async fn a_commit_that_is_not_there_is_named() {
    let place = Place::new();
    for backend in [Backend::Detect, Backend::Library] {
        let sources = place.sources(backend);
        let commit = "0123456789".repeat(4);
        let error = place.refused(&sources, place.source(branch("main"), Some(commit.clone()))).await;
        assert!(
            matches!(&error, SourceError::NoCommit { commit: named, .. } if *named == commit),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_is_named() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let sources = place.sources(backend);
        let url = format!("file://{}/nowhere", place.folder.path().display());
        let source = GitSource { url, reference: GitReference::Default, commit: None };
        let error = place.refused(&sources, source).await;
        assert!(matches!(error, SourceError::NoRepository { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_repository_without_a_commit_says_so() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let empty = place.path("empty");
        fs::create_dir(&empty).unwrap();
        git(&empty, &["init", "-q"]);
        let url = empty.display().to_string();
        let source = GitSource { url, reference: GitReference::Default, commit: None };
        let error = place.refused(&place.sources(backend), source).await;
        assert!(matches!(error, SourceError::Empty { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn nothing_hostile_reaches_git() {
    let place = Place::new();
    let sources = place.sources(Backend::Program("/bin/false".into()));
    let source = |url: &str| GitSource { url: url.into(), reference: GitReference::Default, commit: None };
    for url in ["ext::sh -c x", "--upload-pack=x", "ssh://-oProxyCommand=x/y"] {
        let error = place.refused(&sources, source(url)).await;
        assert!(matches!(error, SourceError::RefusedUrl { .. }), "{error:?}");
    }
    let error = place.refused(&sources, place.source(branch("--upload-pack=x"), None)).await;
    assert!(matches!(error, SourceError::BadName { .. }), "{error:?}");
    let error = place.refused(&sources, place.source(branch("main"), Some("main".into()))).await;
    assert!(matches!(error, SourceError::BadCommit { .. }), "{error:?}");
    assert!(!place.path("mirrors").exists());
}

#[tokio::test]
async fn file_urls_need_the_operators_word() {
    let place = Place::new();
    let sources = Sources::new(place.path("mirrors"), UrlPolicy::default());
    let error = place.refused(&sources, place.source(GitReference::Default, None)).await;
    assert!(matches!(error, SourceError::FileNotAllowed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_folder_that_is_in_use_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path("w")).unwrap();
    fs::write(place.path("w/mine"), "").unwrap();
    let sources = place.sources(Backend::Detect);
    let source = place.source(GitReference::Default, None);
    let error = check_out(&sources, &source, &place.path("w"), &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, SourceError::Occupied { .. }), "{error:?}");
    assert!(place.path("w/mine").exists());
}

#[tokio::test]
async fn a_broken_mirror_is_made_anew() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let sources = place.sources(backend);
        let first = place.checkout(&sources, branch("main"), "first").await;
        let breakages: [fn(&Path); 5] = [
            |mirror| fs::remove_dir_all(mirror.join("objects/pack")).unwrap(),
            |mirror| fs::remove_file(mirror.join("HEAD")).unwrap(),
            |mirror| fs::write(mirror.join("config"), "[core\n").unwrap(),
            |mirror| {
                fs::remove_dir_all(mirror).unwrap();
                fs::create_dir(mirror).unwrap();
            },
            |mirror| {
                for entry in fs::read_dir(mirror.join("objects/pack")).unwrap() {
                    let path = entry.unwrap().path();
                    fs::remove_file(&path).unwrap();
                    fs::write(path, "broken").unwrap();
                }
            },
        ];
        for (index, breakage) in breakages.into_iter().enumerate() {
            breakage(&mirror_of(&place));
            let dest = format!("w{index}");
            assert_eq!(place.checkout(&sources, branch("main"), &dest).await, first, "{index}");
            git(&place.path(&dest), &["fsck", "--strict"]);
        }
    }
}

#[tokio::test]
async fn what_a_killed_git_left_is_in_nobodys_way() {
    let place = Place::new();
    let sources = place.sources(Backend::Detect);
    place.checkout(&sources, branch("main"), "first").await;
    let mirror = mirror_of(&place);
    for left in ["refs/heads/main.lock", "packed-refs.lock", "config.lock", "objects/pack/tmp_pack_x"] {
        fs::write(mirror.join(left), "").unwrap();
    }
    fs::create_dir(mirror.with_extension("new")).unwrap();
    let newest = place.commit("a.txt", "five\n");
    assert_eq!(place.checkout(&sources, branch("main"), "second").await.commit, newest);
    assert!(!mirror.join("objects/pack/tmp_pack_x").exists());
}

/// A server that takes a connection and never says a word; tells when it has one.
async fn silent_server() -> (String, tokio::net::TcpListener) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    (format!("git://127.0.0.1:{}/x", listener.local_addr().unwrap().port()), listener)
}

#[tokio::test]
async fn a_cancel_in_mid_fetch_ends_at_once_and_leaves_nothing() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let sources = place.sources(backend);
        let (url, listener) = silent_server().await;
        let source = GitSource { url, reference: branch("main"), commit: None };
        let cancel = CancellationToken::new();
        let dest = place.path("w");
        let checkout = check_out(&sources, &source, &dest, &cancel);
        let canceled = async {
            let (connection, _) = listener.accept().await.unwrap();
            cancel.cancel();
            (Instant::now(), connection)
        };
        let (result, (since, _connection)) = tokio::join!(checkout, canceled);
        assert!(matches!(result, Err(SourceError::Canceled)), "{result:?}");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert!(!dest.exists());
    }
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let place = Place::new();
    let limits =
        Limits { silence: Duration::from_millis(300), total: Duration::from_secs(60), ..Limits::default() };
    let sources = Sources::with_settings(place.path("mirrors"), Settings { limits, ..Settings::default() });
    let (url, _listener) = silent_server().await;
    let source = GitSource { url, reference: branch("main"), commit: None };
    let error = place.refused(&sources, source).await;
    assert!(matches!(error, SourceError::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_matter_of_the_network() {
    for backend in [Backend::Detect, Backend::Library] {
        let place = Place::new();
        let (url, listener) = silent_server().await;
        drop(listener);
        for scheme in ["git", "http"] {
            let url = url.replace("git://", &format!("{scheme}://user:secret@"));
            let source = GitSource { url, reference: branch("main"), commit: None };
            let error = place.refused(&place.sources(backend.clone()), source).await;
            assert!(matches!(error, SourceError::Network { .. }), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}

/// Answers one request after the other until one has an `Authorization` header; gives that one, and
/// what was seen on this machine's command lines meanwhile.
async fn asked_for_a_login(listener: tokio::net::TcpListener, secret: &str) -> (String, bool) {
    let mut shown = false;
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 4096];
            let length = connection.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "the request ends in the middle");
            request.extend_from_slice(&piece[..length]);
        }
        shown |= is_on_a_command_line(secret);
        let request = String::from_utf8(request).unwrap();
        let login = request.lines().find(|line| line.starts_with("Authorization: "));
        let status = login.map_or("401 no\r\nWWW-Authenticate: Basic realm=\"x\"", |_| "404 none");
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        connection.write_all(answer.as_bytes()).await.unwrap();
        if let Some(login) = login {
            return (login.to_owned(), shown);
        }
    }
}

fn is_on_a_command_line(text: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test]
async fn a_login_in_a_url_reaches_the_server_and_no_command_line() {
    for (userinfo, header) in
        [("us%40er:p%2Fss", "dXNAZXI6cC9zcw=="), ("token-of-mine", "dG9rZW4tb2YtbWluZTo=")]
    {
        let place = Place::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{userinfo}@{}/a", listener.local_addr().unwrap());
        let source = GitSource { url, reference: branch("main"), commit: None };
        let sources = place.sources(Backend::Detect);
        let (error, (login, shown)) =
            tokio::join!(place.refused(&sources, source), asked_for_a_login(listener, userinfo));
        assert!(matches!(error, SourceError::NoRepository { .. }), "{error:?}");
        assert_eq!(login, format!("Authorization: Basic {header}"));
        assert!(!shown, "`ps` shows {userinfo}");
    }
}
