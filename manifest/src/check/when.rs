//! `when` of a stage.

use std::collections::BTreeMap;

use super::{
    environment,
    fields::{Fields, wrong_type},
    patterns, value,
};
use crate::{
    Code, Conditions, Events, Patterns, Place, Status, Trigger, VarName, When,
    diagnostic::{Report, quoted},
    glob::Subject,
    plan::is_reserved,
    tree::{Entry, Node, Value},
    vocabulary::Scope,
};

/// More entries than this are refused: each is looked at for each job.
const MAX_ENTRIES: usize = 50;

const STATUSES: [(&str, Status); 3] =
    [("success", Status::SUCCESS), ("failure", Status::FAILURE), ("always", Status::ALWAYS)];

/// Reads a value of `when`.
pub(super) fn check(node: &Node, report: &mut Report<'_>) -> When {
    let entries: Vec<&Node> = match &node.value {
        Value::Text(_) => {
            let status = status(node, report).unwrap_or_default();
            return When {
                any: vec![Conditions { status, place: Place(node.span), ..Conditions::default() }],
            };
        }
        Value::Mapping(entries) if !entries.is_empty() => vec![node],
        Value::List(items) if (1..=MAX_ENTRIES).contains(&items.len()) => {
            items.iter().map(|item| &**item).collect()
        }
        _ => {
            let wanted = "a mapping of conditions, a list of such mappings, `always` or `failure`";
            wrong_type(node, "`when`", wanted, Scope::When.example(), report);
            Vec::new()
        }
    };
    When { any: entries.into_iter().filter_map(|entry| conditions(entry, report)).collect() }
}

fn conditions(node: &Node, report: &mut Report<'_>) -> Option<Conditions> {
    if node.as_mapping().is_some_and(<[_]>::is_empty) {
        let problem = report.error(Code::WrongType, node.span, "an entry of `when` has a condition at least");
        report.push(problem.hint(format!("for example `{}`", Scope::When.example())));
        return None;
    }
    let fields = Fields::open(node, Scope::When, report)?;
    let mut names = |key: &str| patterns::check(fields.get(key)?, key, Subject::Name, report);
    let (branch, tag, target, cron) = (names("branch"), names("tag"), names("target"), names("cron"));
    let paths = fields.get("paths").and_then(|node| patterns::check(node, "paths", Subject::Path, report));
    let event = fields.get("event").and_then(|node| events(node, report));
    let var = fields.get("var").map(|node| variables(node, report)).unwrap_or_default();
    let status = fields.get("status").and_then(|node| statuses(node, report)).unwrap_or_default();
    Some(Conditions { branch, tag, target, event, cron, paths, var, status, place: Place(node.span) })
}

/// Events; with a `!`, all but this one, as in a list of globs.
fn events(node: &Node, report: &mut Report<'_>) -> Option<Events> {
    let errors = report.errors();
    let texts = value::texts(node, "event", report);
    let starts_full = texts.first().is_some_and(|(text, _)| text.starts_with('!'));
    let mut events: Vec<Trigger> = if starts_full { Trigger::ALL.to_vec() } else { Vec::new() };
    for (text, node) in texts {
        let (exclude, word) = text.strip_prefix('!').map_or((false, text), |word| (true, word));
        match Trigger::ALL.into_iter().find(|event| event.word() == word) {
            Some(event) if exclude => events.retain(|other| *other != event),
            Some(event) if !events.contains(&event) => events.push(event),
            Some(_) => {}
            None => unknown_event(word, node, report),
        }
    }
    if events.is_empty() && report.errors() == errors {
        report.push(report.error(Code::NeverTrue, node.span, "no event is left over, so this never holds"));
    }
    Events::new(events)
}

/// Reports a word that is no event.
pub(super) fn unknown_event(word: &str, node: &Node, report: &mut Report<'_>) {
    let near = match word {
        "schedule" | "scheduled" => Some("cron"),
        "merge_request" | "merge_request_event" => Some("pull_request"),
        "web" | "workflow_dispatch" | "api" => Some("manual"),
        word => crate::vocabulary::nearest(word, Trigger::ALL.map(Trigger::word)),
    };
    let all = Trigger::ALL.map(|event| format!("`{}`", event.word())).join(", ");
    let problem = report.error(Code::UnknownWord, node.span, format!("{} is no event", quoted(word)));
    report.push(problem.suggest(near).hint(format!("it is one of {all}")));
}

fn variables(node: &Node, report: &mut Report<'_>) -> BTreeMap<VarName, Patterns> {
    let Some(entries) = node.as_mapping().filter(|entries| !entries.is_empty()) else {
        wrong_type(node, "`var`", "a mapping of variables to values", "var: {RUST: stable}", report);
        return BTreeMap::new();
    };
    let mut variables = BTreeMap::new();
    for entry in entries {
        let name = variable(entry, report);
        let patterns = patterns::check(&entry.value, &entry.key.text, Subject::Name, report);
        variables.extend(name.zip(patterns));
    }
    variables
}

/// A variable that a stage can have before it starts. Of buildr's own there are conditions.
fn variable(entry: &Entry, report: &mut Report<'_>) -> Option<VarName> {
    let name = entry.key.text.as_str();
    match VarName::new(name) {
        Ok(name) if is_reserved(&name) => {
            let message = format!("{} can't be read by a condition", quoted(&name));
            let problem = report.error(Code::ReservedVariable, entry.key.span, message);
            let own = name.strip_prefix("BUILDR_").map(str::to_lowercase);
            let own = own.filter(|own| ["branch", "tag", "event"].contains(&own.as_str()));
            report.push(match own {
                Some(own) => problem.hint(format!("this is the condition `{own}`")),
                None => problem.hint(
                    "what started the build has conditions of its own: `branch`, `tag`, `event` and so on",
                ),
            });
            None
        }
        Ok(name) => Some(name),
        Err(_) => environment::name_of(name, Place(entry.key.span), report),
    }
}

fn statuses(node: &Node, report: &mut Report<'_>) -> Option<Status> {
    let nodes = value::nodes(node);
    if nodes.is_empty() {
        wrong_type(
            node,
            "`status`",
            "`success`, `failure`, `always`, or a list of them",
            "status: always",
            report,
        );
    }
    nodes.into_iter().filter_map(|node| value::word(node, "status", &STATUSES, report)).reduce(Status::or)
}

/// `when: always`: the status alone. Another text is maybe meant as a condition.
fn status(node: &Node, report: &mut Report<'_>) -> Option<Status> {
    let text = value::text(node, "when", report)?;
    if let Some((_, status)) = STATUSES.iter().find(|(word, _)| *word == text) {
        return Some(*status);
    }
    let near = match text {
        "on_failure" => Some("failure"),
        "on_success" => Some("success"),
        text => crate::vocabulary::nearest(text, STATUSES.map(|(word, _)| word)),
    };
    let is_expression = text.contains(['=', '$', '(']);
    let hint = if text == "manual" {
        "a stage that waits for somebody is not supported yet"
    } else if is_expression {
        "there are no expressions: write `when: {branch: main}`, `when: {var: {NAME: value}}` and the like"
    } else {
        "as a text it is `success`, `failure` or `always`; conditions stand in a mapping: `when: {branch: main}`"
    };
    let problem =
        report.error(Code::UnknownWord, node.span, format!("{} is no value of `when`", quoted(text)));
    report.push(problem.suggest(near).hint(hint));
    None
}
