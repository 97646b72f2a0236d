//! The keys at the top of a manifest: which is what.

use std::collections::HashSet;

use super::{
    stages::Listed,
    template::{self, Names},
};
use crate::{
    Code, Keys, StageName, Template,
    diagnostic::{Report, Severity, quoted},
    tree::{Entry, Node, Value},
    vocabulary::{NEVER_STAGES, Scope, nearest},
};

/// The top-level keys, sorted by what they are.
#[derive(Default)]
pub(super) struct Top<'t> {
    /// The keys that are no stages, with their values.
    settings: Vec<(&'static str, &'t Node)>,
    /// The same keys, with their places.
    pub(super) keys: Keys,
    /// The definitions of the listed stages, and of `prepare`, in the order of the text.
    pub(super) stages: Vec<&'t Entry>,
    /// Definitions of stages that are not listed.
    pub(super) unlisted: Vec<&'t Entry>,
    /// Known keys that an unknown one seems to stand for. That they are missing is no second error.
    meant: HashSet<String>,
}

impl<'t> Top<'t> {
    /// Sorts the entries, and reports those that may not stand here.
    pub(super) fn sort(entries: &'t [Entry], listed: &Listed, report: &mut Report<'_>) -> Self {
        let mut top = Self::default();
        let defined: HashSet<&str> = entries.iter().map(|entry| entry.key.text.as_str()).collect();
        for entry in entries {
            let key = entry.key.text.as_str();
            let known = Scope::Top.known().iter().find(|known| **known == key);
            match known {
                _ if listed.contains(key) => {
                    warn_of_shadowed_key(entry, report);
                    top.stages.push(entry);
                }
                Some(&StageName::PREPARE) => top.stages.push(entry),
                Some(known) => {
                    if is_stage(entry, report) {
                        top.meant.insert(key.to_owned());
                    } else {
                        top.keys.note(known, entry.key.span);
                        top.settings.push((known, &entry.value));
                    }
                }
                None if key.starts_with("x-") || key.starts_with('.') => {}
                None if Scope::Top.reserved().contains(&key) => reserved(entry, report),
                None if entry.value.get("script").is_some() => top.unlisted.push(entry),
                None => top.meant.extend(unknown(entry, &defined, listed, report)),
            }
        }
        top
    }

    /// True where a key is missing because its name was mistyped.
    pub(super) fn is_meant(&self, key: &str) -> bool {
        self.meant.contains(key)
    }

    /// The value of a key that is no stage.
    pub(super) fn get(&self, key: &str) -> Option<&'t Node> {
        self.settings.iter().find(|(known, _)| *known == key).map(|(_, node)| *node)
    }

    /// The image of the build container.
    pub(super) fn image(&self, root: &Node, names: &Names, report: &mut Report<'_>) -> Option<Template> {
        if let Some(node) = self.get("image").filter(|node| !matches!(node.value, Value::Null)) {
            return template::image(node, names, report);
        }
        if !self.is_meant("image") {
            let problem =
                report.error(Code::MissingImage, root.key_span("image"), "the manifest names no `image`");
            report
                .push(problem.hint("add the image that the build runs in, for example `image: alpine:3.20`"));
        }
        None
    }
}

fn warn_of_shadowed_key(entry: &Entry, report: &mut Report<'_>) {
    let key = entry.key.text.as_str();
    let is_key = Scope::Top.known().contains(&key) || Scope::Top.reserved().contains(&key);
    if is_key && key != StageName::PREPARE {
        let message =
            format!("`{key}` is listed in `stages`, so this is a stage and not the setting of that name");
        let problem = report.warning(Code::KeyIsStage, entry.key.span, message);
        report.push(problem.hint("another name for the stage keeps the two apart"));
    }
}

/// Reports a setting with a script: it was meant as a stage.
fn is_stage(entry: &Entry, report: &mut Report<'_>) -> bool {
    let key = entry.key.text.as_str();
    if entry.value.get("script").is_none() || key == "environment" {
        return false;
    }
    let message = format!("`{key}` is a setting of the manifest, and this looks like a stage");
    let problem = report.error(Code::KeyIsStage, entry.key.span, message);
    let can_be_listed = !NEVER_STAGES.contains(&key);
    report.push(problem.hint(if can_be_listed {
        format!("if it is a stage, list `{key}` in `stages`, or give it another name")
    } else {
        format!("no stage can be called `{key}`; give it another name")
    }));
    true
}

fn reserved(entry: &Entry, report: &mut Report<'_>) {
    let key = &entry.key.text;
    let hint = if entry.value.get("script").is_some() {
        format!("if this is a stage, list `{key}` in `stages`")
    } else {
        "the word is reserved; remove it".to_owned()
    };
    let message = format!("`{key}` is not supported yet");
    report.push(report.error(Code::NotSupportedYet, entry.key.span, message).hint(hint));
}

/// Reports an unknown key, and gives back the one that it seems to stand for.
fn unknown(
    entry: &Entry,
    defined: &HashSet<&str>,
    listed: &Listed,
    report: &mut Report<'_>,
) -> Option<String> {
    let key = entry.key.text.as_str();
    let foreign = Scope::Top.foreign(key);
    let told = Scope::Top.hint(key);
    let near = if told.is_some() || foreign.is_some() || report.is_full(Severity::Error) {
        None
    } else {
        let missing = |name: &&str| !defined.contains(name);
        let known = Scope::Top.known().iter().copied().filter(missing);
        nearest(key, known.chain(listed.names().filter(missing)))
    };
    let hint = told.or_else(|| near.is_none().then(|| no_stage_hint(&entry.value)));
    let problem = report.error(Code::UnknownKey, entry.key.span, format!("unknown key {}", quoted(key)));
    report.push(problem.suggest(near).maybe_hint(hint));
    near.or(foreign).map(str::to_owned)
}

/// What to say of a key that is nothing known: maybe it was meant as a stage.
fn no_stage_hint(value: &Node) -> String {
    let foreign = value.as_mapping().unwrap_or_default().iter().map(|entry| entry.key.text.as_str());
    match foreign.into_iter().find(|key| Scope::Stage.foreign(key) == Some("script")) {
        Some(word) => format!("if this is a stage: its commands stand in `script`, not in `{word}`"),
        None => "a stage has a `script`; a key of your own begins with `x-`".to_owned(),
    }
}
