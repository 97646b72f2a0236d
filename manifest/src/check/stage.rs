//! One stage's definition.

use super::{
    environment,
    fields::{Fields, unknown_key, wrong_type},
    outputs, script,
    settings::{self, MAX_RETRIES},
    template::{self, Names},
    value, when,
};
use crate::{
    AllowFailure, Code, Failure, Keys, Place, Stage, StageName, StageRetry,
    diagnostic::{Diagnostic, Report, quoted},
    tree::{Entry, Node, Value},
    vocabulary::Scope,
};

/// Checks a stage. None only where an error was reported.
pub(super) fn check(entry: &Entry, names: &Names, report: &mut Report<'_>) -> Option<Stage> {
    let entries = mapping(entry, report)?;
    let mut keys = Keys::default();
    let mut explained = false;
    for part in entries {
        match Scope::Stage.known().iter().find(|key| **key == part.key.text) {
            Some(key) => keys.note(key, part.key.span),
            None => explained |= unknown_key(part, Scope::Stage, report) == Some("script"),
        }
    }
    let script = match entry.value.get("script") {
        Some(node) => script::check(node, &entry.key, report),
        None => {
            if !explained {
                report.push(without_script(entry, report));
            }
            None
        }
    };
    let name = StageName::new(entry.key.text.as_str()).ok();
    let fields = Parts { node: &entry.value, names };
    let stage = fields.stage(name, script, Place(entry.key.span), report);
    refuse_without_image(&entry.value, &keys, report);
    if entry.key.text == StageName::PREPARE {
        refuse_in_prepare(entry, report);
    }
    stage.map(|stage| Stage { keys, ..stage })
}

fn mapping<'t>(entry: &'t Entry, report: &mut Report<'_>) -> Option<&'t [Entry]> {
    let entries = entry.value.as_mapping();
    if entries.is_none() {
        match entry.value.value {
            Value::Null => report.push(without_script(entry, report)),
            Value::Invalid => {}
            _ => {
                let name = quoted(&entry.key.text);
                let kind = entry.value.kind();
                let message =
                    format!("the stage {name} must be a mapping with a `script`, and this is {kind}");
                let problem = report.error(Code::WrongType, entry.key.span, message);
                report.push(problem.hint("its commands stand in a list under `script:`"));
            }
        }
    }
    entries
}

fn without_script(entry: &Entry, report: &Report<'_>) -> Diagnostic {
    let message = format!("the stage {} has no `script`", quoted(&entry.key.text));
    let problem = report.error(Code::MissingScript, entry.key.span, message);
    problem.hint("its commands stand in a list under `script:`, which is indented below the stage")
}

/// The parts of a stage, and what their templates may name.
struct Parts<'t> {
    node: &'t Node,
    names: &'t Names,
}

impl Parts<'_> {
    fn stage(
        &self,
        name: Option<StageName>,
        script: Option<Vec<String>>,
        place: Place,
        report: &mut Report<'_>,
    ) -> Option<Stage> {
        let get = |key: &str| self.node.get(key);
        let script_places = get("script").map(value::nodes).unwrap_or_default();
        let script_places = script_places.into_iter().map(|node| Place(node.span)).collect();
        let environment = get("environment").map(|node| environment::check(node, report)).unwrap_or_default();
        let names = self.names.clone().with(&environment);
        let needs = get("needs").map(|node| needs(node, report));
        let when = get("when").map(|node| when::check(node, report)).unwrap_or_default();
        let timeout = get("timeout").and_then(|node| value::duration(node, "timeout", report));
        let retry = get("retry").and_then(|node| retry(node, report));
        let allow_failure = get("allow_failure").map(|node| allow_failure(node, report)).unwrap_or_default();
        let artifacts = get("artifacts").and_then(|node| outputs::artifacts(node, &names, report));
        let reports = get("reports").map(|node| outputs::reports(node, report)).unwrap_or_default();
        let image = get("image").and_then(|node| template::image(node, &names, report));
        let workdir = get("workdir").and_then(|node| template::workdir(node, &names, report));
        let user = get("user").and_then(|node| user(node, report));
        let shell = get("shell").and_then(|node| settings::shell(node, report));
        let docker = get("docker").and_then(|node| value::boolean(node, "docker", report));
        let resources = get("resources").map(|node| settings::resources(node, report));
        Some(Stage {
            name: name?,
            script: script?,
            script_places,
            needs,
            when,
            timeout,
            retry,
            allow_failure,
            artifacts,
            reports,
            image,
            workdir,
            user,
            shell,
            docker,
            resources,
            environment,
            place,
            keys: Keys::default(),
        })
    }
}

