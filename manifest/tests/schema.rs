//! The JSON Schema and the parser agree on a corpus of manifests, but for what a schema cannot say.
//!
//! A corpus is a text of manifests, each under a line `### name`. In `tests/corpus/` there are those
//! that are good, those that are bad to both, and those that are bad to the parser alone, with the
//! reason under their name.

#![expect(clippy::unwrap_used, reason = "what a test needs is there, or the test fails")]

use buildr_manifest::{Manifest, schema::schema};
use jsonschema::Validator;
use serde_json::Value;

const GOOD: &str = include_str!("corpus/good.yml");
const BAD: &str = include_str!("corpus/bad.yml");
/// What a schema cannot say: what one part of a manifest means to another, and small languages.
const BAD_TO_THE_PARSER: &str = include_str!("corpus/bad-to-the-parser.yml");
/// What YAML says in ways that are lost before a schema sees it.
const GOOD_TO_THE_PARSER: &str = include_str!("corpus/good-to-the-parser.yml");

fn cases(corpus: &str) -> Vec<(&str, &str)> {
    let parts = corpus.split("### ").skip(1);
    let cases: Vec<_> = parts.map(|part| part.split_once('\n').unwrap()).collect();
    let names: std::collections::BTreeSet<_> = cases.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    cases
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

/// What the schema says of a manifest; what is no YAML has no value to look at.
fn by_schema(validator: &Validator, text: &str) -> Result<(), String> {
    let value: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let errors: Vec<String> =
        validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

fn by_parser(text: &str) -> Result<(), String> {
    Manifest::parse(text.as_bytes(), ".buildr.yml").map(drop).map_err(|problems| problems.to_string())
}

/// The cases of a corpus on which the two do not say what is expected of them.
fn disagreements(corpus: &str, schema_accepts: bool, parser_accepts: bool) -> Vec<String> {
    let validator = validator();
    let mut found = Vec::new();
    for (name, text) in cases(corpus) {
        for (who, accepts, said) in [
            ("the schema", schema_accepts, by_schema(&validator, text)),
            ("the parser", parser_accepts, by_parser(text)),
        ] {
            if said.is_ok() != accepts {
                found.push(format!("{name}: {who} says {}\n", said.err().unwrap_or("yes".into())));
            }
        }
    }
    found
}

fn check(corpus: &str, schema_accepts: bool, parser_accepts: bool) {
    let found = disagreements(corpus, schema_accepts, parser_accepts);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn good_manifests_are_good_to_both() {
    assert!(cases(GOOD).len() >= 40, "{}", cases(GOOD).len());
    check(GOOD, true, true);
}

#[test]
fn bad_manifests_are_bad_to_both() {
    assert!(cases(BAD).len() >= 60, "{}", cases(BAD).len());
    check(BAD, false, false);
}

#[test]
fn what_a_schema_cannot_say_is_known() {
    check(BAD_TO_THE_PARSER, true, false);
    check(GOOD_TO_THE_PARSER, false, true);
}
