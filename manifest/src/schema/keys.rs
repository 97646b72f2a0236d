//! What each key is for, and the shape of its value.

use serde_json::{Value, json};

use super::shapes::{number, reference, some, words};
use crate::vocabulary::Scope;

/// The schema of a key's value, with a description.
pub(super) fn key(scope: Scope, key: &str) -> Value {
    let (description, mut shape) = match scope {
        Scope::Top => top(key),
        Scope::Stage => stage(key),
        Scope::Matrix => matrix(key),
        Scope::Environment => environment(key),
        Scope::Service => service(key),
        Scope::Cache | Scope::Clone | Scope::Resources | Scope::Concurrency => setting(key),
        Scope::JobRetry | Scope::StageRetry | Scope::AllowFailure => retry(scope, key),
        Scope::On | Scope::Push | Scope::Tag | Scope::PullRequest | Scope::Cron => on(scope, key),
        Scope::When => when(key),
        Scope::Artifacts | Scope::Reports => outputs(key),
    };
    shape["description"] = description.into();
    shape
}

/// A mapping of ours, or a shorter form of it.
fn or(name: &str, short: Value) -> Value {
    json!({"anyOf": [short, reference(name)]})
}

fn yes_or_no() -> Value {
    json!({"type": "boolean"})
}

/// A key that stands in several places and means the same in all.
fn shared(key: &str) -> (&'static str, Value) {
    match key {
        "shell" => (
            "What runs a script: sh (-e, the default), bash (-eo pipefail), or a command as a list",
            reference("shell"),
        ),
        "docker" => ("False: no Docker socket in the container", yes_or_no()),
        "resources" => ("What the container may use", reference("resources")),
        "environment" => (
            "Variables: a mapping, a list of NAME=VALUE, or {inherit, vars}; values are literal",
            reference("environment"),
        ),
        _ => ("", Value::Bool(false)),
    }
}

fn top(key: &str) -> (&'static str, Value) {
    match key {
        "image" => ("The image of the container in which the stages run", reference("image")),
        "stages" => (
            "The stages in the order in which they run; each is a key of its own",
            json!({"type": ["array", "null"], "uniqueItems": true, "maxItems": 1000, "items": {
                "type": ["string", "number", "boolean"],
                "pattern": "^[^\\s/]([^/]*[^\\s/])?$",
                "maxLength": 100,
                "not": {"enum": ["image", "environment", "stages", ".", ".."]},
            }}),
        ),
        "prepare" => ("The stage that runs before all others", reference("stage")),
        "timeout" => ("How long a job may run; 60m where nothing is said", reference("duration")),
        "clone" => ("How the project is brought here", reference("clone")),
        "agent" => (
            "Labels that the agent must have",
            json!({
                "type": "object",
                "maxProperties": 50,
                "propertyNames": {"pattern": "^[A-Za-z0-9._/-]{1,100}$"},
                "additionalProperties": reference("text"),
            }),
        ),
        "matrix" => ("One job for each combination of these values", reference("matrix")),
        "services" => (
            "Containers beside the build's, reachable by name",
            json!({"anyOf": [
                {"type": "array", "maxItems": 50, "items": reference("image")},
                {
                    "type": "object",
                    "maxProperties": 50,
                    "propertyNames": {"pattern": "^[a-z][a-z0-9_-]{0,62}$"},
                    "additionalProperties": or("service", reference("image")),
                },
            ]}),
        ),
        "cache" => (
            "Files that one build leaves for the next",
            or("cache", json!({"type": "array", "maxItems": 20, "items": reference("cache")})),
        ),
        "on" => ("The events that start a build; all where nothing is said", or("on", some(&simple_event()))),
        "concurrency" => ("Builds of one group run one at a time", or("concurrency", reference("nonEmpty"))),
        "retry" => ("How often a job is tried again after a fault", or("jobRetry", number(0, 10))),
        "fail_fast" => ("True: a failure ends the stages that run side by side with it", yes_or_no()),
        other => shared(other),
    }
}