fn needs(node: &Node, report: &mut Report<'_>) -> Vec<(StageName, Place)> {
    match &node.value {
        Value::List(items) if items.is_empty() => return Vec::new(),
        Value::List(_) | Value::Text(_) => {}
        _ => wrong_type(node, "`needs`", "a list of stages", "needs: [build]", report),
    }
    let mut needs: Vec<(StageName, Place)> = Vec::new();
    for node in value::nodes(node) {
        let Some(text) = value::text(node, "needs", report) else { continue };
        match StageName::new(text) {
            Ok(name) if needs.iter().any(|(other, _)| *other == name) => {
                let message = format!("the stage {} is needed twice", quoted(text));
                report.push(report.error(Code::DuplicateName, node.span, message));
            }
            Ok(name) => needs.push((name, Place(node.span))),
            Err(_) => {
                let message = format!("no stage {} is listed", quoted(text));
                report.push(report.error(Code::UnknownStage, node.span, message));
            }
        }
    }
    needs
}

fn retry(node: &Node, report: &mut Report<'_>) -> Option<StageRetry> {
    let default = StageRetry { times: 1, when: Failure::ALL.to_vec(), exit_codes: Vec::new(), backoff: None };
    if let Value::Text(_) = node.value {
        let times = value::number(node, "retry", 0..=MAX_RETRIES, report)?;
        return Some(StageRetry { times, ..default });
    }
    let fields = Fields::open(node, Scope::StageRetry, report)?;
    let times =
        fields.get("times").map_or(Some(1), |node| value::number(node, "times", 0..=MAX_RETRIES, report));
    let words = Failure::ALL.map(|failure| (failure.word(), failure));
    let when = fields.get("when").map(|node| {
        let nodes = value::nodes(node);
        if nodes.is_empty() {
            wrong_type(node, "`when`", "a list of ends", "when: [failed, timed_out]", report);
        }
        nodes.into_iter().filter_map(|node| value::word(node, "when", &words, report)).collect()
    });
    let exit_codes = fields.get("exit_codes").map(|node| exit_codes(node, report)).unwrap_or_default();
    let backoff = fields.get("backoff").and_then(|node| value::duration(node, "backoff", report));
    Some(StageRetry { times: times?, when: when.unwrap_or(default.when), exit_codes, backoff })
}

fn allow_failure(node: &Node, report: &mut Report<'_>) -> AllowFailure {
    if let Value::Text(_) = node.value {
        return match value::boolean(node, "allow_failure", report) {
            Some(true) => AllowFailure::Yes,
            Some(false) | None => AllowFailure::No,
        };
    }
    let Some(fields) = Fields::open(node, Scope::AllowFailure, report) else { return AllowFailure::No };
    let codes = fields.require("exit_codes", Scope::AllowFailure, report);
    codes.map_or(AllowFailure::No, |node| AllowFailure::ExitCodes(exit_codes(node, report)))
}

fn exit_codes(node: &Node, report: &mut Report<'_>) -> Vec<u8> {
    let nodes = value::nodes(node);
    if nodes.is_empty() {
        wrong_type(node, "`exit_codes`", "a list of exit codes", "exit_codes: [77]", report);
    }
    let codes = nodes.into_iter().filter_map(|node| value::number(node, "exit_codes", 1..=255, report));
    codes.filter_map(|code| u8::try_from(code).ok()).collect()
}

fn user(node: &Node, report: &mut Report<'_>) -> Option<String> {
    let text = value::text(node, "user", report)?;
    let is_name = |part: &str| {
        (1..=64).contains(&part.len())
            && !part.starts_with('-')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (name, group) = text.split_once(':').map_or((text, None), |(name, group)| (name, Some(group)));
    if is_name(name) && group.is_none_or(is_name) {
        return Some(text.to_owned());
    }
    let problem = report.error(Code::BadName, node.span, format!("{} is not a user", quoted(text)));
    report.push(problem.hint("a name or a number, and maybe a group: `\"1000:1000\"`"));
    None
}

/// What is said of a container needs one of the stage's own.
fn refuse_without_image(node: &Node, keys: &Keys, report: &mut Report<'_>) {
    if node.get("image").is_some() {
        return;
    }
    for key in ["docker", "resources"] {
        if let Some(place) = keys.get(key) {
            let message = format!("`{key}` in a stage is of its own container, and this one has no `image`");
            let problem = report.error(Code::MissingKey, place.0, message);
            report.push(
                problem
                    .hint(format!("give the stage an `image`, or move `{key}` to the top of the manifest")),
            );
        }
    }
}

/// `prepare` is there for the others, and before them.
fn refuse_in_prepare(entry: &Entry, report: &mut Report<'_>) {
    if let Some(node) = entry.value.get("needs").filter(|node| !value::nodes(node).is_empty()) {
        let problem = report.error(
            Code::Cycle,
            node.span,
            "`prepare` runs before all other stages, so it can't wait for one",
        );
        report.push(problem.hint("give the stage another name"));
    }
}
