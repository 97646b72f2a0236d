//! The keys at the top of a manifest: which is what.

use std::collections::HashSet;

use super::{stages::Listed, value};
use crate::{
    StageName,
    diagnostic::{Report, Severity, quoted},
    tree::{Entry, Node, Value},
    vocabulary::{Place, nearest},
};

/// The top-level keys, sorted by what they are.
#[derive(Default)]
pub(super) struct Top<'t> {
    image: Option<&'t Node>,
    /// The value of `environment`.
    pub(super) environment: Option<&'t Node>,
    /// The value of `timeout`, unless that is a stage.
    pub(super) timeout: Option<&'t Node>,
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
            match key {
                "image" => top.image = Some(&entry.value),
                "environment" => top.environment = Some(&entry.value),
                "stages" => {}
                _ if listed.contains(key) => {
                    warn_of_shadowed_key(entry, report);
                    top.stages.push(entry);
                }
                StageName::PREPARE => top.stages.push(entry),
                "timeout" => top.timeout = Some(&entry.value),
                _ if key.starts_with("x-") || key.starts_with('.') => {}
                _ if Place::Top.planned().contains(&key) => not_supported(entry, report),
                _ if entry.value.get("script").is_some() => top.unlisted.push(entry),
                _ => top.meant.extend(unknown(entry, &defined, listed, report)),
            }
        }
        top
    }

    /// True where a key is missing because its name was mistyped.
    pub(super) fn is_meant(&self, key: &str) -> bool {
        self.meant.contains(key)
    }

    /// The image of the build container.
    pub(super) fn image(&self, root: &Node, report: &mut Report<'_>) -> Option<String> {
        let Some(node) = self.image.filter(|node| !matches!(node.value, Value::Null)) else {
            if self.is_meant("image") {
                return None;
            }
            let problem = report.error(root.key_span("image"), "the manifest names no `image`");
            report
                .push(problem.hint("add the image that the build runs in, for example `image: alpine:3.20`"));
            return None;
        };
        let text = value::text(node, "image", report)?;
        if let Some(why) = image_problem(text) {
            report.push(
                report.error(node.span, format!("{} is not the name of an image: {why}", quoted(text))),
            );
            return None;
        }
        Some(text.to_owned())
    }
}

/// What is wrong with an image's name, as far as that can be told without asking a registry.
fn image_problem(text: &str) -> Option<&'static str> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if text.is_empty() {
        Some("it is empty")
    } else if text.contains("${") {
        Some("templates in it are not supported yet")
    } else if text.chars().any(char::is_whitespace) {
        Some("there is white space in it")
    } else if !text.chars().all(is_allowed) {
        Some("only letters, digits and `._-/:@` may stand in it")
    } else if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
        || text.ends_with(['/', ':', '@', '.', '-'])
    {
        Some("it must begin with a letter or digit, and a `:` or `@` needs a tag or digest after it")
    } else {
        None
    }
}

fn warn_of_shadowed_key(entry: &Entry, report: &mut Report<'_>) {
    let key = entry.key.text.as_str();
    if Place::Top.planned().contains(&key) || key == "timeout" {
        let message =
            format!("`{key}` is listed in `stages`, so this is a stage and not the setting of that name");
        let problem = report.warning(entry.key.span, message);
        report.push(problem.hint("another name for the stage keeps the two apart"));
    }
}

fn not_supported(entry: &Entry, report: &mut Report<'_>) {
    let key = &entry.key.text;
    let hint = if entry.value.get("script").is_some() {
        format!("if this is a stage, list `{key}` in `stages`")
    } else {
        "remove it: nothing in a manifest is ignored in silence".to_owned()
    };
    report.push(report.error(entry.key.span, format!("`{key}` is not supported yet")).hint(hint));
}

/// Reports an unknown key, and gives back the one that it seems to stand for.
fn unknown(
    entry: &Entry,
    defined: &HashSet<&str>,
    listed: &Listed,
    report: &mut Report<'_>,
) -> Option<String> {
    let key = entry.key.text.as_str();
    let foreign = Place::Top.foreign(key);
    let near = if foreign.is_some() || report.is_full(Severity::Error) {
        None
    } else {
        let missing = |name: &&str| !defined.contains(name);
        let known = Place::Top.known().iter().copied().filter(missing);
        nearest(key, known.chain(listed.names().filter(missing)).chain(Place::Top.planned().iter().copied()))
    };
    let hint = Place::Top.foreign_hint(key).or_else(|| near.is_none().then(|| no_stage_hint(&entry.value)));
    let problem = report.error(entry.key.span, format!("unknown key {}", quoted(key)));
    report.push(problem.suggest(near).maybe_hint(hint));
    near.or(foreign).map(str::to_owned)
}

/// What to say of a key that is nothing known: maybe it was meant as a stage.
fn no_stage_hint(value: &Node) -> String {
    let foreign = value.as_mapping().unwrap_or_default().iter().map(|entry| entry.key.text.as_str());
    match foreign.into_iter().find(|key| Place::Stage.foreign(key) == Some("script")) {
        Some(word) => format!("if this is a stage: its commands stand in `script`, not in `{word}`"),
        None => "a stage has a `script`; a key of your own begins with `x-`".to_owned(),
    }
}
