//! The shapes of values that occur in several places.

use serde_json::{Map, Value, json};

use crate::{Failure, Trigger, VarName, manifest::Fault};

/// A shape by its name.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// One of them, or a list of at least one.
pub(super) fn some(shape: &Value) -> Value {
    json!({"anyOf": [shape, {"type": "array", "minItems": 1, "items": shape}]})
}

/// Whole numbers, quoted or not.
pub(super) fn number(from: u32, to: u32) -> Value {
    json!({"anyOf": [
        {"type": "integer", "minimum": from, "maximum": to},
        {"type": "string", "pattern": "^[0-9]+$"},
    ]})
}

/// A few words.
pub(super) fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

/// All shapes that are no mapping with keys of ours.
pub(super) fn definitions() -> Map<String, Value> {
    let mut all = Map::new();
    let mut add = |name: &str, shape: Value| all.insert(name.to_owned(), shape);
    add("text", json!({"type": ["string", "number", "boolean"]}));
    add("nonEmpty", json!({"type": ["string", "number", "boolean"], "minLength": 1}));
    add("command", json!({"type": ["string", "number", "boolean"], "pattern": "\\S"}));
    add("script", some(&reference("command")));
    add("duration", duration());
    add("image", json!({"type": ["string", "number", "boolean"], "pattern": "^\\S+$"}));
    add("globs", some(&json!({"type": ["string", "number", "boolean"], "pattern": "^!?[^!]"})));
    add("variable", json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "not": own_variables()}));
    add("environment", environment());
    add("variables", variables());
    add("variablesList", vars_list());
    add(
        "shell",
        json!({"anyOf": [
            {"enum": ["sh", "bash"]},
            {"type": "array", "minItems": 1, "items": reference("text")},
        ]}),
    );
    let events: Vec<&str> = Trigger::ALL.map(Trigger::word).to_vec();
    add("event", json!({"enum": events}));
    let excluded = events.iter().map(|word| format!("!{word}"));
    let conditions: Vec<String> = events.iter().map(|word| (*word).to_owned()).chain(excluded).collect();
    add("eventCondition", json!({"enum": conditions}));
    add("status", json!({"enum": ["success", "failure", "always"]}));
    add("failure", json!({"enum": Failure::ALL.map(Failure::word)}));
    add("fault", json!({"enum": Fault::ALL.map(Fault::word)}));
    add("exitCodes", some(&number(1, 255)));
    add("axis", json!({"type": "array", "minItems": 1, "uniqueItems": true, "items": reference("text")}));
    add(
        "combination",
        json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": reference("variable"),
            "additionalProperties": reference("text"),
        }),
    );
    all
}

fn duration() -> Value {
    json!({
        "type": "string",
        "pattern": "^(?=.*[1-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$",
        "examples": ["90s", "10m", "1h30m"],
    })
}

/// The names that no manifest can set.
fn own_variables() -> Value {
    debug_assert!(VarName::new("BUILDR_X").is_ok_and(|name| crate::plan::is_reserved(&name)));
    json!({"pattern": "^(BUILDR|BUILDR_.*|COMPOSE_PROJECT_NAME)$"})
}

fn environment() -> Value {
    let keyed = json!({"type": "object", "anyOf": [{"required": ["inherit"]}, {"required": ["vars"]}]});
    json!({
        "if": keyed,
        "then": reference("environmentKeys"),
        "else": {"anyOf": [{"type": "null"}, reference("variablesList"), reference("variables")]},
    })
}

/// A mapping of names to values; a bare name takes its value from outside.
fn variables() -> Value {
    json!({
        "type": "object",
        "propertyNames": reference("variable"),
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
    })
}

fn vars_list() -> Value {
    json!({"type": "array", "items": {
        "type": "string",
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*(=|$)",
        "not": {"pattern": "^(BUILDR|BUILDR_[A-Za-z0-9_]*|COMPOSE_PROJECT_NAME)(=|$)"},
    }})
}