/// An event that needs no settings.
fn simple_event() -> Value {
    json!({"allOf": [reference("event"), {"not": {"const": "cron"}}]})
}

fn stage(key: &str) -> (&'static str, Value) {
    match key {
        "script" => {
            ("The commands; they share one shell, and the first failure ends them", reference("script"))
        }
        "needs" => (
            "The stages that it waits for; all that are listed before it where nothing is said",
            json!({"anyOf": [
                reference("nonEmpty"),
                {"type": "array", "uniqueItems": true, "items": reference("nonEmpty")},
            ]}),
        ),
        "when" => (
            "The conditions under which it runs; a list of mappings: any of them",
            json!({"anyOf": [
                reference("status"),
                reference("when"),
                {"type": "array", "minItems": 1, "maxItems": 50, "items": reference("when")},
            ]}),
        ),
        "timeout" => ("How long it may run", reference("duration")),
        "retry" => ("How often it is tried again", or("stageRetry", number(0, 10))),
        "allow_failure" => ("Which of its failures count as passed", or("allowFailure", yes_or_no())),
        "artifacts" => ("Files that it leaves for people", or("artifacts", reference("globs"))),
        "reports" => ("Files that it leaves for buildr to read", reference("reports")),
        "image" => ("The image of a container of its own", reference("image")),
        "workdir" => ("Its working directory, below the workspace", reference("nonEmpty")),
        "user" => (
            "The user that it runs as, maybe with a group",
            json!({
                "type": ["string", "number"],
                "pattern": "^[A-Za-z0-9._][A-Za-z0-9._-]{0,63}(:[A-Za-z0-9._][A-Za-z0-9._-]{0,63})?$",
            }),
        ),
        other => shared(other),
    }
}

fn environment(key: &str) -> (&'static str, Value) {
    match key {
        "inherit" => (
            "What is passed on of the environment of the process that runs the build: all, or names and globs",
            json!({"anyOf": [{"type": "boolean"}, {"type": "array", "items": reference("nonEmpty")}]}),
        ),
        _ => (
            "The variables, as a list of NAME=VALUE or as a mapping",
            json!({"anyOf": [{"type": "null"}, reference("variablesList"), reference("variables")]}),
        ),
    }
}

fn matrix(key: &str) -> (&'static str, Value) {
    let combinations = || json!({"type": "array", "maxItems": 256, "items": reference("combination")});
    match key {
        "exclude" => ("Combinations that make no job", combinations()),
        "include" => ("Variables for combinations, and jobs beside them", combinations()),
        "allow_failure" => ("Combinations whose failure does not fail the build", combinations()),
        "fail_fast" => ("True: the first failure ends the other jobs", yes_or_no()),
        _ => ("How many of its jobs run at a time", number(1, 256)),
    }
}

fn service(key: &str) -> (&'static str, Value) {
    match key {
        "image" => ("The image of the service", reference("image")),
        "command" => (
            "What it runs in place of the image's own command",
            json!({"type": "array", "minItems": 1, "items": reference("text")}),
        ),
        "ready" => ("A command in its container that succeeds once it can be used", reference("text")),
        "timeout" => ("How long it may take to get ready", reference("duration")),
        other => shared(other),
    }
}

