//! The list `stages`, and the definitions that belong to it.

use std::{collections::HashMap, sync::Arc};

use super::{stage, template::Names, top::Top};
use crate::{
    Code, Stage, StageName,
    diagnostic::{Report, Severity, quoted},
    source::Span,
    tree::{Node, Value},
    vocabulary::{NEVER_STAGES, nearest},
};

/// How many stages a manifest may have.
const MAX_STAGES: usize = 1000;

/// What the manifest says under `stages`.
#[derive(Default)]
pub(super) struct Listed {
    /// The names that can be stages, in order, with their places.
    order: Vec<(StageName, Span)>,
    index: HashMap<String, usize>,
    /// True where the key is there, whatever its value.
    present: bool,
    /// True where an entry could not be used and was reported.
    broken: bool,
}

impl Listed {
    /// True for a listed name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The listed names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|(name, _)| &**name)
    }
}

/// Reads the value of `stages`.
pub(super) fn listed(node: Option<&Node>, report: &mut Report<'_>) -> Listed {
    let mut listed = Listed { present: node.is_some(), ..Listed::default() };
    match node.map(|node| (node, &node.value)) {
        None | Some((_, Value::Null)) => {}
        Some((_, Value::Invalid)) => listed.broken = true,
        Some((_, Value::List(items))) => items.iter().for_each(|item| listed.add(item, report)),
        Some((node, _)) => {
            listed.broken = true;
            let message = format!("`stages` must be a list of names, and this is {}", node.kind());
            report.push(
                report.error(Code::WrongType, node.span, message).hint("one line for each stage: `- build`"),
            );
        }
    }
    listed
}

impl Listed {
    fn add(&mut self, node: &Node, report: &mut Report<'_>) {
        match self.entry(node, report) {
            Some(name) => {
                self.index.insert(name.to_string(), self.order.len());
                self.order.push((name, node.span));
            }
            None => self.broken = true,
        }
    }

    fn entry(&self, node: &Node, report: &mut Report<'_>) -> Option<StageName> {
        let text = match &node.value {
            Value::Text(text) => text.text.as_str(),
            Value::Invalid => return None,
            _ => {
                let message = format!("`stages` lists the names of stages, and this is {}", node.kind());
                let problem = report.error(Code::WrongType, node.span, message);
                report.push(problem.hint("a stage itself is a key at the top of the manifest"));
                return None;
            }
        };
        let problem = if NEVER_STAGES.contains(&text) {
            report.error(Code::BadName, node.span, format!("`{text}` can't be the name of a stage"))
        } else if let Some(first) = self.index.get(text) {
            let line = report.source().line_number(self.order[*first].1.start);
            let problem = report.error(
                Code::DuplicateName,
                node.span,
                format!("the stage {} is listed twice", quoted(text)),
            );
            problem.hint(format!("it stands in line {line} already, and a stage runs once"))
        } else {
            match StageName::new(text) {
                Ok(name) => return Some(name),
                Err(_) => report.error(Code::BadName, node.span, format!("{} can't be the name of a stage", quoted(text))).hint(
                    "a name has 1 to 100 characters, no `/`, no control characters, no white space at either end",
                ),
            }
        };
        report.push(problem);
        None
    }
}

/// The stages in the order in which they run. None only where an error was reported.
pub(super) fn check(
    root: &Node,
    top: &Top<'_>,
    listed: &Listed,
    names: &Names,
    report: &mut Report<'_>,
) -> Option<Vec<Arc<Stage>>> {
    report_unlisted(top, listed, names, report);
    if listed.order.len() > MAX_STAGES {
        let message = format!("the manifest lists more than {MAX_STAGES} stages");
        report.push(report.error(Code::TooLarge, root.key_span("stages"), message));
        return None;
    }
    let mut defined = HashMap::new();
    for entry in &top.stages {
        defined.insert(entry.key.text.as_str(), stage::check(entry, names, report).map(Arc::new));
    }
    report_undefined(top, listed, &defined, report);
    if defined.is_empty() && has_none(top, listed) {
        let problem =
            report.error(Code::NoStages, root.key_span("stages"), "the manifest has no stage to run");
        report.push(problem.hint("list a stage in `stages` and give it a `script`, or add `prepare`"));
        return None;
    }
    let first = defined.remove(StageName::PREPARE);
    let rest =
        listed.names().filter(|name| *name != StageName::PREPARE).map(|name| defined.remove(name).flatten());
    let rest: Vec<Option<Arc<Stage>>> = rest.collect();
    first.into_iter().chain(rest).collect::<Option<Vec<_>>>().filter(|stages| !stages.is_empty())
}

/// True where no stage is meant at all, and no other error says so.
fn has_none(top: &Top<'_>, listed: &Listed) -> bool {
    let is_told = listed.broken || top.is_meant("stages") || (!listed.present && !top.unlisted.is_empty());
    listed.order.is_empty() && !is_told
}

fn report_unlisted(top: &Top<'_>, listed: &Listed, names: &Names, report: &mut Report<'_>) {
    if listed.broken && listed.order.is_empty() {
        return;
    }
    let has_prepare = top.stages.iter().any(|entry| entry.key.text == StageName::PREPARE);
    for entry in &top.unlisted {
        let name = quoted(&entry.key.text);
        if listed.present {
            let problem = report.warning(
                Code::UnlistedStage,
                entry.key.span,
                format!("the stage {name} never runs: `stages` does not list it"),
            );
            let near = nearest(&entry.key.text, [StageName::PREPARE]).filter(|_| !has_prepare);
            let problem = problem.suggest(near);
            report.push(problem.hint("list it, or begin its name with `x-` if it is no stage"));
        } else if !top.is_meant("stages") {
            let problem = report.error(
                Code::UnlistedStage,
                entry.key.span,
                format!("the stage {name} would never run: there is no `stages`"),
            );
            report.push(problem.hint("add the key `stages` with the names of the stages in order"));
            stage::check(entry, names, report);
        }
    }
}

fn report_undefined(
    top: &Top<'_>,
    listed: &Listed,
    defined: &HashMap<&str, Option<Arc<Stage>>>,
    report: &mut Report<'_>,
) {
    for (name, span) in &listed.order {
        if !defined.contains_key(&**name) {
            let unlisted = top.unlisted.iter().map(|entry| entry.key.text.as_str());
            let near = if report.is_full(Severity::Error) { None } else { nearest(name, unlisted) };
            let problem =
                report.error(Code::UnknownStage, *span, format!("no stage {} is defined", quoted(name)));
            let hint = near.is_none().then(|| format!("add the key {} with a `script`", quoted(name)));
            report.push(problem.suggest(near).maybe_hint(hint));
        }
    }
}
