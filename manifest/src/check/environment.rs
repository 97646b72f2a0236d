//! `environment`: what is passed on, and the variables.

use std::collections::HashMap;

use super::value;
use crate::{
    VarName,
    diagnostic::{Report, quoted},
    manifest::{Environment, Inherit, Variable},
    resolve::is_reserved,
    tree::{Entry, Node, Value},
    vocabulary::{Place, nearest},
};

/// Reads the value of `environment`.
pub(super) fn check(node: &Node, report: &mut Report<'_>) -> Environment {
    let mut environment = Environment::default();
    match &node.value {
        Value::Null | Value::Invalid => {}
        Value::Mapping(entries) if is_flat(entries) => {
            let span = entries.first().map_or(node.span, |entry| entry.key.span);
            let problem = report.error(span, "variables directly under `environment` are not supported yet");
            report.push(
                problem.hint(format!("put them into a list under `vars`: `- {}`", first_assignment(entries))),
            );
        }
        Value::Mapping(entries) => {
            for entry in entries {
                part(entry, &mut environment, report);
            }
        }
        Value::List(_) => {
            let problem = report.error(node.span, "a list directly under `environment` is not supported yet");
            report.push(problem.hint("put the list under `vars:` inside of `environment`"));
        }
        Value::Text(_) => {
            let problem = report.error(node.span, "`environment` must be a mapping, and this is text");
            report.push(problem.hint("it has the keys `inherit` and `vars`"));
        }
    }
    environment
}

/// True for `environment: {FOO: bar}`: no key of ours, or nearly one with a value like ours.
fn is_flat(entries: &[Entry]) -> bool {
    let is_ours = |entry: &Entry| {
        let key = entry.key.text.as_str();
        let is_lower = !key.contains(|c: char| c.is_ascii_uppercase());
        let is_near = is_lower && nearest(key, Place::Environment.known().iter().copied()).is_some();
        Place::Environment.known().contains(&key)
            || is_near
            || !matches!(entry.value.value, Value::Text(_) | Value::Null)
    };
    !entries.is_empty() && !entries.iter().any(is_ours)
}

fn first_assignment(entries: &[Entry]) -> String {
    match entries.first().map(|entry| (&entry.key.text, &entry.value.value)) {
        Some((name, Value::Text(value))) if value.text.len() < 60 => format!("{name}={}", value.text),
        _ => "NAME=value".to_owned(),
    }
}

fn part(entry: &Entry, environment: &mut Environment, report: &mut Report<'_>) {
    let value = &*entry.value;
    match entry.key.text.as_str() {
        "inherit" => environment.inherit = inherit(value, report),
        "vars" => environment.vars = vars(value, report),
        key => {
            let near = nearest(key, Place::Environment.known().iter().copied());
            let message = format!("{} is not a key of `environment`", quoted(key));
            let hint =
                near.is_none().then(|| "variables stand in a list under `vars`: `- NAME=value`".to_owned());
            report.push(report.error(entry.key.span, message).suggest(near).maybe_hint(hint));
        }
    }
}

fn inherit(node: &Node, report: &mut Report<'_>) -> Inherit {
    if matches!(node.value, Value::List(_)) {
        let problem = report.error(node.span, "a list of names in `inherit` is not supported yet");
        report.push(
            problem.hint("`inherit` is `true` or `false`; a bare `- NAME` in `vars` passes one variable on"),
        );
        return Inherit::Nothing;
    }
    match value::boolean(node, "inherit", report) {
        Some(true) => Inherit::Everything,
        Some(false) | None => Inherit::Nothing,
    }
}

fn vars(node: &Node, report: &mut Report<'_>) -> Vec<Variable> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null | Value::Invalid => return Vec::new(),
        Value::Mapping(entries) => {
            let problem = report.error(node.span, "a mapping under `vars` is not supported yet");
            report.push(problem.hint(format!("write a list: `- {}`", first_assignment(entries))));
            return Vec::new();
        }
        Value::Text(_) => {
            let problem = report.error(node.span, "`vars` must be a list, and this is text");
            report.push(problem.hint("one line for each variable: `- NAME=value`"));
            return Vec::new();
        }
    };
    let mut first_lines: HashMap<VarName, usize> = HashMap::new();
    let mut vars = Vec::new();
    for item in items {
        let Some(variable) = variable(item, report) else { continue };
        let line = report.source().line_number(item.span.start);
        if let Some(first) = first_lines.insert(variable.name().clone(), line) {
            let message = format!("the variable {} is set twice", quoted(variable.name()));
            let problem = report.warning(item.span, message);
            report.push(problem.hint(format!("this one wins over that in line {first}")));
        }
        vars.push(variable);
    }
    vars
}

fn variable(node: &Node, report: &mut Report<'_>) -> Option<Variable> {
    let text = match &node.value {
        Value::Text(text) => {
            value::warn_of_cut(text, node.span, report);
            text.text.as_str()
        }
        Value::Invalid => return None,
        Value::Mapping(entries) => {
            let hint = format!(
                "write it as text: `- {}`; quote it if there is a `: ` in the value",
                first_assignment(entries)
            );
            report.push(
                report
                    .error(node.span, "a variable must be `NAME=value`, and to YAML this is a mapping")
                    .hint(hint),
            );
            return None;
        }
        _ => {
            let message = format!("a variable must be `NAME=value`, and this is {}", node.kind());
            report.push(report.error(node.span, message));
            return None;
        }
    };
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let problem = match VarName::new(name) {
        Ok(name) if is_reserved(&name) => {
            let problem = report.error(
                node.span,
                format!("{} can't be set: the names `BUILDR` and `BUILDR_*` are buildr's own", quoted(&name)),
            );
            problem.hint("choose another name")
        }
        Ok(_) if value.is_some_and(|value| value.contains('\0')) => {
            report.error(node.span, format!("the value of {} has a NUL character in it", quoted(name)))
        }
        Ok(name) => {
            return Some(match value {
                Some(value) => Variable::Set { name, value: value.to_owned() },
                None => Variable::PassedOn { name },
            });
        }
        Err(_) => {
            let problem = report.error(node.span, format!("{} is not the name of a variable", quoted(name)));
            problem.hint("`NAME=value`, where a name is a letter or `_`, then letters, digits and `_`")
        }
    };
    report.push(problem);
    None
}
