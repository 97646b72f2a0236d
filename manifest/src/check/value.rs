//! Single values that occur in more than one place: text, yes or no, lengths of time.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    Code,
    diagnostic::{Report, quoted},
    duration,
    source::Span,
    tree::{Node, Style, Text, Value, quoting_hint},
    vocabulary::nearest,
};

/// The text of a scalar. What is not one is reported as a bad value of `key`.
pub(super) fn text<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(&text.text),
        Value::Invalid => None,
        _ => {
            report.push(report.error(
                Code::WrongType,
                node.span,
                format!("`{key}` must be text, and this is {}", node.kind()),
            ));
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
            report.push(report.error(Code::WrongType, node.span, message));
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
            report.push(report.error(Code::WrongType, node.span, message).suggest(word).maybe_hint(hint));
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
            report.push(
                report
                    .error(Code::BadDuration, node.span, message)
                    .hint("write it like `90s`, `10m` or `1h30m`"),
            );
        })
        .ok()
}

/// A whole number within bounds.
pub(super) fn number(
    node: &Node,
    key: &str,
    bounds: RangeInclusive<u32>,
    report: &mut Report<'_>,
) -> Option<u32> {
    let text = text(node, key, report)?;
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && bounds.contains(number));
    if number.is_none() {
        let (from, to) = bounds.into_inner();
        let message = format!("`{key}` must be a whole number from {from} to {to}, not {}", quoted(text));
        report.push(report.error(Code::BadNumber, node.span, message));
    }
    number
}

/// A scalar that a parser of its own reads; why it can't follows the text in the message.
pub(super) fn parsed<T>(
    node: &Node,
    key: &str,
    code: Code,
    parse: impl Fn(&str) -> Result<T, &'static str>,
    example: &str,
    report: &mut Report<'_>,
) -> Option<T> {
    let text = text(node, key, report)?;
    parse(text)
        .map_err(|why| {
            let message = format!("the {key} {} {why}", quoted(text));
            report.push(report.error(code, node.span, message).hint(format!("write it like {example}")));
        })
        .ok()
}

/// One of some words.
pub(super) fn word<T: Copy>(
    node: &Node,
    key: &str,
    words: &[(&'static str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let text = text(node, key, report)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let near = nearest(text, words.iter().map(|(word, _)| *word));
    let all: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
    let message = format!("{} is no value of `{key}`", quoted(text));
    let hint = format!("it is one of {}", all.join(", "));
    report.push(report.error(Code::UnknownWord, node.span, message).suggest(near).hint(hint));
    None
}

/// The texts of a list; one text alone is a list of one. An empty list is reported.
pub(super) fn texts<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Vec<(&'n str, &'n Node)> {
    let items = nodes(node);
    if items.is_empty() && !matches!(node.value, Value::Invalid) {
        let message = format!("`{key}` must be a list, and this is {}", node.kind());
        report.push(
            report
                .error(Code::WrongType, node.span, message)
                .hint(format!("for example `{key}: [...]`, with an entry at least")),
        );
    }
    items.into_iter().filter_map(|item| Some((entry_text(item, key, report)?, item))).collect()
}

/// The text of an entry of a list.
fn entry_text<'n>(node: &'n Node, key: &str, report: &mut Report<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Text(text) => Some(&text.text),
        Value::Invalid => None,
        _ => {
            let message = format!("an entry of `{key}` must be text, and this is {}", node.kind());
            let hint = quoting_hint(report.source(), node.span.start);
            let is_flow = matches!(node.value, Value::List(_) | Value::Mapping(_));
            report
                .push(report.error(Code::WrongType, node.span, message).maybe_hint(is_flow.then_some(hint)));
            None
        }
    }
}

/// The entries of a list, or a scalar as the only one. Nothing for all else.
pub(super) fn nodes(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::List(items) => items.iter().map(|item| &**item).collect(),
        Value::Text(_) => vec![node],
        _ => Vec::new(),
    }
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
    let problem =
        report.warning(Code::CutAtHash, hash, "YAML takes this for a comment, so it is not part of the text");
    let hint = quoting_hint(source, span.start);
    report.push(problem.hint(format!("{hint}; if it is a comment, put a blank after the `#`")));
}
