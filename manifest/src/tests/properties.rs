//! What holds for any bytes at all.

use proptest::{collection::vec, prelude::*, sample::select};

use super::print::print;
use crate::{Context, Manifest, Severity, Trigger};

/// Pieces of which manifests, and what goes wrong in them, are made.
const PIECES: [&str; 48] = [
    "image",
    "stages",
    "prepare",
    "script",
    "environment",
    "vars",
    "inherit",
    "timeout",
    "build",
    "cache",
    "x-a",
    ": ",
    ":",
    "\n",
    "\r\n",
    "\r",
    " ",
    "  ",
    "    ",
    "\t",
    "- ",
    "-",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "'",
    "\"",
    "|",
    ">-",
    "#",
    "&a ",
    "*a",
    "<<",
    "!",
    "!!str ",
    "? ",
    "---\n",
    "...\n",
    "%",
    "@",
    "`",
    "A=b",
    "~",
    "ä",
    "\u{feff}",
    "\0",
];

const VALID: &str = "image: a:1\nenvironment:\n  inherit: true\n  vars:\n    - A=b\n    - B\nstages: [build, 'te st']\n\
    x-common: &c {script: [\"a\", 'b', |\n  c\n  ]}\nprepare:\n  script:\n    - |\n      a\n    - make # x\n\
    build:\n  <<: *c\n  script: ü\nte st: *c\ntimeout: 1h\n";

