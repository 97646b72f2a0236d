//! What is wrong with a manifest, for people and for programs.
//!
//! A diagnostic is self-contained: it carries the line that it speaks of, so that it can be shown
//! where the manifest itself is not at hand.

mod code;
mod render;
mod report;

use std::fmt;

use serde::Serialize;

pub use code::Code;
pub(crate) use report::Report;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest can't be run.
    Error,
    /// The manifest runs, but maybe not as its author thinks.
    Warning,
}

/// One problem of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of problem it is.
    pub code: Code,
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant; at least 1.
    pub length: usize,
    /// One sentence, without a full stop.
    pub message: String,
    /// The known word that is near the one that was found.
    pub suggestion: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line that it is about, unless that is unreasonably long.
    pub source_line: Option<String>,
}

/// All problems of a manifest that can't be run, in the order of the text; errors and warnings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// The problems.
    pub items: Vec<Diagnostic>,
    /// How many more there were than are kept.
    pub omitted: usize,
}

impl Diagnostic {
    /// The problem with its source line, as rustc shows it; with `color`, in ANSI escapes.
    pub fn render(&self, color: bool) -> String {
        render::diagnostic(self, color)
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a hint where there is one.
    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Adds a 'did you mean' where there is one.
    pub(crate) fn suggest(mut self, word: Option<&str>) -> Self {
        self.suggestion = word.map(str::to_owned);
        self
    }
}

impl Diagnostics {
    /// All problems, rendered one below the other.
    pub fn render(&self, color: bool) -> String {
        render::diagnostics(self, color)
    }
}

impl From<Vec<Diagnostic>> for Diagnostics {
    fn from(items: Vec<Diagnostic>) -> Self {
        Self { items, omitted: 0 }
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `.buildr.yml:3:1: error: ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, line, column, message, .. } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {message}")?;
        match (&self.suggestion, &self.hint) {
            (Some(word), _) => write!(f, " (did you mean `{word}`?)"),
            (None, Some(hint)) => write!(f, " ({hint})"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

impl fmt::Display for Diagnostics {
    /// The same as [`Diagnostics::render`] without color.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// A text of the manifest as part of a message: in backticks, on one line, not too long.
pub(crate) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut shown = String::new();
    for c in text.chars().take(MAX_CHARS) {
        if c.is_control() || is_invisible(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// What could make a terminal show another text than there is.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
