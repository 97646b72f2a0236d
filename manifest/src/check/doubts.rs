//! What is valid and probably not meant: conditions that decide nothing, secrets in plain text.

use super::script_doubts;
use crate::{
    Code, Conditions, Manifest, Matrix, Patterns, Shell, Stage, StageName, Status, Trigger, Variable,
    diagnostic::{Report, quoted},
};

/// Parts of names under which secrets go.
const SECRET_NAMES: [&str; 8] =
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY"];

/// Beginnings of values that are secrets, whatever their name.
const SECRET_VALUES: [&str; 9] =
    ["ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "sk_live_", "-----BEGIN"];

/// Looks at a checked manifest.
pub(super) fn check(manifest: &Manifest, report: &mut Report<'_>) {
    credentials(&manifest.environment.vars, report);
    for service in &manifest.services {
        // Passwords of databases that live as long as a build are no secrets.
        let vars = service.environment.vars.iter().filter(|variable| is_known_secret(variable));
        vars.for_each(|variable| warn_of_credential(variable, report));
    }
    for (at, stage) in manifest.stages.iter().enumerate() {
        credentials(&stage.environment.vars, report);
        pipes(stage, &manifest.shell, report);
        for entry in &stage.when.any {
            conditions(entry, manifest.matrix.as_ref(), stage, report);
            nothing_before(entry, stage, manifest.order.needs(at).is_empty(), report);
        }
    }
    if let Some(matrix) = &manifest.matrix {
        for variable in manifest.environment.vars.iter().filter(|variable| matrix.is_axis(variable.name())) {
            let message = format!("the variable {} is an axis of the matrix too", quoted(variable.name()));
            let problem = report.warning(Code::VariableSetTwice, variable.place().0, message);
            report.push(problem.hint("the matrix wins, so this value is never seen"));
        }
    }
}

/// A pipe whose first command may fail unseen. A script that sets `pipefail` itself knows.
fn pipes(stage: &Stage, default: &Shell, report: &mut Report<'_>) {
    let shell = stage.shell.as_ref().unwrap_or(default);
    if *shell != Shell::Sh || stage.script.iter().any(|entry| entry.contains("pipefail")) {
        return;
    }
    let first = script_doubts::pipe(&stage.script).and_then(|at| stage.script_places.get(at));
    if let Some(place) = first {
        let message = "a `|` hides the failure of all but its last command";
        let problem = report.warning(Code::PipeWithoutPipefail, place.0, message);
        report.push(problem.hint("`shell: bash` in the stage or at the top sets `pipefail`; `sh` has none"));
    }
}

fn credentials(vars: &[Variable], report: &mut Report<'_>) {
    let secret = |variable: &&Variable| is_known_secret(variable) || has_secret_name(variable);
    vars.iter().filter(secret).for_each(|variable| warn_of_credential(variable, report));
}

fn warn_of_credential(variable: &Variable, report: &mut Report<'_>) {
    let message = format!(
        "the value of {} looks like a secret, and anyone who reads the repository has it",
        quoted(variable.name())
    );
    let problem = report.warning(Code::PlainCredential, variable.place().0, message);
    report.push(
        problem.hint(format!("a bare `{}` takes the value from where the build runs", variable.name())),
    );
}

fn is_known_secret(variable: &Variable) -> bool {
    matches!(variable, Variable::Set { value, .. } if SECRET_VALUES.iter().any(|start| value.starts_with(start)))
}

/// True for a name of a secret with a value that may be one: not short, without blanks, no path.
fn has_secret_name(variable: &Variable) -> bool {
    const MIN_LENGTH: usize = 8;
    let Variable::Set { name, value, .. } = variable else { return false };
    let name = name.to_ascii_uppercase();
    let may_be = value.len() >= MIN_LENGTH
        && !value.contains(char::is_whitespace)
        && !value.starts_with(['/', '.', '~', '$'])
        && !matches!(value.as_str(), "something" | "changeme" | "password")
        && !name.ends_with("_FILE");
    may_be && SECRET_NAMES.iter().any(|part| name.contains(part))
}

/// Conditions that hold always or never.
fn conditions(entry: &Conditions, matrix: Option<&Matrix>, stage: &Stage, report: &mut Report<'_>) {
    let only = |event: Trigger| entry.event.as_ref().is_some_and(|events| !events.contains(event));
    let never_with = |key: &str, has: bool, events: &[Trigger]| {
        let impossible = has && events.iter().all(|event| only(*event));
        let words: Vec<String> = events.iter().map(|event| format!("`{}`", event.word())).collect();
        impossible.then(|| {
            format!(
                "`{key}` is set in builds of the events {} alone, and `event` names none of them",
                words.join(", ")
            )
        })
    };
    use Trigger::{Cron, Local, Manual, PullRequest, Push, Tag};
    let impossible = never_with("branch", entry.branch.is_some(), &[Push, Cron, Manual, Local])
        .or_else(|| never_with("tag", entry.tag.is_some(), &[Tag, Manual, Local]))
        .or_else(|| never_with("target", entry.target.is_some(), &[PullRequest]))
        .or_else(|| never_with("cron", entry.cron.is_some(), &[Cron]))
        .or_else(|| both_unset(entry));
    let lists = [
        ("branch", &entry.branch),
        ("tag", &entry.tag),
        ("target", &entry.target),
        ("cron", &entry.cron),
        ("paths", &entry.paths),
    ];
    let empty = lists.iter().find(|(_, list)| list.as_ref().is_some_and(Patterns::matches_none));
    let empty = empty.map(|(key, _)| format!("`{key}` excludes everything"));
    if let Some(why) = impossible.or(empty).or_else(|| variable_never(entry, matrix)) {
        let message = format!("this condition of the stage {} never holds", quoted(&stage.name));
        report.push(report.warning(Code::NeverTrue, entry.place.0, message).hint(why));
    }
    if let Some(why) = always(entry) {
        let message = format!("this condition of the stage {} always holds", quoted(&stage.name));
        report.push(report.warning(Code::AlwaysTrue, entry.place.0, message).hint(why));
    }
}

/// A branch and a target, or a tag and a target, are never set together.
fn both_unset(entry: &Conditions) -> Option<String> {
    let other = [("branch", &entry.branch), ("tag", &entry.tag), ("cron", &entry.cron)];
    let other = other.into_iter().find(|(_, list)| list.is_some()).filter(|_| entry.target.is_some())?;
    Some(format!("a pull request has a `target` and no `{}`", other.0))
}

/// An axis that has no value of those that are wanted, where nobody gives another with `--var`.
fn variable_never(entry: &Conditions, matrix: Option<&Matrix>) -> Option<String> {
    let matrix = matrix.filter(|matrix| matrix.include.is_empty())?;
    entry.var.iter().find_map(|(name, patterns)| {
        let axis = matrix.axes.iter().find(|axis| axis.name == *name)?;
        let none = !axis.values.iter().any(|value| patterns.matches(value));
        none.then(|| format!("the axis `{name}` of the matrix has no such value"))
    })
}

fn always(entry: &Conditions) -> Option<String> {
    if entry.event.as_ref().is_some_and(|events| Trigger::ALL.iter().all(|event| events.contains(*event))) {
        return Some("`event` names all events; remove it".to_owned());
    }
    let all = |list: &Option<Patterns>| list.as_ref().is_some_and(Patterns::matches_all);
    if all(&entry.paths) {
        return Some("`paths` matches every file; remove it".to_owned());
    }
    None
}

/// `failure` where nothing can have failed.
fn nothing_before(entry: &Conditions, stage: &Stage, is_first: bool, report: &mut Report<'_>) {
    if entry.status == Status::FAILURE && (is_first || &*stage.name == StageName::PREPARE) {
        let message = format!("this condition of the stage {} never holds", quoted(&stage.name));
        let problem = report.warning(Code::NeverTrue, entry.place.0, message);
        report.push(problem.hint("it waits for no stage, so none can have failed before it"));
    }
}
