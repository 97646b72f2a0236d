//! From the tree to a [`Manifest`]: every rule of the language that needs no machine and no event.
//!
//! All problems are reported, not the first only. Each function reports what is wrong with its own
//! part and gives back what is right about it; a value that is missing because of an error never
//! leads to a second error.

mod environment;
mod script;
mod stages;
mod top;
mod value;

use crate::{Manifest, diagnostic::Report, tree::Node};

/// Checks a whole manifest. None only where an error was reported.
pub(crate) fn manifest(root: &Node, report: &mut Report<'_>) -> Option<Manifest> {
    let Some(entries) = root.as_mapping() else {
        let message = format!("a manifest is a mapping of keys, and this is {}", root.kind());
        report.push(report.error(root.span, message).hint("it begins like this: `image: alpine:3.20`"));
        return None;
    };
    let listed = stages::listed(root.get("stages"), report);
    let top = top::Top::sort(entries, &listed, report);
    let image = top.image(root, report);
    let environment = top.environment.map(|node| environment::check(node, report)).unwrap_or_default();
    let timeout =
        top.timeout.map_or(Some(Manifest::DEFAULT_TIMEOUT), |node| value::duration(node, "timeout", report));
    let stages = stages::check(root, &top, &listed, report);
    Some(Manifest { image: image?, environment, timeout: timeout?, stages: stages? })
}
