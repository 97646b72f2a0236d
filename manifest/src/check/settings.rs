//! The settings at the top of a manifest that are no mapping of names of the user's own.

use std::{collections::BTreeMap, time::Duration};

use super::{
    fields::{Fields, is_too_long, wrong_type},
    template::{self, Names},
    top::Top,
    value,
};
use crate::{
    ByteSize, Cache, CancelOlder, CloneOptions, Code, Concurrency, Cpus, Fault, JobRetry, Keep, Manifest,
    Resources, Shell, Template,
    diagnostic::{Report, quoted},
    tree::{Node, Value},
    vocabulary::Scope,
};

/// How often something may be tried again at most.
pub(super) const MAX_RETRIES: u32 = 10;

/// How many caches, labels, services and the like one manifest may have.
pub(super) const MAX_ENTRIES: usize = 50;

/// How many caches there may be, and how many `restore_keys` each: their keys are made for each job.
const MAX_CACHES: usize = 20;

/// What the settings are read from.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r, 't> {
    /// The keys of the manifest.
    pub(super) top: &'r Top<'t>,
    /// The variables that templates may name.
    pub(super) names: &'r Names,
}

impl Reader<'_, '_> {
    /// `timeout`.
    pub(super) fn timeout(self, report: &mut Report<'_>) -> Duration {
        let timeout = self.top.get("timeout").and_then(|node| value::duration(node, "timeout", report));
        timeout.unwrap_or(Manifest::DEFAULT_TIMEOUT)
    }

    /// `true` or `false`.
    pub(super) fn switch(self, key: &str, default: bool, report: &mut Report<'_>) -> bool {
        self.top.get(key).and_then(|node| value::boolean(node, key, report)).unwrap_or(default)
    }

    /// `shell`.
    pub(super) fn shell(self, report: &mut Report<'_>) -> Shell {
        self.top.get("shell").and_then(|node| shell(node, report)).unwrap_or_default()
    }

    /// `clone`.
    pub(super) fn clone_options(self, report: &mut Report<'_>) -> CloneOptions {
        let Some(fields) = self.top.get("clone").and_then(|node| Fields::open(node, Scope::Clone, report))
        else {
            return CloneOptions::default();
        };
        let depth = fields.get("depth").and_then(|node| value::number(node, "depth", 1..=1_000_000, report));
        CloneOptions {
            depth,
            submodules: switch(fields, "submodules", false, report),
            lfs: switch(fields, "lfs", false, report),
        }
    }

    /// `resources`.
    pub(super) fn resources(self, report: &mut Report<'_>) -> Resources {
        self.top.get("resources").map(|node| resources(node, report)).unwrap_or_default()
    }

    /// `agent`: labels and their values.
    pub(super) fn agent(self, report: &mut Report<'_>) -> BTreeMap<String, Template> {
        let Some(node) = self.top.get("agent") else { return BTreeMap::new() };
        if is_too_long(node, "agent", MAX_ENTRIES, report) {
            return BTreeMap::new();
        }
        let Some(entries) = node.as_mapping() else {
            wrong_type(node, "`agent`", "a mapping of labels", "agent: {os: linux}", report);
            return BTreeMap::new();
        };
        let mut labels = BTreeMap::new();
        for entry in entries {
            let label = entry.key.text.as_str();
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
            if label.is_empty() || label.len() > 100 || !label.chars().all(is_allowed) {
                let problem =
                    report.error(Code::BadName, entry.key.span, format!("{} is not a label", quoted(label)));
                report.push(problem.hint("a label has 1 to 100 letters, digits and `._-/`"));
                continue;
            }
            let value = template::check(&entry.value, label, self.names, report);
            labels.extend(value.map(|value| (label.to_owned(), value)));
        }
        labels
    }

    /// `cache`.
    pub(super) fn cache(self, report: &mut Report<'_>) -> Vec<Cache> {
        let Some(node) = self.top.get("cache") else { return Vec::new() };
        match &node.value {
            Value::List(_) if is_too_long(node, "cache", MAX_CACHES, report) => Vec::new(),
            Value::List(items) => items.iter().filter_map(|item| self.one_cache(item, report)).collect(),
            // One alone, as in GitLab.
            Value::Mapping(_) => self.one_cache(node, report).into_iter().collect(),
            _ => {
                wrong_type(node, "`cache`", "a list", Scope::Cache.example(), report);
                Vec::new()
            }
        }
    }

    fn one_cache(self, node: &Node, report: &mut Report<'_>) -> Option<Cache> {
        let fields = Fields::open(node, Scope::Cache, report)?;
        let key = fields.require("key", Scope::Cache, report);
        let key = key.and_then(|node| template::check(node, "key", self.names, report));
        let restore_keys = fields.get("restore_keys");
        let restore_keys = restore_keys.filter(|node| !is_too_long(node, "restore_keys", MAX_CACHES, report));
        let restore_keys =
            restore_keys.map(|node| value::texts(node, "restore_keys", report)).unwrap_or_default();
        let restore_keys = restore_keys
            .into_iter()
            .filter_map(|(_, node)| template::check(node, "restore_keys", self.names, report))
            .collect();
        let paths = fields.require("paths", Scope::Cache, report).map(|node| cache_paths(node, report));
        let words = [("success", Keep::Success), ("always", Keep::Always), ("never", Keep::Never)];
        let save = fields.get("save").and_then(|node| value::word(node, "save", &words, report));
        Some(Cache { key: key?, restore_keys, paths: paths?, save: save.unwrap_or_default() })
    }

