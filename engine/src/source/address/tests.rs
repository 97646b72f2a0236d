//! Which URLs get through.

use super::*;

const ALL: UrlPolicy = UrlPolicy { allow_file: true };

#[test]
fn good_urls_get_through() {
    for (text, shown) in [
        ("https://example.org/a/b.git", "https://example.org/a/b.git"),
        ("HTTPS://Example.ORG/A", "https://example.org/A"),
        ("http://example.org:8080/a?x=y", "http://example.org:8080/a?x=y"),
        ("https://user:pass@example.org/a", "https://example.org/a"),
        ("https://ghp_token@example.org/a", "https://example.org/a"),
        ("ssh://git@example.org:2222/a", "ssh://git@example.org:2222/a"),
        ("ssh://git:secret@example.org/a", "ssh://git@example.org/a"),
        ("ssh://git@[::1]:22/a", "ssh://git@[::1]:22/a"),
        ("git://example.org/a", "git://example.org/a"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
        ("example.org:a/b.git", "example.org:a/b.git"),
        ("git@[::1]:a", "git@[::1]:a"),
        ("file:///srv/a", "file:///srv/a"),
        ("/srv/a", "/srv/a"),
    ] {
        let address = Address::parse(text, ALL).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(address.shown(), shown);
    }
}

#[test]
fn hostile_urls_are_refused() {
    for text in [
        "",
        "-",
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x:y",
        "ext::sh -c x",
        "ext::sh%20-c",
        "fd::3",
        "https::https://example.org",
        "ftp://example.org/a",
        "git+ssh://example.org/a",
        "ssh+git://example.org/a",
        "javascript://example.org",
        "rsync://example.org/a",
        "ssh://-oProxyCommand=x/a",
        "ssh://%2doProxyCommand=x/a",
        "ssh://-l@example.org/a",
        "ssh://%2dl@example.org/a",
        "ssh://git@-oProxyCommand=x/a",
        "ssh://git@exa mple/a",
        "ssh://git@example.org:22x/a",
        "ssh://git@example.org:-1/a",
        "ssh://git@/a",
        "https:///a",
        "https://exa%0ample/a",
        "git://example.org/a%0ahost=other",
        "https://example.org/a\nb",
        "https://example.org/\u{7}",
        "https://u%00@example.org/",
        "-git@example.org:a",
        "git@-oProxyCommand=x:a",
        "git@example.org:-a",
        "git@example.org:",
        "git$(x)@example.org:a",
        "`x`@example.org:a",
        "git@exa$mple:a",
        "relative/path",
        "../up",
        "./a:b",
        "~/a",
        "file://host/a",
        "file://relative",
        "[::1:a",
    ] {
        assert!(Address::parse(text, ALL).is_err(), "{text} got through");
    }
    assert!(Address::parse(&format!("https://example.org/{}", "x".repeat(5000)), ALL).is_err());
}

#[test]
fn files_need_the_operators_word() {
    for text in ["file:///srv/a", "/srv/a", "FILE:///srv/a"] {
        let error = Address::parse(text, UrlPolicy::default()).unwrap_err();
        assert!(error.to_string().contains("--allow-file-urls"), "{error}");
    }
}

#[test]
fn credentials_are_nowhere_to_be_seen() {
    let address = Address::parse("https://us%40er:p%2Fss@example.org/a", ALL).unwrap();
    let said = "fatal: https://us%40er:p%2Fss@example.org/a us@er p/ss";
    let scrubbed = address.scrub(said);
    for secret in ["us%40er", "p%2Fss", "us@er", "p/ss"] {
        assert!(!scrubbed.contains(secret), "{scrubbed}");
        assert!(!format!("{address:?}").contains(secret));
    }
    for bad in ["htps://u:secret@example.org/a", "https://u:secret@exa$mple/a"] {
        let error = Address::parse(bad, ALL).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert_eq!(without_credentials("https://a:b@example.org/x"), "https://example.org/x");
}

#[test]
fn spellings_of_one_url_share_a_folder_and_credentials_do_not() {
    let folder = |text: &str| Address::parse(text, ALL).unwrap().folder_name();
    assert_eq!(folder("https://example.org/a"), folder("HTTPS://EXAMPLE.org/a/"));
    assert_eq!(folder("file:///srv/a"), folder("/srv/a/"));
    assert_ne!(folder("https://example.org/a"), folder("https://example.org/A"));
    assert_ne!(folder("https://example.org/a"), folder("https://token@example.org/a"));
    assert_ne!(folder("https://example.org/a"), folder("http://example.org/a"));
}
