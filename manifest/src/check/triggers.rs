//! `on`: which events start a build.

use std::collections::HashSet;

use super::{
    fields::{Fields, wrong_type},
    patterns, value, when,
};
use crate::{
    Code, Cron, OnPullRequest, OnPush, OnTag, Patterns, Schedule, Trigger, Triggers,
    diagnostic::{Report, quoted},
    glob::Subject,
    tree::{Node, Value},
    vocabulary::Scope,
};

/// Reads the value of `on`. None only where an error was reported.
pub(super) fn check(node: &Node, report: &mut Report<'_>) -> Option<Triggers> {
    let triggers = match &node.value {
        Value::Text(_) => words(&[node], report),
        Value::List(items) if !items.is_empty() => {
            words(&items.iter().map(|item| &**item).collect::<Vec<_>>(), report)
        }
        Value::Mapping(entries) if !entries.is_empty() => keyed(node, report)?,
        _ => {
            wrong_type(
                node,
                "`on`",
                "an event, a list of events, or a mapping of them",
                Scope::On.example(),
                report,
            );
            return None;
        }
    };
    let has_other = triggers.push.is_some() || triggers.tag.is_some() || triggers.pull_request.is_some();
    if !triggers.cron.is_empty() && !has_other && node.get("manual").is_none() {
        let problem = report.warning(
            Code::CronAlone,
            node.span,
            "`on` names schedules alone, so no push starts a build",
        );
        report.push(
            problem.hint("add `push:` if pushes are to start builds too, or `manual:` if they are not"),
        );
    }
    Some(triggers)
}

/// `on: push` and `on: [push, tag]`.
fn words(nodes: &[&Node], report: &mut Report<'_>) -> Triggers {
    let mut triggers = Triggers::default();
    for node in nodes {
        let Some(text) = value::text(node, "on", report) else { continue };
        match Trigger::ALL.into_iter().find(|event| event.word() == text) {
            Some(Trigger::Push) => triggers.push = Some(OnPush::default()),
            Some(Trigger::Tag) => triggers.tag = Some(OnTag::default()),
            Some(Trigger::PullRequest) => triggers.pull_request = Some(OnPullRequest::default()),
            Some(Trigger::Cron) => {
                let problem = report.error(Code::MissingKey, node.span, "`cron` needs its schedules");
                report.push(problem.hint("write `on: {cron: [{name: nightly, schedule: \"0 3 * * *\"}]}`"));
            }
            // These start a build whatever `on` says.
            Some(Trigger::Manual | Trigger::Local) => {}
            None => when::unknown_event(text, node, report),
        }
    }
    triggers
}

fn keyed(node: &Node, report: &mut Report<'_>) -> Option<Triggers> {
    let on = Fields::open(node, Scope::On, report)?;
    for word in ["manual", "local"] {
        if let Some(node) = on.get(word).filter(|node| !matches!(node.value, Value::Null)) {
            let problem = report.error(Code::WrongType, node.span, format!("`{word}` has no settings"));
            report.push(problem.hint(format!("a bare `{word}:` suffices")));
        }
    }
    let push = on.get("push").map(|node| {
        let fields = settings(node, Scope::Push, report);
        OnPush {
            branches: list(fields, "branches", Subject::Name, report),
            paths: list(fields, "paths", Subject::Path, report),
        }
    });
    let tag = on.get("tag").map(|node| {
        let fields = settings(node, Scope::Tag, report);
        OnTag { tags: list(fields, "tags", Subject::Name, report) }
    });
    let pull_request = on.get("pull_request").map(|node| {
        let fields = settings(node, Scope::PullRequest, report);
        OnPullRequest {
            branches: list(fields, "branches", Subject::Name, report),
            paths: list(fields, "paths", Subject::Path, report),
        }
    });
    let cron = on.get("cron").map(|node| schedules(node, report)).unwrap_or_default();
    Some(Triggers { push, tag, pull_request, cron })
}

/// The settings of an event; none for a bare `push:`.
fn settings<'t>(node: &'t Node, scope: Scope, report: &mut Report<'_>) -> Option<Fields<'t>> {
    if matches!(node.value, Value::Null) { None } else { Fields::open(node, scope, report) }
}

fn list(
    fields: Option<Fields<'_>>,
    key: &str,
    subject: Subject,
    report: &mut Report<'_>,
) -> Option<Patterns> {
    patterns::check(fields?.get(key)?, key, subject, report)
}

fn schedules(node: &Node, report: &mut Report<'_>) -> Vec<Cron> {
    let items: Vec<&Node> = match &node.value {
        Value::List(items) if !items.is_empty() => items.iter().map(|item| &**item).collect(),
        _ => {
            wrong_type(node, "`cron`", "a list of schedules", Scope::Cron.example(), report);
            Vec::new()
        }
    };
    let mut names = HashSet::new();
    let mut schedules = Vec::new();
    for item in items {
        let Some(cron) = schedule(item, report) else { continue };
        if !names.insert(cron.name.clone()) {
            let message = format!("two schedules have the name {}", quoted(&cron.name));
            report.push(report.error(Code::DuplicateName, item.span, message));
        }
        schedules.push(cron);
    }
    schedules
}

fn schedule(node: &Node, report: &mut Report<'_>) -> Option<Cron> {
    if let Some(theirs) = node.get("cron").filter(|_| node.get("schedule").is_none()) {
        let problem = report.error(Code::UnknownKey, theirs.span, "a schedule has a name and a `schedule`");
        report.push(problem.hint(format!("for example `{}`", Scope::Cron.example())));
        return None;
    }
    let fields = Fields::open(node, Scope::Cron, report)?;
    let name = fields.require("name", Scope::Cron, report).and_then(|n| value::text(n, "name", report));
    let schedule = fields.require("schedule", Scope::Cron, report).and_then(|node| {
        let text = value::text(node, "schedule", report)?;
        Schedule::parse(text)
            .map_err(|why| {
                let problem =
                    report.error(Code::BadCron, node.span, format!("{} is no schedule: {why}", quoted(text)));
                report.push(
                    problem
                        .hint("minute, hour, day of the month, month, day of the week, in UTC: `0 3 * * *`"),
                );
            })
            .ok()
    });
    let branch = fields.get("branch").and_then(|node| value::text(node, "branch", report)).map(str::to_owned);
    Some(Cron { name: name?.to_owned(), schedule: schedule?, branch })
}
