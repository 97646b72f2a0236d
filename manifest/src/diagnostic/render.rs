//! Diagnostics as text. The only place that knows of the crate that draws them.

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Severity};

/// One problem.
pub(super) fn diagnostic(item: &Diagnostic, color: bool) -> String {
    let level = match item.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = with_place(Group::with_title(level.primary_title(item.message.as_str())), item);
    let suggestion = item.suggestion.as_ref().map(|word| format!("did you mean `{word}`?"));
    let helps = suggestion.iter().chain(&item.hint).map(|text| Level::HELP.message(text.as_str()));
    renderer(color).render(&[group.elements(helps)])
}

/// All problems, a blank line between them.
pub(super) fn diagnostics(all: &Diagnostics, color: bool) -> String {
    let mut blocks: Vec<String> = all.items.iter().map(|item| diagnostic(item, color)).collect();
    if all.omitted > 0 {
        blocks.push(format!("and {} more", all.omitted));
    }
    blocks.join("\n\n")
}

fn renderer(color: bool) -> Renderer {
    if color { Renderer::styled() } else { Renderer::plain() }
}

fn with_place<'a>(group: Group<'a>, item: &'a Diagnostic) -> Group<'a> {
    let Some(line) = &item.source_line else {
        return group.element(Origin::path(&*item.file).line(item.line).char_column(item.column));
    };
    let byte = |chars: usize| line.char_indices().nth(chars).map_or(line.len(), |(at, _)| at);
    let (from, to) = (byte(item.column - 1), byte(item.column - 1 + item.length));
    let caret = AnnotationKind::Primary.span(from..to);
    group.element(Snippet::source(&**line).line_start(item.line).path(&*item.file).annotation(caret))
}
