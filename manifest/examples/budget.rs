//! Prints how long the parser, the checker and the planner take, for ordinary manifests and for
//! hostile ones, and how much memory the process has needed at most after each.
//!
//! `cargo run --release -p buildr-manifest --example budget`
#![expect(clippy::print_stdout, reason = "figures are its purpose")]

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use buildr_manifest::{Context, Manifest, Trigger};

fn main() {
    measure("300 lines: parse, check, plan", Duration::from_millis(2), &ordinary());
    measure("matrix of 256 jobs of 20 stages", Duration::from_millis(20), &matrix());
    measure("billion laughs", Duration::from_millis(50), &laughs());
    measure("laughs through merge keys", Duration::from_millis(50), &merged_laughs());
    measure("1 MiB of opening brackets", Duration::from_millis(50), &"[".repeat(1024 * 1024));
    measure("1 MiB of unknown keys", Duration::from_millis(200), &unknown_keys());
    measure("1 MiB of one script", Duration::from_millis(200), &long_script());
    measure("1000 stages that all need all", Duration::from_millis(200), &dense());
    measure(
        "1000 stages in one job",
        Duration::from_millis(200),
        &dense().replace("matrix:", "x-matrix:").replace("branch: dev", "branch: main"),
    );
    measure("32 stages of 256 jobs with long templates", Duration::from_millis(200), &templates());
    measure("32,768 stages in all", Duration::from_millis(200), &many_stages());
}

/// The best of several runs, as other work on the machine only ever adds time.
fn measure(what: &str, budget: Duration, text: &str) {
    const RUNS: usize = 7;
    let context = Context { trigger: Trigger::Push, branch: Some("main".to_owned()), ..Context::default() };
    let mut best = Duration::MAX;
    let mut result = String::new();
    for _ in 0..RUNS {
        let begin = Instant::now();
        let parsed = Manifest::parse(text.as_bytes(), ".buildr.yml");
        let outcome = parsed.as_ref().map(|(manifest, _)| manifest.plan(&context));
        let _carried_out =
            outcome.as_ref().ok().and_then(|plan| plan.as_ref().ok()).map(|plan| plan.supported());
        best = best.min(begin.elapsed());
        result = match outcome {
            Ok(Ok(plan)) => format!("{} jobs", plan.jobs.len()),
            Ok(Err(problems)) => format!("plan: {}", problems.items[0].message),
            Err(problems) => problems.items[0].message.clone(),
        };
    }
    let verdict = if best <= budget { "ok" } else { "OVER" };
    let peak = peak_memory().unwrap_or_else(|| "unknown".to_owned());
    println!(
        "{what}: {:.2} ms (budget {} ms, {verdict}), {} bytes, peak so far {peak}: {result}",
        best.as_secs_f64() * 1000.0,
        budget.as_millis(),
        text.len(),
    );
}

/// The most memory that the process has had, where the system tells.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A manifest of 300 lines that uses most of the language.
fn ordinary() -> String {
    let mut text = "image: rust:${RUST}\nenvironment: {A: b, C: d}\nmatrix:\n  RUST: [stable]\n\
        services:\n  db: {image: postgres:16, environment: {P: x}}\n\
        cache:\n  - {key: 'c-${checksum:Cargo.lock}', paths: [target]}\non:\n  push: {branches: [main]}\n\
        stages:\n"
        .to_owned();
    const STAGES: usize = 18;
    for stage in 0..STAGES {
        let _ = writeln!(text, "  - stage{stage}");
    }
    for stage in 0..STAGES {
        let needs = if stage == 0 { "[]".to_owned() } else { format!("[stage{}]", stage - 1) };
        let _ = write!(
            text,
            "stage{stage}:\n  needs: {needs}\n  when:\n    branch: [main, 'release/**']\n    paths: ['src/**', '!docs/**']\n\
             \x20 timeout: 10m\n  environment:\n    LEVEL: debug\n  artifacts: [dist/]\n  retry: 2\n  script:\n    - make all\n    - |\n      cd sub\n      make test\n"
        );
    }
    text
}

fn matrix() -> String {
    let axis = |name: &str| {
        let values: Vec<String> = (0..16).map(|value| format!("{name}{value}")).collect();
        format!("  {name}: [{}]\n", values.join(", "))
    };
    let names: Vec<String> = (0..20).map(|stage| format!("s{stage}")).collect();
    let mut text =
        format!("image: a:${{A}}\nmatrix:\n{}{}stages: [{}]\n", axis("A"), axis("B"), names.join(", "));
    for name in names {
        let _ = writeln!(
            text,
            "{name}: {{script: [make], when: {{var: {{B: 'B1*'}}}}, environment: {{X: y}}, workdir: '${{A}}'}}"
        );
    }
    text
}

fn laughs() -> String {
    let mut text = "image: a\nx-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..30 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        let _ = writeln!(text, "x-{level}: &a{level} [{aliases}]");
    }
    text + "prepare: {script: [x]}\n"
}

fn merged_laughs() -> String {
    let mut text = "image: a\nx-0: &a0 {k0: v}\n".to_owned();
    for level in 1..3000 {
        let _ = writeln!(text, "x-{level}: &a{level} {{<<: [*a{0}, *a{0}], k{level}: v}}", level - 1);
    }
    text + "prepare: {script: [x]}\n"
}

fn unknown_keys() -> String {
    let keys: String = (0..55_000).map(|key| format!("unknown{key}: 1\n")).collect();
    format!("image: a\n{keys}prepare: {{script: [x]}}\n")
}

fn long_script() -> String {
    format!(
        "image: a\nmatrix: {{A: [{}]}}\nprepare:\n  script:\n{}",
        numbers(256),
        "    - make | tee\n".repeat(60_000)
    )
}

fn dense() -> String {
    let names: Vec<String> = (0..1000).map(|stage| format!("s{stage}")).collect();
    let mut text =
        format!("image: a\nmatrix: {{A: [{}]}}\nstages: &all [{}]\n", numbers(30), names.join(", "));
    for (at, name) in names.iter().enumerate() {
        let needs = if at < 110 { names[..at].join(", ") } else { names[at - 100..at].join(", ") };
        let _ = writeln!(text, "{name}: {{script: [x], needs: [{needs}], when: {{branch: dev}}}}");
    }
    text
}

fn templates() -> String {
    let names: Vec<String> = (0..32).map(|stage| format!("s{stage}")).collect();
    let mut text = format!(
        "image: a\nmatrix: {{A: [{}]}}\nenvironment: {{V: {}}}\nstages: [{}]\n",
        numbers(256),
        "v".repeat(500),
        names.join(", ")
    );
    for name in names {
        let _ = writeln!(
            text,
            "{name}: {{script: [x], image: '${{V}}', workdir: '${{V}}', artifacts: {{paths: [x], name: '${{V}}'}}}}"
        );
    }
    text
}

fn many_stages() -> String {
    let names: Vec<String> = (0..128).map(|stage| format!("s{stage}")).collect();
    let mut text = format!("image: a\nmatrix: {{A: [{}]}}\nstages: [{}]\n", numbers(256), names.join(", "));
    for name in names {
        let _ = writeln!(text, "{name}: {{script: [x], when: {{var: {{A: '1*'}}}}}}");
    }
    text
}

fn numbers(count: usize) -> String {
    (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}
