//! The JSON Schema of the language, for editors. It says which keys there are, what they mean and
//! what shape their values have; the parser alone knows what a manifest means as a whole.

mod keys;
mod shapes;

use serde_json::{Value, json};

use crate::vocabulary::{NEVER_STAGES, Scope};
use shapes::reference;

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let mut definitions = shapes::definitions();
    for scope in Scope::ALL {
        if scope != Scope::Top {
            definitions.insert(name(scope).to_owned(), mapping(scope));
        }
    }
    let mut schema = top();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "buildr manifest".into();
    schema["description"] = "What a build does: `.buildr.yml` in the root of a project".into();
    schema["$defs"] = Value::Object(definitions);
    schema
}

/// The schema as text, as it is checked in.
pub fn text() -> String {
    format!("{:#}\n", schema())
}

/// The name of a scope's definition.
fn name(scope: Scope) -> &'static str {
    match scope {
        Scope::Top => "manifest",
        Scope::Stage => "stage",
        Scope::Environment => "environmentKeys",
        Scope::Clone => "clone",
        Scope::JobRetry => "jobRetry",
        Scope::StageRetry => "stageRetry",
        Scope::Resources => "resources",
        Scope::Matrix => "matrix",
        Scope::Service => "service",
        Scope::Cache => "cache",
        Scope::On => "on",
        Scope::Push => "onPush",
        Scope::Tag => "onTag",
        Scope::PullRequest => "onPullRequest",
        Scope::Cron => "cron",
        Scope::Concurrency => "concurrency",
        Scope::When => "when",
        Scope::AllowFailure => "allowFailure",
        Scope::Artifacts => "artifacts",
        Scope::Reports => "reports",
    }
}

/// A mapping with the keys of a scope and no others.
fn mapping(scope: Scope) -> Value {
    let properties: serde_json::Map<String, Value> =
        scope.known().iter().map(|key| ((*key).to_owned(), keys::key(scope, key))).collect();
    let mut mapping = json!({"type": "object", "properties": properties, "additionalProperties": false});
    let required: &[&str] = match scope {
        Scope::Top => &["image"],
        Scope::Stage => &["script"],
        Scope::Service => &["image"],
        Scope::Cache => &["key", "paths"],
        Scope::Cron => &["name", "schedule"],
        Scope::Concurrency => &["group"],
        Scope::AllowFailure => &["exit_codes"],
        Scope::Artifacts => &["paths"],
        Scope::Reports => &["junit"],
        _ => &[],
    };
    if !required.is_empty() {
        mapping["required"] = json!(required);
    }
    match scope {
        Scope::When | Scope::On => mapping["minProperties"] = 1.into(),
        Scope::Matrix => {
            mapping["patternProperties"] = json!({"^[A-Z_][A-Z0-9_]*$": reference("axis")});
        }
        Scope::Stage => {
            mapping["dependentRequired"] = json!({"docker": ["image"], "resources": ["image"]});
        }
        _ => {}
    }
    mapping
}

/// The manifest itself: beside its keys there are stages, and what nobody reads.
fn top() -> Value {
    let mut top = mapping(Scope::Top);
    top["patternProperties"] = json!({"^(x-|\\.)": true});
    top["additionalProperties"] = reference("stage");
    top["properties"]["secrets"] = json!(false);
    top["anyOf"] = json!([{"required": ["stages"]}, {"required": ["prepare"]}]);
    debug_assert!(NEVER_STAGES.iter().all(|key| Scope::Top.known().contains(key)));
    top
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_docs_is_the_schema_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/buildr.schema.json");
        let file = std::fs::read_to_string(path).expect("docs/buildr.schema.json is there");
        let file: Value = serde_json::from_str(&file).expect("it is JSON");
        assert_eq!(file, schema(), "write it anew: `buildr schema > docs/buildr.schema.json`");
    }

    #[test]
    fn every_key_says_what_it_is_for() {
        for scope in Scope::ALL {
            for key in scope.known() {
                let description = keys::key(scope, key)["description"].clone();
                assert!(description.as_str().is_some_and(|text| text.len() > 10), "{scope:?} {key}");
            }
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let schema = schema();
        let text = schema.to_string();
        for part in text.split("#/$defs/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(schema["$defs"].get(name).is_some(), "{name}");
        }
    }
}
