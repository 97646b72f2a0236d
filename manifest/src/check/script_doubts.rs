//! Commands that a shell takes and that probably do something else than was meant.
//!
//! No shell is parsed here: quotes and comments are skipped, and what is left is looked at. So these
//! are warnings, and they rather stay silent than speak up wrongly.

use crate::{
    Code,
    diagnostic::Report,
    source::Span,
    tree::{Style, Text},
};

/// Looks at one entry of a script.
pub(super) fn check(text: &Text, span: Span, report: &mut Report<'_>) {
    warn_of_folding(text, span, report);
    warn_of_nested_shell(&text.text, span, report);
}

/// Lines below `script:` without a `-`: to YAML they are one text.
pub(super) fn warn_of_no_dashes(text: &Text, span: Span, report: &mut Report<'_>) {
    let written = report.source().slice(span);
    if text.style == Style::Plain && written.trim_end().contains('\n') {
        let problem =
            report.warning(Code::FoldedLines, span, "to YAML these lines are one, so they are one command");
        report.push(problem.hint("begin each command with `- `, or put a `|` after `script:`"));
    }
}

/// A `>` block of several lines becomes one line: the commands run into one another.
fn warn_of_folding(text: &Text, span: Span, report: &mut Report<'_>) {
    if text.style != Style::Block {
        return;
    }
    let source = report.source();
    // The header stands before the text: `>`, and maybe how to chomp and to indent.
    let before = source.text().get(..span.start).unwrap_or_default().trim_end();
    let header = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '+');
    let Some(start) = header.strip_suffix('>').map(str::len) else { return };
    let mut lines = source.slice(span).lines().map(str::trim).filter(|line| !line.is_empty());
    let goes_on = |line: &str| line.ends_with(['\\', '&', '|', ';', '(', '{']);
    let continues = |line: &str| line.starts_with(['-', '&', '|', ')', '}']);
    let looks_separate = match (lines.next(), lines.next()) {
        (Some(first), Some(second)) => !goes_on(first) && !continues(second),
        _ => false,
    };
    if looks_separate {
        let header = Span { start, end: start + 1 };
        let problem =
            report.warning(Code::FoldedLines, header, "`>` makes one line of these, so they are one command");
        report.push(problem.hint("write `|` if each line is a command"));
    }
}

/// `sh -c "... $X"`: the outer shell expands what is in double quotes.
fn warn_of_nested_shell(text: &str, span: Span, report: &mut Report<'_>) {
    const CALLS: [&str; 4] = ["sh -c \"", "bash -c \"", "sh -ec \"", "bash -ec \""];
    let Some(after) = CALLS.iter().find_map(|call| text.split_once(call).map(|(_, after)| after)) else {
        return;
    };
    let mut escaped = false;
    let inside = after.chars().take_while(|c| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        !ends
    });
    let inside: String = inside.collect();
    let expands = inside.replace("\\$", "").contains('$');
    if expands {
        let message = "the `$` in these double quotes is expanded before the inner shell runs";
        let problem = report.warning(Code::NestedShell, span, message);
        report.push(
            problem.hint("an entry is read by a shell already: leave `sh -c` out, or use single quotes"),
        );
    }
}

/// Where a script has a pipe, as far as that can be told without parsing shell: its first entry.
pub(super) fn pipe(script: &[String]) -> Option<usize> {
    script.iter().position(|entry| entry.lines().any(has_pipe))
}

/// True for a line with a `|` that is neither quoted, doubled, commented out, nor in a `case`.
fn has_pipe(line: &str) -> bool {
    let mut quote: Option<char> = None;
    let mut previous = ' ';
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                chars.next();
            }
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '#') if previous.is_whitespace() => return false,
            (None, '|') if chars.peek() == Some(&'|') => {
                chars.next();
            }
            (None, '|') if previous != '>' => return !line.trim_end().ends_with(')') && !line.contains(";;"),
            (None, _) => {}
        }
        previous = c;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_told_from_what_only_looks_like_them() {
        for (line, expected) in [
            ("make | tee log", true),
            ("make 2>&1 |tee log", true),
            ("make || true", false),
            ("echo 'a | b'", false),
            ("echo \"a | b\" | cat", true),
            ("echo a\\|b", false),
            ("make # | no", false),
            ("a|b) make ;;", false),
            ("a|b)", false),
            ("echo x >| file", false),
            ("grep -E \"a|b\" file", false),
        ] {
            assert_eq!(has_pipe(line), expected, "{line}");
        }
    }
}
