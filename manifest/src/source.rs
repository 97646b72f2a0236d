//! A manifest's text: its limits, and where in it things stand.
//!
//! Owns the checks that come before YAML (size, encoding, control characters) and the arithmetic
//! from byte offsets to lines and columns. Knows nothing of YAML.

use crate::diagnostic::{Code, Diagnostic, Severity};

/// The largest manifest that is read.
const MAX_BYTES: usize = 1024 * 1024;

/// A longer source line is not shown with a diagnostic: minified text helps nobody.
const MAX_SHOWN_LINE: usize = 400;

/// A range of bytes in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub(crate) start: usize,
    /// The byte after the last.
    pub(crate) end: usize,
}

/// A text that may be parsed: valid UTF-8 of a bounded size, without its byte order mark.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    /// Checks raw bytes.
    pub(crate) fn new(bytes: &'a [u8], file: &'a str) -> Result<Self, Box<Diagnostic>> {
        if bytes.len() > MAX_BYTES {
            let message = format!("the manifest is larger than 1 MiB ({} bytes)", bytes.len());
            return Err(Box::new(Self::index(file, "").at(
                Severity::Error,
                Code::TooLarge,
                Span::default(),
                message,
            )));
        }
        let (text, broken) = match std::str::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let valid = &bytes[..error.valid_up_to()];
                (std::str::from_utf8(valid).unwrap_or_default(), Some(error.valid_up_to()))
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = Self::index(file, text);
        if broken.is_some() {
            return Err(Box::new(source.not_utf8(bytes)));
        }
        match text.char_indices().find(|(_, c)| is_forbidden(*c)) {
            None => Ok(source),
            Some((start, c)) => {
                let message = format!("the control character U+{:04X} can't stand in a manifest", c as u32);
                let span = Span { start, end: start + c.len_utf8() };
                let hint = "remove it; in a double-quoted text it can be written as an escape";
                Err(Box::new(source.at(Severity::Error, Code::BadText, span, message).hint(hint)))
            }
        }
    }

    /// A text that was checked before.
    pub(crate) fn again(text: &'a str, file: &'a str) -> Self {
        Self::index(file, text)
    }

    /// The file's name, as the caller gave it.
    pub(crate) fn file(&self) -> &'a str {
        self.file
    }

    /// The text, without a byte order mark.
    pub(crate) fn text(&self) -> &'a str {
        self.text
    }

    /// The text of a span; empty where the span is not in the text.
    pub(crate) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// The number (from 1) of the line that a byte stands in.
    pub(crate) fn line_number(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The line that a byte stands in, without its end, and the offset at which it begins.
    pub(crate) fn line(&self, offset: usize) -> (usize, &'a str) {
        let number = self.line_number(offset);
        let start = self.line_starts[number - 1];
        let end = self.line_starts.get(number).copied().unwrap_or(self.text.len());
        (start, self.text[start..end].trim_end_matches(['\n', '\r']))
    }

    /// What follows a byte in its line, white space at its end removed.
    pub(crate) fn rest_of_line(&self, offset: usize) -> &'a str {
        let (start, line) = self.line(offset);
        line.get(offset.saturating_sub(start)..).unwrap_or_default().trim_end()
    }

    /// A diagnostic for a place in the text. What spans several lines is marked in its first.
    pub(crate) fn at(
        &self,
        severity: Severity,
        code: Code,
        span: Span,
        message: impl Into<String>,
    ) -> Diagnostic {
        let (line_start, line) = self.line(span.start);
        let from = floor_char_boundary(line, span.start.saturating_sub(line_start));
        let to = floor_char_boundary(line, span.end.saturating_sub(line_start)).max(from);
        Diagnostic {
            severity,
            code,
            file: self.file.to_owned(),
            line: self.line_number(span.start),
            column: line[..from].chars().count() + 1,
            length: line[from..to].chars().count().max(1),
            message: message.into(),
            suggestion: None,
            hint: None,
            source_line: (line.len() <= MAX_SHOWN_LINE).then(|| line.to_owned()),
        }
    }

    fn index(file: &'a str, text: &'a str) -> Self {
        let bytes = text.as_bytes();
        let ends_line = |i: usize| match bytes[i] {
            b'\n' => true,
            b'\r' => bytes.get(i + 1) != Some(&b'\n'),
            _ => false,
        };
        let line_starts = std::iter::once(0).chain((0..bytes.len()).filter(|i| ends_line(*i)).map(|i| i + 1));
        Self { file, text, line_starts: line_starts.collect() }
    }

    fn not_utf8(&self, bytes: &[u8]) -> Diagnostic {
        let end = self.text.len();
        let hint = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            "this is UTF-16; save the file as UTF-8"
        } else {
            "save the file as UTF-8"
        };
        self.at(
            Severity::Error,
            Code::BadText,
            Span { start: end, end },
            "the manifest is not valid UTF-8 here",
        )
        .hint(hint)
    }
}

/// True for what YAML calls not printable.
fn is_forbidden(c: char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')
}

/// The largest index not above `index` at which a character begins.
fn floor_char_boundary(text: &str, index: usize) -> usize {
    (0..=index.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0)
}
