//! What globs match, and lists of them.

use super::*;

fn patterns(entries: &[&str], subject: Subject) -> Patterns {
    let one = |entry: &&str| {
        let (exclude, text) = entry.strip_prefix('!').map_or((false, *entry), |text| (true, text));
        Pattern { exclude, glob: Glob::new(text, subject).expect(entry) }
    };
    Patterns::new(entries.iter().map(one).collect())
}

#[test]
fn a_glob_matches_the_whole_text() {
    for (glob, yes, no) in [
        ("main", &["main"][..], &["main2", "amain", "", "Main"][..]),
        ("feature/*", &["feature/a", "feature/"], &["feature/a/b", "feature"]),
        ("feature/**", &["feature/a", "feature/a/b"], &["feature", "xfeature/a"]),
        ("*", &["", "a", "a.b"], &["a/b"]),
        ("**", &["", "a", "a/b/c"], &[]),
        ("v*.*", &["v1.2", "v.", "v1.2.3"], &["v1", "v1/2.3"]),
        ("**/x", &["x", "a/x", "a/b/x"], &["ax", "a/xb", "x/a"]),
        ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "a/b/c"]),
        ("a**b", &["ab", "a/b", "axx/yb"], &["a"]),
        ("**/**/x", &["x", "a/b/x"], &["y"]),
        ("v?", &["v1", "vä"], &["v", "v12", "v/"]),
        ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
        ("[!a-c]x", &["dx"], &["ax", "/x"]),
        ("[]]", &["]"], &["["]),
        ("\\*", &["*"], &["a"]),
        ("größe*", &["größe", "größer"], &["gro"]),
    ] {
        let glob = Glob::new(glob, Subject::Name).expect(glob);
        assert!(yes.iter().all(|text| glob.matches(text)), "{glob} {yes:?}");
        assert!(!no.iter().any(|text| glob.matches(text)), "{glob} {no:?}");
    }
}

#[test]
fn a_path_is_anchored_at_the_root() {
    for (glob, yes, no) in [
        ("docs/", &["docs/a", "docs/a/b"][..], &["docs", "x/docs/a"][..]),
        ("./src/*.rs", &["src/a.rs"], &["src/a/b.rs"]),
        ("/src", &["src"], &["src/a"]),
    ] {
        let glob = Glob::new(glob, Subject::Path).expect(glob);
        assert!(yes.iter().all(|text| glob.matches(text)), "{glob}");
        assert!(!no.iter().any(|text| glob.matches(text)), "{glob}");
    }
    for bad in ["../x", "a/../b", "/", "./", "a//b", "a/./b"] {
        assert!(Glob::new(bad, Subject::Path).is_err(), "{bad}");
    }
}

#[test]
fn what_is_no_glob_is_refused() {
    for bad in ["", "[a", "a[", "[", "{a,b}", "***", "a\\", "[z-a]", &"x".repeat(501)] {
        assert!(Glob::new(bad, Subject::Name).is_err(), "{bad}");
    }
}

#[test]
fn the_last_match_wins() {
    let list = patterns(&["release/**", "!release/old*", "release/old-but-gold"], Subject::Name);
    assert!(list.matches("release/1") && list.matches("release/old-but-gold"));
    assert!(!list.matches("release/old-1") && !list.matches("main"));
    let all_but = patterns(&["!main", "!dev*"], Subject::Name);
    assert!(all_but.matches("x") && !all_but.matches("main") && !all_but.matches("dev1"));
}

#[test]
fn lists_that_decide_nothing_are_known() {
    for (entries, all, none) in [
        (&["**"][..], true, false),
        (&["a", "**", "b"], true, false),
        (&["**", "!a"], false, false),
        (&["!**"], false, true),
        (&["a", "!**", "!b"], false, true),
        (&["!**", "a"], false, false),
        (&["*"], false, false),
    ] {
        let list = patterns(entries, Subject::Name);
        assert_eq!((list.matches_all(), list.matches_none()), (all, none), "{entries:?}");
    }
}

#[test]
fn a_hostile_glob_takes_no_longer_than_a_kind_one() {
    let glob = Glob::new(&"*a".repeat(250), Subject::Name).expect("a glob");
    assert!(!glob.matches(&format!("{}b", "a".repeat(5000))));
}
