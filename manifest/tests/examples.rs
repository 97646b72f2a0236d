//! The manifests of `examples/` have no error and no warning, and become the jobs, stages and skips that
//! the snapshots show in words.

use std::{collections::BTreeMap, fmt::Write, fs, path::PathBuf};

use buildr_manifest::{Context, Decision, Job, Manifest, Plan, PlannedStage, Start, Trigger};

/// An event, in words, and what it brings.
fn events() -> Vec<(&'static str, Context)> {
    let of = |trigger, branch: Option<&str>, changed: Option<&str>| Context {
        trigger,
        branch: branch.map(str::to_owned),
        commit: Some("c0ffee".to_owned()),
        changed_paths: changed.map(|path| vec![path.to_owned()]),
        process_environment: BTreeMap::new(),
        ..Context::default()
    };
    let tag = |name: &str| Context { tag: Some(name.to_owned()), ..of(Trigger::Tag, None, None) };
    let cron = Context { cron: Some("nightly".to_owned()), ..of(Trigger::Cron, Some("main"), None) };
    vec![
        ("a push to main", of(Trigger::Push, Some("main"), None)),
        (
            "a push to feature/login that changes packages/web/login.ts",
            of(Trigger::Push, Some("feature/login"), Some("packages/web/login.ts")),
        ),
        ("the tag v1.2.0", tag("v1.2.0")),
        ("the tag v1.3.0-rc.1", tag("v1.3.0-rc.1")),
        ("the schedule nightly", cron),
        ("a local run that changes README.md", of(Trigger::Local, Some("feature/login"), Some("README.md"))),
    ]
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn manifest(example: &str) -> Manifest {
    let path = folder().join(example).join(".buildr.yml");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    match Manifest::parse(&text, ".buildr.yml") {
        Ok((manifest, warnings)) => {
            let warnings: Vec<String> = warnings.iter().map(|warning| warning.render(false)).collect();
            assert!(warnings.is_empty(), "{example}\n{}", warnings.join("\n"));
            manifest
        }
        Err(problems) => panic!("{example}\n{problems}"),
    }
}

/// What an example does for each event. Events that lead to the same are told together.
fn story(example: &str) -> String {
    let manifest = manifest(example);
    let mut told: Vec<(Vec<&str>, String)> = Vec::new();
    for (event, context) in events() {
        let plan =
            manifest.plan(&context).unwrap_or_else(|problems| panic!("{example}, {event}\n{problems}"));
        let text = described(&plan);
        match told.iter_mut().find(|(_, other)| *other == text) {
            Some((events, _)) => events.push(event),
            None => told.push((vec![event], text)),
        }
    }
    let stories = told.into_iter().map(|(events, text)| format!("{}:\n{text}", events.join(", ")));
    stories.collect::<Vec<_>>().join("\n")
}

/// A plan in words. Stages of jobs that do the same are told once.
fn described(plan: &Plan) -> String {
    let mut text = String::new();
    if let Start::No { why } = &plan.start {
        return format!("  no build: {why}\n");
    }
    let mut stages_before = None;
    for job in &plan.jobs {
        let _ = writeln!(text, "  {}", headline(job));
        for cache in &job.cache {
            let _ = writeln!(text, "    cache {}", cache.key);
        }
        let stages: String =
            (0..job.stages.len()).map(|at| format!("    {}\n", stage(plan, job, at))).collect();
        let same = stages_before.as_ref() == Some(&stages);
        text.push_str(if same { "    (the same stages)\n" } else { &stages });
        stages_before = Some(stages);
    }
    text
}

fn headline(job: &Job) -> String {
    let mut text = format!("job {} {} in {}", job.number, job.name, job.image);
    for (label, value) in &job.agent {
        let _ = write!(text, ", on an agent with {label}={value}");
    }
    if let Some((group, _)) = &job.concurrency {
        let _ = write!(text, ", alone in the group {group}");
    }
    let services: Vec<&str> = job.services.iter().map(|service| &*service.service.name).collect();
    if !services.is_empty() {
        let _ = write!(text, ", beside {}", services.join(" and "));
    }
    if job.allow_failure {
        text.push_str(", may fail");
    }
    text
}

fn stage(plan: &Plan, job: &Job, at: usize) -> String {
    let stage = &job.stages[at];
    let name = &stage.stage.name;
    let status = match &stage.decision {
        Decision::Skip { why } => return format!("{name} is skipped: {why}"),
        Decision::Run(status) => status.to_string(),
    };
    let waits: Vec<&str> = job
        .waits_for(&plan.manifest.order, at)
        .into_iter()
        .map(|other| &*plan.manifest.stages[other].name)
        .collect();
    let after = if waits.is_empty() { "at once".to_owned() } else { format!("after {}", waits.join(", ")) };
    let condition = match status.as_str() {
        "always" => ", however they end",
        "failure" => ", if one fails",
        _ => "",
    };
    format!("{name} runs {after}{condition}{}", outputs(stage))
}

fn outputs(stage: &PlannedStage) -> String {
    match (&stage.stage.artifacts, &stage.artifact_name) {
        (Some(_), Some(name)) => format!(", leaves {name}"),
        (Some(_), None) => format!(", leaves {}", stage.stage.name),
        (None, _) => String::new(),
    }
}

#[test]
fn each_example_does_what_it_is_meant_to() {
    let mut names: Vec<String> = fs::read_dir(folder())
        .expect("the folder of the examples")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().expect("a plain name"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 9, "{names:?}");
    for name in names {
        insta::assert_snapshot!(name.as_str(), story(&name));
    }
}

#[test]
fn the_readme_names_each_example() {
    let readme = fs::read_to_string(folder().join("README.md")).expect("the readme");
    for entry in fs::read_dir(folder()).expect("the folder").filter_map(Result::ok) {
        let name = entry.file_name().into_string().expect("a plain name");
        let link = format!("[{name}]({name}/.buildr.yml)");
        assert!(!entry.path().is_dir() || readme.contains(&link), "{link}");
    }
}
