//! `environment` in its three shapes: a list, a mapping with `inherit` and `vars`, a flat mapping.

use std::collections::HashMap;

use super::{fields::wrong_type, patterns, value};
use crate::{
    Code, Environment, Inherit, Place, VarName, Variable,
    diagnostic::{Report, quoted},
    glob::Subject,
    plan::is_reserved,
    tree::{Entry, Node, Style, Value},
    vocabulary::{Scope, nearest},
};

/// Reads a value of `environment`.
pub(super) fn check(node: &Node, report: &mut Report<'_>) -> Environment {
    match &node.value {
        Value::Null | Value::Invalid => Environment::default(),
        Value::List(_) => Environment { vars: vars(node, report), ..Environment::default() },
        Value::Mapping(entries) if entries.iter().any(is_ours) => keyed(entries, report),
        Value::Mapping(_) => Environment { vars: vars(node, report), ..Environment::default() },
        Value::Text(_) => {
            wrong_type(node, "`environment`", "a mapping or a list", Scope::Environment.example(), report);
            Environment::default()
        }
    }
}

/// True for a key of the second shape, also where it is mistyped and its value tells so.
fn is_ours(entry: &Entry) -> bool {
    let key = entry.key.text.as_str();
    Scope::Environment.known().contains(&key) || meant(entry).is_some()
}

/// The key that a mistyped one stands for: no variable has such a value.
fn meant(entry: &Entry) -> Option<&'static str> {
    let near = nearest(&entry.key.text, Scope::Environment.known().iter().copied())?;
    let is_switch = match &entry.value.value {
        Value::Text(text) => text.style == Style::Plain && matches!(text.text.as_str(), "true" | "false"),
        _ => false,
    };
    let is_nested = matches!(entry.value.value, Value::List(_) | Value::Mapping(_));
    let is_lower = !entry.key.text.contains(|c: char| c.is_ascii_uppercase());
    (is_lower && (is_nested || (is_switch && near == "inherit"))).then_some(near)
}

fn keyed(entries: &[Entry], report: &mut Report<'_>) -> Environment {
    let mut environment = Environment::default();
    for entry in entries {
        match entry.key.text.as_str() {
            "inherit" => environment.inherit = inherit(&entry.value, report),
            "vars" => environment.vars = vars(&entry.value, report),
            key => {
                let near = meant(entry);
                let problem = if near.is_some() {
                    report.error(
                        Code::UnknownKey,
                        entry.key.span,
                        format!("{} is not a key of `environment`", quoted(key)),
                    )
                } else {
                    let message = format!(
                        "{} stands beside `inherit` or `vars`, where only these two may stand",
                        quoted(key)
                    );
                    let problem = report.error(Code::MixedShapes, entry.key.span, message);
                    problem.hint(format!("move it into `vars`: `{}`", assignment(entry)))
                };
                report.push(problem.suggest(near));
            }
        }
    }
    environment
}

/// A variable as an entry of a list.
fn assignment(entry: &Entry) -> String {
    match &entry.value.value {
        Value::Text(value) if value.text.len() < 60 => format!("- {}={}", entry.key.text, value.text),
        _ => "- NAME=value".to_owned(),
    }
}

fn inherit(node: &Node, report: &mut Report<'_>) -> Inherit {
    if let Value::List(items) = &node.value {
        if items.is_empty() {
            return Inherit::Nothing;
        }
        let texts = value::texts(node, "inherit", report);
        let globs =
            texts.into_iter().filter_map(|(text, node)| patterns::glob_of(text, node, Subject::Name, report));
        return Inherit::Matching(globs.collect());
    }
    match value::boolean(node, "inherit", report) {
        Some(true) => Inherit::Everything,
        Some(false) | None => Inherit::Nothing,
    }
}

