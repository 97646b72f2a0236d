//! A manifest as text again: the longest form of each key, every text in double quotes.

use serde_json::{Map, Value, json};

use crate::{
    AllowFailure, Artifacts, CancelOlder, Conditions, Environment, Inherit, Keep, Manifest, Matrix, Patterns,
    Resources, Service, Shell, Stage, StageRetry, Triggers, Values, Variable,
};

/// The values are JSON, which is YAML, and in which all text is quoted.
pub(super) fn print(manifest: &Manifest) -> String {
    let mut top = String::new();
    let mut set = |key: &str, value: Value| top.push_str(&format!("{}: {value}\n", json!(key)));
    set("image", json!(manifest.image.to_string()));
    set("environment", environment(&manifest.environment));
    set("timeout", duration(manifest.timeout));
    set("shell", shell(&manifest.shell));
    let clone = &manifest.clone;
    let mut options = json!({"submodules": clone.submodules, "lfs": clone.lfs});
    if let Some(depth) = clone.depth {
        options["depth"] = json!(depth.to_string());
    }
    set("clone", options);
    let agent = manifest.agent.iter().map(|(label, value)| (label.clone(), json!(value.to_string())));
    set("agent", agent.collect());
    if let Some(on) = &manifest.on {
        set("on", triggers(on));
    }
    let caches = manifest.cache.iter().map(|cache| {
        let mut entry = json!({"key": cache.key.to_string(), "paths": cache.paths, "save": keep(cache.save)});
        if !cache.restore_keys.is_empty() {
            entry["restore_keys"] = cache.restore_keys.iter().map(|key| json!(key.to_string())).collect();
        }
        entry
    });
    set("cache", caches.collect());
    if let Some(concurrency) = &manifest.concurrency {
        let cancel = match concurrency.cancel {
            CancelOlder::None => "none",
            CancelOlder::Queued => "queued",
            CancelOlder::Running => "running",
        };
        set("concurrency", json!({"group": concurrency.group.to_string(), "cancel": cancel}));
    }
    if let Some(retry) = &manifest.retry {
        let when: Vec<&str> = retry.when.iter().map(|fault| fault.word()).collect();
        set("retry", json!({"times": retry.times.to_string(), "when": when}));
    }
    set("fail_fast", json!(manifest.fail_fast));
    set("docker", json!(manifest.docker));
    set("resources", resources(&manifest.resources));
    set("stages", manifest.stages.iter().map(|stage| json!(stage.name.to_string())).collect());
    for value in &manifest.stages {
        set(&value.name, stage(value));
    }
    // JSON forgets the order of keys, which says something here.
    if !manifest.services.is_empty() {
        top.push_str("services:\n");
        for value in &manifest.services {
            top.push_str(&format!("  {}: {}\n", json!(value.name), service(value)));
        }
    }
    if let Some(value) = &manifest.matrix {
        top.push_str("matrix:\n");
        for axis in &value.axes {
            top.push_str(&format!("  {}: {}\n", json!(axis.name), json!(axis.values)));
        }
        for (key, value) in matrix(value) {
            top.push_str(&format!("  {}: {value}\n", json!(key)));
        }
    }
    top
}

fn stage(stage: &Stage) -> Value {
    let mut parts = json!({"script": stage.script, "environment": environment(&stage.environment)});
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            parts[key] = value;
        }
    };
    set(
        "needs",
        stage.needs.as_ref().map(|needs| needs.iter().map(|(name, _)| json!(name.to_string())).collect()),
    );
    let conditions: Vec<Value> = stage.when.any.iter().map(conditions).collect();
    set("when", (!conditions.is_empty()).then(|| json!(conditions)));
    set("timeout", stage.timeout.map(duration));
    set("retry", stage.retry.as_ref().map(retry));
    set(
        "allow_failure",
        match &stage.allow_failure {
            AllowFailure::No => None,
            AllowFailure::Yes => Some(json!(true)),
            AllowFailure::ExitCodes(list) => Some(json!({"exit_codes": codes(list)})),
        },
    );
    set("artifacts", stage.artifacts.as_ref().map(artifacts));
    set("reports", stage.reports.junit.as_ref().map(|junit| json!({"junit": patterns(junit)})));
    set("image", stage.image.as_ref().map(|image| json!(image.to_string())));
    set("workdir", stage.workdir.as_ref().map(|workdir| json!(workdir.to_string())));
    set("user", stage.user.as_ref().map(|user| json!(user)));
    set("shell", stage.shell.as_ref().map(shell));
    set("docker", stage.docker.map(|docker| json!(docker)));
    set("resources", stage.resources.as_ref().map(resources));
    parts
}

fn conditions(entry: &Conditions) -> Value {
    let mut parts = json!({"status": entry.status.to_string()});
    let lists = [
        ("branch", &entry.branch),
        ("tag", &entry.tag),
        ("target", &entry.target),
        ("cron", &entry.cron),
        ("paths", &entry.paths),
    ];
    for (key, list) in lists {
        if let Some(list) = list {
            parts[key] = patterns(list);
        }
    }
    if let Some(events) = &entry.event {
        parts["event"] = events.iter().map(|event| json!(event.word())).collect();
    }
    if !entry.var.is_empty() {
        parts["var"] = entry.var.iter().map(|(name, list)| (name.to_string(), patterns(list))).collect();
    }
    parts
}

