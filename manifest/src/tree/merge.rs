//! Mappings: keys that are text and occur once, and the merge key `<<`.

use std::{collections::HashMap, rc::Rc};

use super::{Entry, Key, Node, Value};
use crate::{
    diagnostic::{Code, Report, quoted},
    source::Span,
};

/// A mapping in the making.
#[derive(Default)]
pub(super) struct MappingBuilder {
    entries: Vec<Entry>,
    /// Where in `entries` a key stands.
    index: HashMap<String, usize>,
    /// Where `<<` stands.
    merge_key: Option<Span>,
    /// The values of `<<`, in order.
    merged: Vec<Rc<Node>>,
}

impl MappingBuilder {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a key that stands in the text. The first of two equal keys is kept.
    pub(super) fn add(&mut self, key: &Node, value: Rc<Node>, report: &mut Report<'_>) {
        let text = match &key.value {
            Value::Text(text) => text.text.as_str(),
            Value::Invalid => return,
            _ => {
                let message = format!("a key must be text, and this one is {}", key.kind());
                return report.push(report.error(Code::WrongType, key.span, message));
            }
        };
        let first = match text {
            "<<" => self.merge_key.replace(key.span),
            _ => self.index.get(text).map(|first| self.entries[*first].key.span),
        };
        if let Some(first) = first {
            let line = report.source().line_number(first.start);
            let message = format!("the key {} stands here a second time", quoted(text));
            let hint = format!("it is set in line {line} already; YAML allows a key once in a mapping");
            return report.push(report.error(Code::DuplicateKey, key.span, message).hint(hint));
        }
        if text == "<<" {
            return self.merge(value, report);
        }
        self.push(Entry { key: Rc::new(Key { span: key.span, text: text.to_owned() }), value });
    }

    /// The entries: first those in the text, then the merged ones that none of them overrides.
    pub(super) fn finish(mut self) -> Vec<Entry> {
        for source in std::mem::take(&mut self.merged) {
            for entry in source.as_mapping().unwrap_or_default() {
                if !self.index.contains_key(&entry.key.text) {
                    self.push(entry.clone());
                }
            }
        }
        self.entries
    }

    fn merge(&mut self, value: Rc<Node>, report: &mut Report<'_>) {
        match &value.value {
            Value::Mapping(_) => self.merged.push(value),
            Value::List(items) => items.iter().for_each(|item| match item.value {
                Value::Mapping(_) => self.merged.push(Rc::clone(item)),
                _ => not_mergeable(item, report),
            }),
            _ => not_mergeable(&value, report),
        }
    }

    fn push(&mut self, entry: Entry) {
        self.index.insert(entry.key.text.clone(), self.entries.len());
        self.entries.push(entry);
    }
}

fn not_mergeable(value: &Node, report: &mut Report<'_>) {
    if !matches!(value.value, Value::Invalid) {
        let message = format!("`<<` merges a mapping or a list of mappings, not {}", value.kind());
        report.push(report.error(Code::WrongType, value.span, message));
    }
}
