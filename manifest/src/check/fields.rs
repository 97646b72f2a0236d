//! Mappings with keys of ours: what is known in them, and what to say of the rest.

use crate::{
    Code,
    diagnostic::{Report, Severity, quoted},
    tree::{Entry, Node, Value},
    vocabulary::{Scope, nearest},
};

/// A mapping whose unknown keys were reported.
#[derive(Clone, Copy)]
pub(super) struct Fields<'t> {
    node: &'t Node,
}

impl<'t> Fields<'t> {
    /// Opens a value that must be a mapping of this scope.
    pub(super) fn open(node: &'t Node, scope: Scope, report: &mut Report<'_>) -> Option<Self> {
        let fields = Self::open_some(node, scope, |_| false, report)?;
        Some(fields)
    }

    /// The same, for a mapping in which other keys may stand too: those that `is_other` knows.
    pub(super) fn open_some(
        node: &'t Node,
        scope: Scope,
        is_other: impl Fn(&Entry) -> bool,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            wrong_type(node, scope.name(), "a mapping", scope.example(), report);
            return None;
        };
        for entry in entries {
            if !scope.known().contains(&entry.key.text.as_str()) && !is_other(entry) {
                unknown_key(entry, scope, report);
            }
        }
        Some(Self { node })
    }

    /// The value of a key, where it is there.
    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.node.get(key)
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &str, scope: Scope, report: &mut Report<'_>) -> Option<&'t Node> {
        let found = self.get(key);
        if found.is_none() {
            let message = format!("{} needs the key `{key}`", scope.name());
            let problem = report.error(Code::MissingKey, self.node.span, message);
            report.push(problem.hint(format!("for example `{}`", scope.example())));
        }
        found
    }
}

/// Reports a value of the wrong kind.
pub(super) fn wrong_type(node: &Node, what: &str, wanted: &str, example: &str, report: &mut Report<'_>) {
    if !matches!(node.value, Value::Invalid) {
        let message = format!("{what} must be {wanted}, and this is {}", node.kind());
        let problem = report.error(Code::WrongType, node.span, message);
        report.push(problem.hint(format!("for example `{example}`")));
    }
}

/// Reports a key that means nothing in its place, and gives back the one that it seems to stand for.
pub(super) fn unknown_key(entry: &Entry, scope: Scope, report: &mut Report<'_>) -> Option<&'static str> {
    let key = entry.key.text.as_str();
    if scope.reserved().contains(&key) {
        let problem = report.error(
            Code::NotSupportedYet,
            entry.key.span,
            format!("`{key}` in {} is not supported yet", scope.name()),
        );
        report.push(problem.hint("the word is reserved; remove it"));
        return None;
    }
    let foreign = scope.foreign(key);
    let told = scope.hint(key);
    // In a matrix any word may be an axis written wrongly, so there the nearest key comes first.
    let is_told = told.is_some() && scope != Scope::Matrix;
    let near = if is_told || foreign.is_some() || report.is_full(Severity::Error) {
        None
    } else {
        nearest(key, scope.known().iter().copied())
    };
    let hint = if near.is_some() { None } else { told.or_else(|| known_hint(scope)) };
    let problem = report.error(
        Code::UnknownKey,
        entry.key.span,
        format!("{} is not a key of {}", quoted(key), scope.name()),
    );
    report.push(problem.suggest(near).maybe_hint(hint));
    near.or(foreign)
}

/// The keys of a scope that has few enough of them to be told.
fn known_hint(scope: Scope) -> Option<String> {
    const MAX_TOLD: usize = 8;
    let known: Vec<String> = scope.known().iter().map(|key| format!("`{key}`")).collect();
    match known.as_slice() {
        [only] => Some(format!("the only key here is {only}")),
        known if known.len() <= MAX_TOLD => Some(format!("the keys here are {}", known.join(", "))),
        _ => None,
    }
}

/// Reports a list or mapping of too many entries.
pub(super) fn is_too_long(node: &Node, key: &str, most: usize, report: &mut Report<'_>) -> bool {
    let length = match &node.value {
        Value::List(items) => items.len(),
        Value::Mapping(entries) => entries.len(),
        _ => 0,
    };
    if length > most {
        let message = format!("`{key}` has {length} entries, and {most} are the most");
        report.push(report.error(Code::TooLarge, node.span, message));
    }
    length > most
}
