//! Where in the text a part of a checked manifest was written.
//!
//! Places serve messages alone. Two manifests that say the same are equal wherever they say it, so
//! all places are equal to one another.

use std::{fmt, sync::Arc};

use crate::{
    diagnostic::{Code, Diagnostic, Severity},
    source::{Source, Span},
};

/// A place in the text of a manifest. Equal to every other one.
#[derive(Clone, Copy, Default)]
pub struct Place(pub(crate) Span);

/// The keys of one mapping that were written, with their places. Equal to all others.
#[derive(Clone, Default)]
pub struct Keys(Vec<(&'static str, Place)>);

/// The text that a manifest was read from. Equal to all others.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    file: Arc<str>,
    text: Arc<str>,
}

impl Keys {
    /// Notes that a key stands at a place.
    pub(crate) fn note(&mut self, key: &'static str, span: Span) {
        self.0.push((key, Place(span)));
    }

    /// Where a key stands, where it was written at all.
    pub fn get(&self, key: &str) -> Option<Place> {
        self.0.iter().find(|(known, _)| *known == key).map(|(_, place)| *place)
    }

    /// The keys that were written.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Place)> {
        self.0.iter().copied()
    }
}

impl Origin {
    /// Keeps a text that was read.
    pub(crate) fn new(source: &Source<'_>) -> Self {
        Self { file: source.file().into(), text: source.text().into() }
    }

    /// The text, for messages about places in it.
    pub(crate) fn source(&self) -> Source<'_> {
        Source::again(&self.text, &self.file)
    }

    /// An error at a place.
    pub(crate) fn error(&self, code: Code, place: Place, message: impl Into<String>) -> Diagnostic {
        self.source().at(Severity::Error, code, place.0, message)
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl PartialEq for Keys {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Place {}
impl Eq for Keys {}
impl Eq for Origin {}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)
    }
}