fn setting(key: &str) -> (&'static str, Value) {
    match key {
        "depth" => ("How many commits of history; all where nothing is said", number(1, 1_000_000)),
        "submodules" => ("True: also the submodules", yes_or_no()),
        "lfs" => ("True: also the large files that git LFS keeps", yes_or_no()),
        "cpus" => ("Processors: 2, or 0.5", json!({"type": ["number", "string"], "exclusiveMinimum": 0})),
        "memory" => (
            "Memory: 512MiB, 4GiB",
            json!({"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?\\s*[A-Za-z]+$"}),
        ),
        "pids" => ("Processes and threads", number(1, 4_194_304)),
        "key" => {
            ("The name under which the files are found again; may have templates", reference("nonEmpty"))
        }
        "restore_keys" => {
            ("Beginnings of names that do as well, the best first", some(&reference("nonEmpty")))
        }
        "paths" => (
            "What is kept: below the workspace, absolute, or below `~/`",
            some(&json!({
                "type": ["string", "number", "boolean"],
                "minLength": 1,
                "not": {"pattern": "(^|/)\\.\\.(/|$)"},
            })),
        ),
        "save" => ("After which ends of a job it is saved", words(&["success", "always", "never"])),
        "group" => ("The name of the group; may have templates", reference("nonEmpty")),
        _ => (
            "What a newer build does to older ones: wait, replace a waiting, end a running",
            words(&["none", "queued", "running"]),
        ),
    }
}

fn retry(scope: Scope, key: &str) -> (&'static str, Value) {
    match key {
        "times" => ("So many extra tries", number(0, 10)),
        "when" if scope == Scope::JobRetry => ("After which faults", some(&reference("fault"))),
        "when" => ("After which failures", some(&reference("failure"))),
        "exit_codes" => ("These exit codes alone", reference("exitCodes")),
        _ => ("How long to wait between tries", reference("duration")),
    }
}

fn on(scope: Scope, key: &str) -> (&'static str, Value) {
    let nullable = |name: &str| json!({"anyOf": [{"type": "null"}, reference(name)]});
    match (scope, key) {
        (Scope::On, "push") => ("Pushes to a branch", nullable("onPush")),
        (Scope::On, "tag") => ("Tags that are new", nullable("onTag")),
        (Scope::On, "pull_request") => ("Pull requests", nullable("onPullRequest")),
        (Scope::On, "cron") => {
            ("Schedules, in UTC", json!({"type": "array", "minItems": 1, "items": reference("cron")}))
        }
        (Scope::On, _) => ("Starts a build always; it may stand here", json!({"type": "null"})),
        (Scope::Cron, "name") => ("The name of the schedule", reference("text")),
        (Scope::Cron, "schedule") => (
            "Minute, hour, day of the month, month, day of the week",
            json!({"type": "string", "pattern": "^\\s*\\S+(\\s+\\S+){4}\\s*$"}),
        ),
        (Scope::Cron, _) => {
            ("The branch to build; the default branch where nothing is said", reference("text"))
        }
        (Scope::PullRequest, "branches") => ("Into these branches alone", reference("globs")),
        (_, "branches") => ("To these branches alone", reference("globs")),
        (_, "tags") => ("With these names alone", reference("globs")),
        _ => ("Where these files were changed", reference("globs")),
    }
}

fn when(key: &str) -> (&'static str, Value) {
    match key {
        "branch" => ("The branch is one of these", reference("globs")),
        "tag" => ("The tag is one of these", reference("globs")),
        "target" => ("The branch that a pull request is to be merged into", reference("globs")),
        "event" => ("What started the build", some(&reference("eventCondition"))),
        "cron" => ("The name of the schedule that started the build", reference("globs")),
        "paths" => ("One of these files was changed", reference("globs")),
        "var" => (
            "Variables of the stage have one of these values",
            json!({
                "type": "object",
                "minProperties": 1,
                "propertyNames": reference("variable"),
                "additionalProperties": reference("globs"),
            }),
        ),
        _ => ("How the stages that it waits for ended", some(&reference("status"))),
    }
}

fn outputs(key: &str) -> (&'static str, Value) {
    match key {
        "paths" => ("Which files; a folder means its contents", reference("globs")),
        "name" => ("The name of the bundle; the stage's where nothing is said", reference("nonEmpty")),
        "when" => ("After which ends of the stage", words(&["success", "failure", "always"])),
        "expire_in" => ("How long they are kept", reference("duration")),
        "required" => ("True: no such file is a failure", yes_or_no()),
        _ => ("Test results in JUnit's format", reference("globs")),
    }
}
