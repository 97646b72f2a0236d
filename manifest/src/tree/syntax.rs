//! What is no YAML at all, in words, and what to do about the usual traps.

use serde_yaml::granit_parser::{ErrorKind, ScanError};

use crate::{
    diagnostic::{Code, Diagnostic, Report},
    source::{Source, Span},
};

/// Characters that mean something to YAML at the beginning of a value.
const INDICATORS: [char; 11] = ['[', '{', '"', '\'', '@', '`', '%', '!', '*', '&', '|'];

/// Advice for a value that begins at `start` and was meant as plain text: the text in quotes, where
/// it is certain that the value takes up the rest of its line.
pub(crate) fn quoting_hint(source: &Source<'_>, start: usize) -> String {
    const MAX_LINE: usize = 200;
    let (line_start, line) = source.line(start);
    let before = line.get(..start.saturating_sub(line_start)).unwrap_or_default();
    if line.len() > MAX_LINE || before.contains(['[', '{']) {
        return "if this was meant as text, put it in quotes".to_owned();
    }
    format!("if this was meant as text, quote all of it: {}", in_quotes(source.rest_of_line(start)))
}

/// The diagnostic for an error of the YAML parser.
pub(super) fn explain(error: &ScanError, report: &Report<'_>) -> Diagnostic {
    let source = report.source();
    let start = error.marker().byte_offset().unwrap_or(0).min(source.text().len());
    let (line_start, line) = source.line(start);
    if let Some(tab) = indentation(line).find('\t') {
        let at = line_start + tab;
        let span = Span { start: at, end: at + 1 };
        return report.error(Code::Syntax, span, "a tab can't indent YAML").hint("indent with spaces");
    }
    let code = match error.kind() {
        ErrorKind::RecursionLimitExceeded => Code::TooLarge,
        _ => Code::Syntax,
    };
    let hint = match error.kind() {
        _ if has_template_in_flow(line) => Some(
            "inside of `{...}` and `[...]` put a text with `${...}` in quotes: \"name-${NAME}\"".to_owned(),
        ),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::UnclosedFlowCollection { .. } => {
            Some("close it; if it belongs to a text, put all of the text in quotes".to_owned())
        }
        ErrorKind::InvalidColonPlacement if line.starts_with(|first: char| !first.is_whitespace()) => {
            Some("a `[` or `{` in a line above is not closed".to_owned())
        }
        ErrorKind::SimpleKeyExpected => missing_dash(source, line_start),
        ErrorKind::MappingValueNotAllowed if is_too_deep(source, line_start, line) => {
            Some("this line is indented further than the one above, which has a value already".to_owned())
        }
        _ => trap_start(line).map(|offset| quoting_hint(source, line_start + offset)),
    };
    report.error(code, Span { start, end: start }, message(error)).maybe_hint(hint)
}

fn message(error: &ScanError) -> String {
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => "lists and mappings are nested more than 32 deep".to_owned(),
        ErrorKind::UnclosedQuotedScalar => "a quote is not closed".to_owned(),
        ErrorKind::UnclosedFlowCollection { open } => format!("`{open}` is not closed"),
        ErrorKind::UnexpectedCharacter { character: '`' } => "text can't begin with a backtick".to_owned(),
        ErrorKind::UnexpectedCharacter { character } => format!("text can't begin with `{character}`"),
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "there is text after the closing quote".to_owned()
        }
        ErrorKind::MappingValueNotAllowed => "`: ` makes a mapping, which can't stand here".to_owned(),
        ErrorKind::SimpleKeyExpected => "this line is no key with a `:`, and no entry of a list".to_owned(),
        ErrorKind::InvalidColonPlacement => "a `:` can't stand here".to_owned(),
        ErrorKind::ExpectedBlockMappingKey => {
            "a key was expected here, as indented as those above".to_owned()
        }
        ErrorKind::ExpectedBlockSequenceEntry => {
            "a list's next `-` was expected here, as indented as those above".to_owned()
        }
        kind => format!("not valid YAML: {kind}"),
    }
}

/// True for a line like `{key: cargo-${os}}`, where the inner `{` ends the plain text.
fn has_template_in_flow(line: &str) -> bool {
    let text = line.trim_start();
    let is_command = text.starts_with("- [");
    text.split_once("${").is_some_and(|(before, _)| {
        !is_command && before.contains(['{', '[']) && !before.contains(['"', '\''])
    })
}

/// What a line among the entries of a list lacks.
fn missing_dash(source: &Source<'_>, line_start: usize) -> Option<String> {
    let (_, above) = line_above(source, line_start)?;
    let is_entry = above.trim_start().starts_with("- ");
    is_entry.then(|| "the line above is an entry of a list: begin this one with `- ` too".to_owned())
}

/// True for a key that is indented below a key with a value.
fn is_too_deep(source: &Source<'_>, line_start: usize, line: &str) -> bool {
    let is_key = line.trim_end().ends_with(':')
        || line.split_once(": ").is_some_and(|(key, _)| !key.contains(['"', '\'', ' ']));
    let above = line_above(source, line_start).map(|(_, above)| above);
    is_key
        && above.is_some_and(|above| {
            indentation(above).len() < indentation(line).len()
                && above.contains(": ")
                && !above.trim_start().starts_with("- ")
        })
}

/// The nearest line above that has something in it.
fn line_above<'a>(source: &Source<'a>, line_start: usize) -> Option<(usize, &'a str)> {
    let mut start = line_start;
    while start > 0 {
        let (above, line) = source.line(start - 1);
        if !line.trim().is_empty() {
            return Some((above, line));
        }
        start = above;
    }
    None
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// Where in a line the entry of a list, or the value of a key, begins that YAML can't take for the
/// plain text that it seems to be.
fn trap_start(line: &str) -> Option<usize> {
    let trimmed = line.trim_start();
    let text = match trimmed.strip_prefix("- ") {
        Some(text) => text.trim_start(),
        None => trimmed.split_once(": ")?.1.trim_start(),
    };
    (text.starts_with(INDICATORS) || text.contains(": ")).then(|| line.len() - text.len())
}

/// A text as a single-quoted YAML scalar.
fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
