//! What a stage leaves behind: `artifacts` and `reports`.

use super::{
    fields::Fields,
    patterns, settings,
    template::{self, Names},
    value,
};
use crate::{
    Artifacts, Keep, Reports,
    diagnostic::Report,
    glob::Subject,
    tree::{Node, Value},
    vocabulary::Scope,
};

/// `artifacts`: a list of paths, or a mapping. None only where an error was reported.
pub(super) fn artifacts(node: &Node, names: &Names, report: &mut Report<'_>) -> Option<Artifacts> {
    let mut artifacts = Artifacts {
        paths: crate::Patterns::new(Vec::new()),
        name: None,
        when: Keep::Success,
        expire_in: None,
        required: false,
    };
    if let Value::List(_) | Value::Text(_) = node.value {
        artifacts.paths = patterns::check(node, "artifacts", Subject::Path, report)?;
        return Some(artifacts);
    }
    let fields = Fields::open(node, Scope::Artifacts, report)?;
    let paths = fields.require("paths", Scope::Artifacts, report);
    let paths = paths.and_then(|node| patterns::check(node, "paths", Subject::Path, report));
    artifacts.name = fields.get("name").and_then(|node| template::check(node, "name", names, report));
    let words = [("success", Keep::Success), ("failure", Keep::Failure), ("always", Keep::Always)];
    let when = fields.get("when").and_then(|node| value::word(node, "when", &words, report));
    artifacts.when = when.unwrap_or_default();
    artifacts.expire_in = fields.get("expire_in").and_then(|node| value::duration(node, "expire_in", report));
    artifacts.required = settings::switch(fields, "required", false, report);
    artifacts.paths = paths?;
    Some(artifacts)
}

/// `reports`.
pub(super) fn reports(node: &Node, report: &mut Report<'_>) -> Reports {
    let Some(fields) = Fields::open(node, Scope::Reports, report) else { return Reports::default() };
    let junit = fields.require("junit", Scope::Reports, report);
    Reports { junit: junit.and_then(|node| patterns::check(node, "junit", Subject::Path, report)) }
}
