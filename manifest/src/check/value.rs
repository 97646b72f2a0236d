//! Single values that occur in more than one place: text, yes or no, lengths of time.

use std::time::Duration;

use crate::{
    diagnostic::{Report, quoted},
    duration,
    source::Span,
    tree::{Node, Style, Text, Value, quoting_hint},
};

/// The text of a scalar. What is not one is reported as a bad value of `key`.
pub(super) fn text<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(&text.text),
        Value::Invalid => None,
        _ => {
            report
                .push(report.error(node.span, format!("`{key}` must be text, and this is {}", node.kind())));
            None
        }
    }
}

/// `true` or `false`, unquoted.
pub(super) fn boolean(node: &Node, key: &str, report: &mut Report<'_>) -> Option<bool> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Invalid => return None,
        _ => {
            let message = format!("`{key}` must be `true` or `false`, and this is {}", node.kind());
            report.push(report.error(node.span, message));
            return None;
        }
    };
    match (text.style, &*text.text) {
        (Style::Plain, "true" | "True" | "TRUE") => Some(true),
        (Style::Plain, "false" | "False" | "FALSE") => Some(false),
        (style, other) => {
            let word = match other.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" | "1" => Some("true"),
                "no" | "off" | "n" | "false" | "0" => Some("false"),
                _ => None,
            };
            let message = format!("`{key}` must be `true` or `false`, not {}", quoted(other));
            let hint = (style != Style::Plain && word.is_some()).then(|| "without quotes".to_owned());
            report.push(report.error(node.span, message).suggest(word).maybe_hint(hint));
            None
        }
    }
}

/// A length of time.
pub(super) fn duration(node: &Node, key: &str, report: &mut Report<'_>) -> Option<Duration> {
    let text = text(node, key, report)?;
    duration::parse(text)
        .map_err(|why| {
            let message = format!("the {key} {} {}", quoted(text), why.why());
            report.push(report.error(node.span, message).hint("write it like `90s`, `10m` or `1h30m`"));
        })
        .ok()
}

/// Warns of `- echo hi #x`: YAML takes the rest for a comment. Where a blank follows the hash, it is one.
pub(super) fn warn_of_cut(text: &Text, span: Span, report: &mut Report<'_>) {
    let source = report.source();
    let rest = source.rest_of_line(span.end);
    let Some(comment) = rest.trim_start().strip_prefix('#').filter(|_| text.style == Style::Plain) else {
        return;
    };
    if comment.is_empty() || comment.starts_with([' ', '\t', '#']) {
        return;
    }
    let start = span.end + rest.len() - comment.len() - 1;
    let hash = Span { start, end: start + comment.len() + 1 };
    let problem = report.warning(hash, "YAML takes this for a comment, so it is not part of the text");
    let hint = quoting_hint(source, span.start);
    report.push(problem.hint(format!("{hint}; if it is a comment, put a blank after the `#`")));
}