    /// `concurrency`.
    pub(super) fn concurrency(self, report: &mut Report<'_>) -> Option<Concurrency> {
        let node = self.top.get("concurrency")?;
        if let Value::Text(_) = node.value {
            let group = template::check(node, "concurrency", self.names, report)?;
            return Some(Concurrency { group, cancel: CancelOlder::None });
        }
        let fields = Fields::open(node, Scope::Concurrency, report)?;
        let group = fields.require("group", Scope::Concurrency, report);
        let group = group.and_then(|node| template::check(node, "group", self.names, report));
        let words =
            [("none", CancelOlder::None), ("queued", CancelOlder::Queued), ("running", CancelOlder::Running)];
        let cancel = fields.get("cancel").and_then(|node| value::word(node, "cancel", &words, report));
        Some(Concurrency { group: group?, cancel: cancel.unwrap_or_default() })
    }

    /// `retry` of a whole job.
    pub(super) fn retry(self, report: &mut Report<'_>) -> Option<JobRetry> {
        let node = self.top.get("retry")?;
        if let Value::Text(_) = node.value {
            let times = value::number(node, "retry", 0..=MAX_RETRIES, report)?;
            return Some(JobRetry { times, when: Fault::ALL.to_vec() });
        }
        let fields = Fields::open(node, Scope::JobRetry, report)?;
        let times =
            fields.get("times").map_or(Some(1), |n| value::number(n, "times", 0..=MAX_RETRIES, report));
        let when = fields.get("when").map_or_else(|| Fault::ALL.to_vec(), |node| faults(node, report));
        Some(JobRetry { times: times?, when })
    }
}

/// A key of a mapping that is `true` or `false`.
pub(super) fn switch(fields: Fields<'_>, key: &str, default: bool, report: &mut Report<'_>) -> bool {
    fields.get(key).and_then(|node| value::boolean(node, key, report)).unwrap_or(default)
}

/// `shell`, at the top or in a stage.
pub(super) fn shell(node: &Node, report: &mut Report<'_>) -> Option<Shell> {
    if let Value::List(_) = node.value {
        let words: Vec<String> =
            value::texts(node, "shell", report).into_iter().map(|(text, _)| text.to_owned()).collect();
        if words.iter().any(|word| word.contains('\0')) || words.first().is_some_and(String::is_empty) {
            report.push(report.error(Code::BadName, node.span, "this is not the command of a shell"));
            return None;
        }
        return (!words.is_empty()).then_some(Shell::Other(words));
    }
    match value::text(node, "shell", report)? {
        "sh" => Some(Shell::Sh),
        "bash" => Some(Shell::Bash),
        other => {
            let message = format!("{} is no value of `shell`", quoted(other));
            let hint =
                format!("`sh`, `bash`, or the command of another POSIX shell as a list: `[{other}, -e]`");
            report.push(report.error(Code::UnknownWord, node.span, message).hint(hint));
            None
        }
    }
}

/// `resources`, at the top or in a stage.
pub(super) fn resources(node: &Node, report: &mut Report<'_>) -> Resources {
    let Some(fields) = Fields::open(node, Scope::Resources, report) else { return Resources::default() };
    let cpus = fields.get("cpus");
    let cpus =
        cpus.and_then(|n| value::parsed(n, "cpus", Code::BadNumber, Cpus::parse, "`2` or `0.5`", report));
    let memory = fields.get("memory").and_then(|node| {
        value::parsed(node, "memory", Code::BadSize, ByteSize::parse, "`512MiB` or `4GiB`", report)
    });
    let pids = fields.get("pids").and_then(|node| value::number(node, "pids", 1..=4_194_304, report));
    Resources { cpus, memory, pids }
}

fn faults(node: &Node, report: &mut Report<'_>) -> Vec<Fault> {
    let words = Fault::ALL.map(|fault| (fault.word(), fault));
    let nodes = value::nodes(node);
    if nodes.is_empty() {
        wrong_type(node, "`when`", "a list of outcomes", Scope::JobRetry.example(), report);
    }
    nodes.into_iter().filter_map(|node| value::word(node, "when", &words, report)).collect()
}

fn cache_paths(node: &Node, report: &mut Report<'_>) -> Vec<String> {
    let mut paths = Vec::new();
    for (text, node) in value::texts(node, "paths", report) {
        if text.is_empty() || text.contains('\0') || text.split('/').any(|part| part == "..") {
            let problem = report.error(Code::BadPath, node.span, format!("{} can't be cached", quoted(text)));
            report.push(problem.hint(
                "a path is below the workspace, absolute, or below the home folder (`~/`), without `..`",
            ));
            continue;
        }
        paths.push(text.to_owned());
    }
    paths
}
