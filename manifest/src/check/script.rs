//! The `script` of a stage.

use super::{script_doubts, value};
use crate::{
    Code,
    diagnostic::{Diagnostic, Report, quoted},
    source::Span,
    tree::{Entry, Key, Node, Text, Value, quoting_hint},
    vocabulary::Scope,
};

/// The entries of a script. None only where an error was reported.
pub(super) fn check(node: &Node, stage: &Key, report: &mut Report<'_>) -> Option<Vec<String>> {
    let script: Option<Vec<String>> = match &node.value {
        Value::Invalid => return None,
        Value::List(items) => {
            // Not `collect` on the iterator itself: that would end at the first bad entry.
            let entries: Vec<Option<String>> = items.iter().map(|item| entry(item, report)).collect();
            entries.into_iter().collect()
        }
        Value::Text(text) if !text.text.trim().is_empty() => {
            script_doubts::warn_of_no_dashes(text, node.span, report);
            entry(node, report).map(|entry| vec![entry])
        }
        Value::Null | Value::Text(_) => Some(Vec::new()),
        Value::Mapping(_) => {
            let message = "`script` must be a list of commands, and this is a mapping";
            report.push(
                report.error(Code::WrongType, node.span, message).hint("one line for each command: `- make`"),
            );
            return None;
        }
    };
    if script.as_ref().is_some_and(Vec::is_empty) {
        let span = if node.span.start == node.span.end { stage.span } else { node.span };
        let problem = report.error(
            Code::EmptyScript,
            span,
            format!("the script of the stage {} is empty", quoted(&stage.text)),
        );
        report.push(problem.hint("add a command, or remove the stage"));
        return None;
    }
    script
}

fn entry(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let problem = match &node.value {
        Value::Invalid => return None,
        Value::Text(text) => return command(text, node.span, report),
        Value::Null => report
            .error(Code::EmptyScript, node.span, "this entry of the script is empty")
            .hint("add a command, or remove it"),
        Value::List(_) => list(node, report),
        Value::Mapping(entries) => mapping(node, entries, report),
    };
    report.push(problem);
    None
}

fn command(text: &Text, span: Span, report: &mut Report<'_>) -> Option<String> {
    if text.text.trim().is_empty() {
        report.push(
            report
                .error(Code::EmptyScript, span, "this entry of the script is empty")
                .hint("add a command, or remove it"),
        );
        return None;
    }
    if text.text.contains('\0') {
        report.push(report.error(Code::BadText, span, "no command can have a NUL character in it"));
        return None;
    }
    value::warn_of_cut(text, span, report);
    script_doubts::check(text, span, report);
    Some(text.text.clone())
}

/// `- [ -f x ]`, or a list inside of the list.
fn list(node: &Node, report: &Report<'_>) -> Diagnostic {
    let problem = report.error(
        Code::WrongType,
        node.span,
        "an entry of a script must be text, and to YAML this is a list",
    );
    if report.source().slice(node.span).starts_with('[') {
        problem.hint(quoting_hint(report.source(), node.span.start))
    } else {
        problem.hint("a script is one list of commands, not a list of lists")
    }
}

/// `- echo a: b`, or a step of another system.
fn mapping(node: &Node, entries: &[Entry], report: &Report<'_>) -> Diagnostic {
    let problem = report.error(
        Code::WrongType,
        node.span,
        "an entry of a script must be text, and to YAML this is a mapping",
    );
    let Some(first) = entries.first() else {
        return problem.hint("quote the command: `- '...'`");
    };
    let key = first.key.text.as_str();
    if matches!(key, "name" | "uses" | "sh" | "bash") || Scope::Stage.foreign(key) == Some("script") {
        return problem.hint("a step is the command itself: `- make`");
    }
    if entries.len() == 1 && first.value.as_mapping().is_none() {
        let hint = quoting_hint(report.source(), node.span.start);
        let is_flow = report.source().slice(node.span).starts_with('{');
        return problem.hint(if is_flow { hint } else { format!("`: ` makes it one; {hint}") });
    }
    problem.hint("quote the command, or write it as a block: `- |` and the command below, indented")
}