/// Whatever comes in: it ends, each problem points into the text, and can be shown.
fn check(bytes: &[u8]) {
    match Manifest::parse(bytes, "f") {
        Ok((manifest, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
            plan(&manifest);
        }
        Err(problems) => {
            assert!(problems.items.iter().any(|item| item.severity == Severity::Error));
            let lines = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() + 1;
            assert!(problems.items.iter().all(|item| (1..=lines).contains(&item.line) && item.column >= 1));
            assert!(!problems.render(true).is_empty() && !problems.to_string().is_empty());
        }
    }
}

/// Whatever the event: there is a plan or an error, and no stage waits for itself.
fn plan(manifest: &Manifest) {
    let stages = manifest.stages.len();
    let mut done = vec![false; stages];
    for round in manifest.order.rounds() {
        assert!(round.iter().all(|stage| manifest.order.needs(*stage).iter().all(|need| done[*need])));
        round.into_iter().for_each(|stage| done[stage] = true);
    }
    assert!(done.iter().all(|done| *done), "every stage has its turn");
    for trigger in Trigger::ALL {
        let changed_paths = Some(vec!["src/a".to_owned()]);
        let context =
            Context { trigger, changed_paths, branch: Some("main".to_owned()), ..Context::default() };
        match manifest.plan(&context) {
            Ok(plan) => {
                assert!(plan.jobs.iter().all(|job| job.stages.len() == stages));
                let _either = plan.supported();
            }
            Err(problems) => assert!(!problems.items.is_empty()),
        }
    }
}

/// Lines for the top of a manifest, one or none of each group.
const TOP: [&[&str]; 12] = [
    &["timeout: 1h", "timeout: 90s"],
    &["shell: bash", "shell: [zsh, -e]"],
    &["clone: {depth: 3, lfs: true}", "clone: {submodules: true}"],
    &["agent: {os: linux, gpu: \"true\"}", "agent: {v: '${PG}'}"],
    &[
        "environment: {PG: 1.80, EMPTY: '', N: }",
        "environment: [A=b c=d, PG]",
        "environment: {inherit: [X*, Y], vars: [PG=ü]}",
    ],
    &[
        "services: ['redis:7', 'host:5000/x/db@sha256:00']",
        "services: {db: {image: 'p:${os}', ready: r, command: [a, ' b'], environment: [A=b]}}",
    ],
    &["cache: {key: 'k-${checksum:a/*,**/b}', paths: [~/.x], restore_keys: k-, save: always}", "cache: []"],
    &[
        "on: push",
        "on: {push: {branches: ['!x', 'a/**'], paths: docs/}, tag: {tags: 'v[0-9]*'}}",
        "on: {pull_request: , cron: [{name: n, schedule: '*/5 1-3 * jan mon', branch: b}]}",
    ],
    &["concurrency: 'g-${branch}$${x}'", "concurrency: {group: g, cancel: running}"],
    &["retry: 2", "retry: {times: 0, when: agent_lost}"],
    &["docker: false\nfail_fast: true", "resources: {cpus: 0.25, memory: 1536MiB, pids: 10}"],
    &[
        "matrix: {R: [1.80, 0755, \"\"], D: [x], exclude: [{R: 0755}], include: [{R: n, D: y, E: z}], allow_failure: [{E: z}], max_parallel: 2}",
        "matrix: {include: [{A: b}, {A: c}]}",
    ],
];

/// The same for a stage.
const STAGE: [&[&str]; 10] = [
    &["needs: []", "needs: [prepare]", "needs: prepare"],
    &[
        "when: always",
        "when: {branch: ['!a', b], status: [success]}",
        "when: [{event: '!cron', paths: [a/, '!a/b']}, {var: {PG: '1.*'}, cron: n, target: t}]",
    ],
    &["timeout: 5m"],
    &["retry: 1", "retry: {times: 3, when: [oom], exit_codes: [1, 255], backoff: 1m}"],
    &["allow_failure: true", "allow_failure: {exit_codes: 77}"],
    &[
        "artifacts: [dist/, '!dist/x', './a']",
        "artifacts: {paths: a, name: 'n-${job}', when: always, expire_in: 30d, required: true}",
    ],
    &["reports: {junit: '**/j*.xml'}"],
    &["image: i:1, docker: true, resources: {memory: 3GB}", "image: '${branch}'"],
    &["workdir: sub/dir, user: 1000:1000", "shell: sh"],
    &["environment: {A: \"q'\\\\n\", B: b}"],
];

/// One of each group, or none.
fn choices(groups: &'static [&'static [&'static str]]) -> impl Strategy<Value = Vec<&'static str>> {
    let one = |group: &&'static [&'static str]| proptest::option::of(select(*group));
    groups.iter().map(one).collect::<Vec<_>>().prop_map(|chosen| chosen.into_iter().flatten().collect())
}

/// Scripts with anything in them.
fn script() -> impl Strategy<Value = Vec<String>> {
    vec("[a-z \"'$#:{}\\[\\]|>&*!%@`\\\\ü\n\t-]{0,20}[a-z]", 1..4)
}

fn manifests() -> impl Strategy<Value = String> {
    let stage = (choices(&STAGE), script());
    (choices(&TOP), vec(stage, 0..5), script()).prop_map(|(top, stages, first)| {
        let names: Vec<String> = (0..stages.len()).map(|at| format!("stage {at}")).collect();
        let mut text = format!("image: a\n{}\nstages: {names:?}\n", top.join("\n"));
        text.push_str(&format!("prepare: {{script: {}}}\n", serde_json::json!(first)));
        for (name, (parts, script)) in names.iter().zip(stages) {
            let parts: String = parts.iter().map(|part| format!(", {part}")).collect();
            text.push_str(&format!("{name}: {{script: {}{parts}}}\n", serde_json::json!(script)));
        }
        text
    })
}

#[test]
fn endless_repetition_never_panics() {
    for piece in PIECES
        .iter()
        .chain(&["- |\n", "a:\n", "- a\n", "{a: ", "[a, ", "[],", "<<: {}\n", "a: b: ", "&a *a "])
    {
        check(piece.repeat(20_000 / piece.len()).as_bytes());
        check(format!("image: a\nprepare:\n  script:\n    - {}", piece.repeat(2_000)).as_bytes());
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(text in manifests()) {
        // A template of a variable that this manifest has not is the one error that can come out.
        match Manifest::parse(text.as_bytes(), "f") {
            Ok((manifest, _)) => {
                plan(&manifest);
                let printed = print(&manifest);
                let (again, _) = Manifest::parse(printed.as_bytes(), "f").expect(&printed);
                prop_assert_eq!(&again, &manifest, "{}\n{}", text, printed);
            }
            Err(problems) => {
                prop_assert!(problems.items.iter().all(|item| item.severity == Severity::Warning || item.message.contains("nothing has the name")), "{}\n{}", text, problems);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        check(text.as_bytes());
    }

    #[test]
    fn pieces_of_yaml_never_panic(pieces in vec(select(&PIECES[..]), 0..60)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn a_damaged_manifest_never_panics(
        damage in vec((0..VALID.len(), 0..6_usize, select(&PIECES[..])), 1..8),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, removed, piece) in damage {
            let at = at.min(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        check(&bytes);
    }
}
