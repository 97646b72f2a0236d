//! YAML as a tree in which every key and value knows its place.
//!
//! Owns all that is YAML and not yet manifest: anchors, merge keys, duplicate keys, tags, limits.
//! Knows no key of the manifest language. Aliases share their target, so a 'billion laughs' file
//! costs nothing to read; what a reader of the tree would walk is bounded all the same.

mod compose;
mod merge;
mod syntax;

use std::rc::Rc;

use crate::source::Span;

pub(crate) use compose::compose;
pub(crate) use syntax::quoting_hint;

/// A value and where it is defined; for an alias that is its anchor's place.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where.
    pub(crate) span: Span,
    /// What.
    pub(crate) value: Value,
    /// What it costs to walk it with all aliases expanded: bytes of text, and some per node.
    weight: usize,
    /// How deep the lists and mappings in it are nested; 0 for a scalar.
    depth: usize,
}

/// What a node is.
#[derive(Debug)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar.
    Text(Text),
    /// A sequence.
    List(Vec<Rc<Node>>),
    /// A mapping in the order of the text, merge keys expanded, no key twice.
    Mapping(Vec<Entry>),
    /// Something that was reported already; to be passed over in silence.
    Invalid,
}

/// A scalar. Of a plain one the text is its very characters, whatever YAML would make of them.
#[derive(Debug)]
pub(crate) struct Text {
    /// The characters, quotes and escapes resolved.
    pub(crate) text: String,
    /// How it was written.
    pub(crate) style: Style,
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Without quotes.
    Plain,
    /// In single or double quotes.
    Quoted,
    /// As a `|` or `>` block.
    Block,
}

/// One key with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: Rc<Key>,
    /// The value.
    pub(crate) value: Rc<Node>,
}

/// A key of a mapping.
#[derive(Debug)]
pub(crate) struct Key {
    /// Where.
    pub(crate) span: Span,
    /// Its characters.
    pub(crate) text: String,
}

impl Node {
    /// The entries of a mapping.
    pub(crate) fn as_mapping(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_mapping()?.iter().find(|entry| entry.key.text == key).map(|entry| &*entry.value)
    }

    /// Where a key stands, where this is a mapping that has it; else the beginning of the text.
    pub(crate) fn key_span(&self, key: &str) -> Span {
        let entries = self.as_mapping().unwrap_or_default();
        entries.iter().find(|entry| entry.key.text == key).map_or_else(Span::default, |entry| entry.key.span)
    }

    /// What it is, in words, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null | Value::Invalid => "nothing",
            Value::Text(_) => "text",
            Value::List(ref items) if items.is_empty() => "an empty list",
            Value::List(_) => "a list",
            Value::Mapping(ref entries) if entries.is_empty() => "an empty mapping",
            Value::Mapping(_) => "a mapping",
        }
    }
}
