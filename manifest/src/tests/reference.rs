//! The reference that users read knows every word of the language.

use crate::vocabulary::Scope;

const REFERENCE: &str = include_str!("../../../docs/manifest.md");

/// The blocks of YAML in the reference.
fn examples() -> String {
    let blocks = REFERENCE.split("\n```yaml\n").skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_key_has_an_example() {
    let examples = examples();
    let is_there = |key: &str| {
        let key = format!("{key}:");
        examples.match_indices(&key).any(|(at, _)| examples[..at].ends_with([' ', '\n', '{']))
    };
    let missing = |scope: Scope| {
        let keys = scope.known().iter().filter(|key| !is_there(key));
        keys.map(move |key| format!("`{key}` of {}", scope.name()))
    };
    assert_eq!(Scope::ALL.into_iter().flat_map(missing).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn reserved_words_are_named() {
    for word in [Scope::Top, Scope::Stage].iter().flat_map(|scope| scope.reserved()) {
        assert!(REFERENCE.contains(&format!("`{word}`")), "the reference does not name `{word}`");
    }
}