fn retry(retry: &StageRetry) -> Value {
    let when: Vec<&str> = retry.when.iter().map(|failure| failure.word()).collect();
    let mut parts = json!({"times": retry.times.to_string(), "when": when});
    if !retry.exit_codes.is_empty() {
        parts["exit_codes"] = json!(codes(&retry.exit_codes));
    }
    if let Some(backoff) = retry.backoff {
        parts["backoff"] = duration(backoff);
    }
    parts
}

fn artifacts(artifacts: &Artifacts) -> Value {
    let mut parts = json!({
        "paths": patterns(&artifacts.paths), "when": keep(artifacts.when), "required": artifacts.required,
    });
    if let Some(name) = &artifacts.name {
        parts["name"] = json!(name.to_string());
    }
    if let Some(expire_in) = artifacts.expire_in {
        parts["expire_in"] = duration(expire_in);
    }
    parts
}

fn environment(environment: &Environment) -> Value {
    let inherit = match &environment.inherit {
        Inherit::Nothing => json!(false),
        Inherit::Everything => json!(true),
        Inherit::Matching(globs) => globs.iter().map(|glob| json!(glob.to_string())).collect(),
    };
    let var = |variable: &Variable| match variable {
        Variable::Set { name, value, .. } => json!(format!("{name}={value}")),
        Variable::PassedOn { name, .. } => json!(name.to_string()),
    };
    json!({"inherit": inherit, "vars": environment.vars.iter().map(var).collect::<Vec<_>>()})
}

fn service(service: &Service) -> Value {
    let mut parts = json!({
        "image": service.image.to_string(),
        "environment": environment(&service.environment),
        "timeout": duration(service.timeout),
    });
    if let Some(command) = &service.command {
        parts["command"] = json!(command);
    }
    if let Some(ready) = &service.ready {
        parts["ready"] = json!(ready);
    }
    parts
}

fn matrix(matrix: &Matrix) -> Map<String, Value> {
    let values = |entry: &Values| -> Value {
        entry.iter().map(|(name, value)| (name.to_string(), json!(value))).collect()
    };
    let mut parts = Map::from_iter([("fail_fast".to_owned(), json!(matrix.fail_fast))]);
    for (key, entries) in
        [("include", &matrix.include), ("exclude", &matrix.exclude), ("allow_failure", &matrix.allow_failure)]
    {
        parts.insert(key.to_owned(), entries.iter().map(values).collect());
    }
    if let Some(most) = matrix.max_parallel {
        parts.insert("max_parallel".to_owned(), json!(most.to_string()));
    }
    parts
}

fn triggers(on: &Triggers) -> Value {
    let mut parts = json!({"manual": null});
    let filters = |lists: [(&str, &Option<Patterns>); 2]| -> Value {
        let lists = lists.into_iter();
        lists.filter_map(|(key, list)| Some((key.to_owned(), patterns(list.as_ref()?)))).collect()
    };
    if let Some(push) = &on.push {
        parts["push"] = filters([("branches", &push.branches), ("paths", &push.paths)]);
    }
    if let Some(tag) = &on.tag {
        parts["tag"] = filters([("tags", &tag.tags), ("tags", &tag.tags)]);
    }
    if let Some(request) = &on.pull_request {
        parts["pull_request"] = filters([("branches", &request.branches), ("paths", &request.paths)]);
    }
    if !on.cron.is_empty() {
        let cron = on.cron.iter().map(|cron| {
            let mut entry = json!({"name": cron.name, "schedule": cron.schedule.to_string()});
            if let Some(branch) = &cron.branch {
                entry["branch"] = json!(branch);
            }
            entry
        });
        parts["cron"] = cron.collect();
    }
    parts
}

fn resources(resources: &Resources) -> Value {
    let mut parts = json!({});
    if let Some(cpus) = resources.cpus {
        parts["cpus"] = json!(cpus.to_string());
    }
    if let Some(memory) = resources.memory {
        parts["memory"] = json!(memory.to_string());
    }
    if let Some(pids) = resources.pids {
        parts["pids"] = json!(pids.to_string());
    }
    parts
}

fn shell(shell: &Shell) -> Value {
    match shell {
        Shell::Sh => json!("sh"),
        Shell::Bash => json!("bash"),
        Shell::Other(words) => json!(words),
    }
}

fn patterns(patterns: &Patterns) -> Value {
    patterns.iter().map(|pattern| json!(pattern.to_string())).collect()
}

fn codes(codes: &[u8]) -> Vec<String> {
    codes.iter().map(u8::to_string).collect()
}

fn duration(duration: std::time::Duration) -> Value {
    json!(format!("{}s", duration.as_secs()))
}

fn keep(keep: Keep) -> &'static str {
    match keep {
        Keep::Success => "success",
        Keep::Failure => "failure",
        Keep::Always => "always",
        Keep::Never => "never",
    }
}
