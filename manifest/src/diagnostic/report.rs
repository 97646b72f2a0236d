//! The collector of problems while a manifest is read.

use super::{Code, Diagnostic, Diagnostics, Severity};
use crate::source::{Source, Span};

/// More errors, or more warnings, than this are counted and not kept: nobody reads them, and a
/// hostile file could otherwise fill the memory.
const MAX_KEPT: usize = 100;

/// Problems found so far in one source.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    source: &'a Source<'a>,
    items: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl<'a> Report<'a> {
    /// An empty one.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, items: Vec::new(), errors: 0, warnings: 0 }
    }

    /// The text that is read.
    pub(crate) fn source(&self) -> &'a Source<'a> {
        self.source
    }

    /// Makes an error; it counts once it is pushed.
    pub(crate) fn error(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        self.make(Severity::Error, code, span, message.into())
    }

    /// Makes a warning; it counts once it is pushed.
    pub(crate) fn warning(&self, code: Code, span: Span, message: impl Into<String>) -> Diagnostic {
        self.make(Severity::Warning, code, span, message.into())
    }

    /// Adds a problem.
    pub(crate) fn push(&mut self, item: Diagnostic) {
        let severity = item.severity;
        if !self.is_full(severity) {
            self.items.push(item);
        }
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
    }

    /// True once more problems of this kind will only be counted. What is costly to say about
    /// them, a 'did you mean' over many words, can be left out then.
    pub(crate) fn is_full(&self, severity: Severity) -> bool {
        let pushed = match severity {
            Severity::Error => self.errors,
            Severity::Warning => self.warnings,
        };
        pushed >= MAX_KEPT
    }

    /// True once an error was pushed.
    pub(crate) fn has_failed(&self) -> bool {
        self.errors > 0
    }

    /// How many errors were pushed so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// All that was pushed, in the order of the text.
    pub(crate) fn finish(mut self) -> Diagnostics {
        self.items.sort_by_key(|item| (item.line, item.column));
        let omitted = self.errors + self.warnings - self.items.len();
        Diagnostics { items: self.items, omitted }
    }

    /// The place of a problem that is only counted is not looked up: in a file that is one long
    /// line that takes time in proportion to the line.
    fn make(&self, severity: Severity, code: Code, span: Span, message: String) -> Diagnostic {
        let span = if self.is_full(severity) { Span::default() } else { span };
        self.source.at(severity, code, span, message)
    }
}