/// Variables as a list or as a mapping.
fn vars(node: &Node, report: &mut Report<'_>) -> Vec<Variable> {
    match &node.value {
        Value::List(items) => {
            let vars = items.iter().filter_map(|item| list_entry(item, report)).collect();
            warn_of_twice(&vars, report);
            vars
        }
        Value::Mapping(entries) => entries.iter().filter_map(|entry| mapping_entry(entry, report)).collect(),
        Value::Null | Value::Invalid => Vec::new(),
        Value::Text(_) => {
            wrong_type(node, "`vars`", "a list or a mapping", "- NAME=value", report);
            Vec::new()
        }
    }
}

fn warn_of_twice(vars: &Vec<Variable>, report: &mut Report<'_>) {
    let mut first_lines: HashMap<&VarName, usize> = HashMap::new();
    for variable in vars {
        let span = variable.place().0;
        let line = report.source().line_number(span.start);
        if let Some(first) = first_lines.insert(variable.name(), line) {
            let message = format!("the variable {} is set twice", quoted(variable.name()));
            let problem = report.warning(Code::VariableSetTwice, span, message);
            report.push(problem.hint(format!("this one wins over that in line {first}")));
        }
    }
}

/// `- NAME=VALUE` or `- NAME`.
fn list_entry(node: &Node, report: &mut Report<'_>) -> Option<Variable> {
    let text = match &node.value {
        Value::Text(text) => {
            value::warn_of_cut(text, node.span, report);
            text.text.as_str()
        }
        Value::Invalid => return None,
        Value::Mapping(entries) => {
            let message = "a variable in a list must be `NAME=value`, and to YAML this is a mapping";
            let written = entries.first().map_or_else(|| "- NAME=value".to_owned(), assignment);
            let hint = format!("write `{written}`; quote it if there is a `: ` in the value");
            report.push(report.error(Code::WrongType, node.span, message).hint(hint));
            return None;
        }
        _ => {
            let message = format!("a variable must be `NAME=value`, and this is {}", node.kind());
            report.push(report.error(Code::WrongType, node.span, message));
            return None;
        }
    };
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    variable(name, value, Place(node.span), report)
}

/// `NAME: VALUE` or `NAME:`.
fn mapping_entry(entry: &Entry, report: &mut Report<'_>) -> Option<Variable> {
    let value = match &entry.value.value {
        Value::Text(text) => {
            value::warn_of_cut(text, entry.value.span, report);
            Some(text.text.as_str())
        }
        Value::Null => None,
        Value::Invalid => return None,
        _ => {
            let message = format!(
                "the value of the variable {} must be text, and this is {}",
                quoted(&entry.key.text),
                entry.value.kind()
            );
            let problem = report.error(Code::WrongType, entry.value.span, message);
            report.push(problem.hint("put it in quotes if it was meant as text"));
            return None;
        }
    };
    variable(&entry.key.text, value, Place(entry.key.span), report)
}

fn variable(name: &str, value: Option<&str>, place: Place, report: &mut Report<'_>) -> Option<Variable> {
    let checked = name_of(name, place, report)?;
    if value.is_some_and(|value| value.contains('\0')) {
        let message = format!("the value of {} has a NUL character in it", quoted(name));
        report.push(report.error(Code::BadVariable, place.0, message));
        return None;
    }
    Some(match value {
        Some(value) => Variable::Set { name: checked, value: value.to_owned(), place },
        None => Variable::PassedOn { name: checked, place },
    })
}

/// A variable that a manifest may set.
pub(super) fn name_of(name: &str, place: Place, report: &mut Report<'_>) -> Option<VarName> {
    let problem = match VarName::new(name) {
        Ok(name) if !is_reserved(&name) => return Some(name),
        Ok(name) => {
            let message = format!(
                "{} can't be set: the names `BUILDR`, `BUILDR_*` and `COMPOSE_PROJECT_NAME` are buildr's own",
                quoted(&name)
            );
            report.error(Code::ReservedVariable, place.0, message).hint("choose another name")
        }
        Err(_) => {
            let problem = report.error(
                Code::BadVariable,
                place.0,
                format!("{} is not the name of a variable", quoted(name)),
            );
            problem.hint("a name is a letter or `_`, then letters, digits and `_`")
        }
    };
    report.push(problem);
    None
}
