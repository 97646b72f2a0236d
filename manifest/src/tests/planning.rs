//! What a manifest becomes for an event: jobs, stages, their variables, order, and why one is skipped.

use std::collections::BTreeMap;

use crate::{
    Context, Decision, Job, Manifest, Plan, PlannedStage, Start, Status, Trigger, VarMap, VarName, glob::Work,
};

#[track_caller]
fn parse(text: &str) -> Manifest {
    match Manifest::parse(format!("image: a\n{text}").as_bytes(), ".buildr.yml") {
        Ok((manifest, _)) => manifest,
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

#[track_caller]
fn plan(text: &str, context: &Context) -> Plan {
    match parse(text).plan(context) {
        Ok(plan) => plan,
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

fn event(trigger: Trigger) -> Context {
    Context { trigger, branch: Some("main".to_owned()), tag: Some("v1".to_owned()), ..Context::default() }
}

fn push(branch: &str) -> Context {
    Context { trigger: Trigger::Push, branch: Some(branch.to_owned()), ..Context::default() }
}

fn changed(paths: &[&str]) -> Context {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Context { changed_paths: Some(paths), ..push("main") }
}

/// Why the stage `a` with these conditions is skipped; none where it runs.
#[track_caller]
fn skipped(when: &str, context: &Context) -> Option<String> {
    let text = format!("stages: [a]\na:\n  script: [x]\n  when: {when}\n");
    plan(&text, context).jobs[0].stages[0].skipped().map(str::to_owned)
}

fn name(text: &str) -> VarName {
    VarName::new(text).expect("a variable's name")
}

fn value<'j>(job: &'j Job, stage: usize, variable: &str) -> Option<&'j str> {
    job.stages[stage].variables.get(&name(variable))
}

/// The names of the stages that a stage waits for.
fn waits<'p>(plan: &'p Plan, stage: &str) -> Vec<&'p str> {
    let at = plan.manifest.stages.iter().position(|s| &*s.name == stage).expect("a stage");
    let waits = plan.jobs[0].waits_for(&plan.manifest.order, at);
    waits.into_iter().map(|at| &*plan.manifest.stages[at].name).collect()
}

#[test]
fn conditions_hold_or_say_why_not() {
    let pull = Context { target: Some("main".to_owned()), ..event(Trigger::PullRequest) };
    let cron = Context { cron: Some("nightly".to_owned()), ..event(Trigger::Cron) };
    for (when, context, why) in [
        ("{branch: main}", push("main"), None),
        ("{branch: [dev, 'feature/**']}", push("feature/a/b"), None),
        ("{branch: dev}", push("main"), Some("the branch is `main`, and `branch` asks for `dev`")),
        ("{branch: '!main'}", push("main"), Some("the branch is `main`, and `branch` asks for `!main`")),
        (
            "{branch: main}",
            event(Trigger::Tag),
            Some("there is no branch (the event is `tag`), and `branch` asks for `main`"),
        ),
        (
            "{branch: '!x'}",
            pull.clone(),
            Some("there is no branch (the event is `pull_request`), and `branch` asks for `!x`"),
        ),
        ("{tag: 'v*'}", event(Trigger::Tag), None),
        (
            "{tag: 'v*'}",
            event(Trigger::Push),
            Some("there is no tag (the event is `push`), and `tag` asks for `v*`"),
        ),
        ("{target: main}", pull, None),
        (
            "{event: [push, tag]}",
            event(Trigger::Cron),
            Some("the event is `cron`, and `event` asks for `push`, `tag`"),
        ),
        ("{event: '!cron'}", event(Trigger::Push), None),
        ("{cron: night*}", cron, None),
        ("{branch: main, event: tag}", push("main"), Some("the event is `push`, and `event` asks for `tag`")),
        ("[{branch: dev}, {event: push}]", push("main"), None),
        (
            "[{branch: dev}, {event: tag}]",
            push("main"),
            Some(
                "the branch is `main`, and `branch` asks for `dev`; the event is `push`, and `event` asks for `tag`",
            ),
        ),
        ("always", push("x"), None),
    ] {
        assert_eq!(skipped(when, &context).as_deref(), why, "{when}");
    }
}

#[test]
fn paths_are_held_against_what_was_changed() {
    let when = "{paths: ['src/**', '!src/docs/**']}";
    assert_eq!(skipped(when, &changed(&["x", "src/a.rs"])), None);
    let why = skipped(when, &changed(&["src/docs/a.md"])).expect("skipped");
    assert!(why.starts_with("only `src/docs/a.md` was changed, and"), "{why}");
    assert!(skipped(when, &changed(&["x", "y"])).is_some_and(|why| why.contains("2 changed files")));
    assert!(skipped(when, &changed(&[])).is_some_and(|why| why.contains("no file was changed")));
    assert_eq!(skipped(when, &push("main")), None, "nothing to compare with");
    let tag = Context { trigger: Trigger::Tag, ..changed(&["x"]) };
    assert_eq!(skipped(when, &tag), None, "a tag is compared with nothing");
}

#[test]
fn a_condition_reads_the_variables_of_its_stage() {
    let text = "environment: {A: manifest}\nmatrix: {B: [one]}\nstages: [a]\n\
        a: {script: [x], environment: {C: own}, when: {var: {A: manifest, B: 'o*', C: own}}}\n";
    assert_eq!(plan(text, &push("main")).jobs[0].stages[0].skipped(), None);
    let given = Context { vars: vec![(name("C"), "given".to_owned())], ..push("main") };
    let planned = plan(text, &given);
    let stage = &planned.jobs[0].stages[0];
    assert_eq!(stage.skipped(), Some("the variable `C` is `given`, and `var` asks for `own`"));
    assert_eq!(
        skipped("{var: {GONE: '**'}}", &push("main")).as_deref(),
        Some("the variable `GONE` is not set, and `var` asks for `**`")
    );
}

#[test]
fn what_is_handed_over_can_change_a_decision() {
    let text = "stages: [a]\na: {script: [x], when: {var: {DEPLOY: 'yes'}}}\n";
    let planned = plan(text, &push("main"));
    let stage = &planned.jobs[0].stages[0];
    assert!(stage.reads_variables() && stage.skipped().is_some());
    let handed_over = VarMap::from([(name("DEPLOY"), "yes".to_owned())]);
    assert_eq!(stage.decide(&handed_over), Decision::Run(Status::SUCCESS));
}

#[test]
fn a_status_is_that_of_the_entries_that_hold() {
    for (when, status) in [
        ("always", Status::ALWAYS),
        ("{status: [success, failure]}", Status::ALWAYS),
        ("failure", Status::FAILURE),
        ("[{branch: main}, {branch: dev, status: always}]", Status::SUCCESS),
        ("[{branch: main}, {event: push, status: failure}]", Status::ALWAYS),
    ] {
        let text = format!("stages: [b, a]\nb: {{script: [x]}}\na: {{script: [x], when: {when}}}\n");
        assert_eq!(plan(&text, &push("main")).jobs[0].stages[1].decision, Decision::Run(status), "{when}");
    }
}

#[test]
fn skipped_stages_are_transparent() {
    let text = "stages: [a, b, c, d]\na: {script: [x]}\nb: {script: [x], needs: [a], when: {branch: dev}}\n\
        c: {script: [x], needs: [b]}\nd: {script: [x], needs: []}\n";
    let planned = plan(text, &push("main"));
    assert_eq!(waits(&planned, "c"), ["a"]);
    assert!(waits(&planned, "d").is_empty() && waits(&planned, "b") == ["a"]);
}

#[test]
fn everything_waits_for_prepare_and_a_stage_without_needs_for_all() {
    let text = "stages: [a, b, c]\nprepare: {script: [x]}\na: {script: [x]}\nb: {script: [x], needs: []}\nc: {script: [x]}\n";
    let planned = plan(text, &push("main"));
    assert_eq!((waits(&planned, "b"), waits(&planned, "c")), (vec!["prepare"], vec!["a", "b"]));
    assert_eq!(planned.manifest.order.rounds(), [vec![0], vec![1, 2], vec![3]]);
}

#[test]
fn variables_win_in_the_order_of_the_page() {
    let text = "environment: {inherit: [P*], vars: {B: manifest, C: manifest, D: manifest, E: manifest}}\n\
        matrix: {D: [matrix], E: [matrix]}\nstages: [a]\na: {script: [x], environment: {E: own, F: own}}\n";
    let process =
        BTreeMap::from([("PA".to_owned(), "inherited".to_owned()), ("X".to_owned(), "no".to_owned())]);
    let vars = vec![(name("F"), "given".to_owned())];
    let planned = plan(text, &Context { process_environment: process, vars, ..push("main") });
    let job = &planned.jobs[0];
    let handed_over = VarMap::from([(name("C"), "handed".to_owned()), (name("D"), "handed".to_owned())]);
    let all = job.stages[0].variables.resolve(&handed_over);
    let all: Vec<(&str, &str)> = all.iter().map(|(name, value)| (&**name, value.as_str())).collect();
    let expected = [
        ("B", "manifest"),
        ("C", "handed"),
        ("CI", "true"),
        ("D", "matrix"),
        ("E", "own"),
        ("F", "given"),
        ("PA", "inherited"),
    ];
    assert_eq!(all, expected);
    assert_eq!((value(job, 0, "C"), value(job, 0, "X")), (Some("manifest"), None));
}

#[test]
fn the_shapes_of_environment_mean_the_same() {
    let shapes = [
        "environment: [A=1, B, 'C=x y']",
        "environment: {A: 1, B: , C: x y}",
        "environment: {vars: [A=1, B, 'C=x y']}",
        "environment: {inherit: false, vars: {A: 1, B: ~, C: x y}}",
    ];
    let process = BTreeMap::from([("B".to_owned(), "b".to_owned())]);
    for shape in shapes {
        let context = Context { process_environment: process.clone(), ..push("main") };
        let text = format!(
            "{shape}\nstages: [a]\nservices: {{db: {{image: x, {shape}}}}}\na: {{script: [x], {shape}}}\n"
        );
        let planned = plan(&text, &context);
        let job = &planned.jobs[0];
        for (variable, expected) in [("A", "1"), ("B", "b"), ("C", "x y")] {
            assert_eq!(value(job, 0, variable), Some(expected), "{shape}");
            assert_eq!(job.services[0].variables.get(&name(variable)).map(String::as_str), Some(expected));
        }
        assert_eq!(job.services[0].variables.len(), 3, "a service has only its own");
    }
}

#[test]
fn scalars_keep_their_source_text() {
    let planned = plan(
        "environment: {V: 1.80, O: 0755, Y: yes, T: 12:30, N: 'null', F: 1e3, E: ''}\nmatrix: {RUST: [1.80, 0755]}\nprepare: {script: [x]}\n",
        &push("main"),
    );
    let job = &planned.jobs[1];
    for (variable, expected) in [
        ("V", "1.80"),
        ("O", "0755"),
        ("Y", "yes"),
        ("T", "12:30"),
        ("N", "null"),
        ("F", "1e3"),
        ("E", ""),
        ("RUST", "0755"),
    ] {
        assert_eq!(value(job, 0, variable), Some(expected));
    }
}

#[test]
fn a_matrix_has_a_job_for_each_combination() {
    let text = "matrix:\n  RUST: ['1.80', stable]\n  DB: [postgres, sqlite]\n  exclude: [{RUST: '1.80', DB: sqlite}]\n  \
        include: [{RUST: nightly, DB: sqlite, EXPERIMENTAL: '1'}, {RUST: stable, EXTRA: x}]\n  allow_failure: [{RUST: nightly}]\n\
        prepare: {script: [x]}\n";
    let planned = plan(text, &push("main"));
    let jobs: Vec<_> =
        planned.jobs.iter().map(|job| (job.number, job.name.as_str(), job.allow_failure)).collect();
    let expected = [
        (1, "1.80-postgres", false),
        (2, "stable-postgres", false),
        (3, "stable-sqlite", false),
        (4, "nightly-sqlite-1", true),
    ];
    assert_eq!(jobs, expected);
}

#[test]
fn a_matrix_of_included_jobs_alone_works() {
    let text = "matrix: {include: [{GOOS: linux, GOARCH: amd64}, {GOOS: darwin, GOARCH: arm64}]}\nprepare: {script: [x]}\n";
    let planned = plan(text, &push("main"));
    assert_eq!(planned.jobs.iter().map(|job| job.values.len()).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn what_include_added_is_not_extended() {
    let text =
        "matrix: {R: [s], include: [{R: n, X: '1'}, {R: n, X: '2'}, {Y: '3'}]}\nprepare: {script: [x]}\n";
    let planned = plan(text, &push("main"));
    let jobs: Vec<_> = planned.jobs.iter().map(|job| (job.name.as_str(), job.values.len())).collect();
    assert_eq!(jobs, [("s", 2), ("n-1", 2), ("n-2", 2)]);
}

#[test]
fn templates_are_filled_per_job_and_stage() {
    let text = "environment: {PG: '16', V: outer}\nmatrix: {RUST: ['1.80']}\nagent: {rust: '${RUST}'}\n\
        services: ['postgres:${PG}']\ncache: {key: 'c-${os}-${checksum:Cargo.lock}', restore_keys: ['c-${branch}'], paths: [target]}\n\
        concurrency: 'deploy-${branch}'\nstages: [a]\na:\n  script: ['echo ${V}']\n  image: tool:${V}\n  workdir: sub/${V}\n  \
        environment: {V: inner}\n  artifacts: {paths: [x], name: 'app-${job}-${commit}'}\n";
    let context = Context { commit: Some("abc".to_owned()), ..push("main") };
    let planned = plan(&text.replace("image: a\n", ""), &context);
    let job = &planned.jobs[0];
    assert_eq!(job.agent["rust"].known(), Some("1.80"));
    assert_eq!(
        (&*job.services[0].service.name, job.services[0].image.known()),
        ("postgres", Some("postgres:16"))
    );
    assert_eq!(job.cache[0].key.to_string(), "c-${os}-${checksum:Cargo.lock}");
    assert_eq!(job.cache[0].restore_keys[0].known(), Some("c-main"));
    assert_eq!(job.concurrency.as_ref().and_then(|(group, _)| group.known()), Some("deploy-main"));
    let stage = &job.stages[0];
    assert_eq!(stage.image.as_ref().and_then(|image| image.known()), Some("tool:inner"));
    assert_eq!(stage.workdir.as_ref().and_then(|workdir| workdir.known()), Some("sub/inner"));
    assert_eq!(stage.artifact_name.as_ref().and_then(|name| name.known()), Some("app-1.80-abc"));
    assert_eq!(stage.stage.script, ["echo ${V}"], "a script is the shell's");
}

#[test]
fn events_start_a_build_or_say_why_not() {
    let on = "on:\n  push: {branches: [main, 'release/**'], paths: ['src/**']}\n  tag: {tags: ['v*']}\n  \
        cron: [{name: nightly, schedule: '0 3 * * *'}]\nprepare: {script: [x]}\n";
    let nightly = |name: &str| Context { cron: Some(name.to_owned()), ..event(Trigger::Cron) };
    for (context, why) in [
        (push("main"), None),
        (changed(&["src/a"]), None),
        (changed(&["docs/a"]), Some("only `docs/a` was changed, and `paths` asks for `src/**`")),
        (push("dev"), Some("the branch is `dev`, and `branches` asks for `main`, `release/**`")),
        (event(Trigger::Tag), None),
        (event(Trigger::PullRequest), Some("`on` does not name the event `pull_request`")),
        (nightly("nightly"), None),
        (nightly("weekly"), Some("`on` has no schedule `weekly`")),
        (event(Trigger::Manual), None),
        (event(Trigger::Local), None),
    ] {
        let expected = why.map_or(Start::Yes, |why| Start::No { why: why.to_owned() });
        assert_eq!(plan(on, &context).start, expected, "{context:?}");
    }
    assert_eq!(plan("prepare: {script: [x]}\n", &event(Trigger::PullRequest)).start, Start::Yes);
    for (short, starts) in [("push", true), ("[push, tag]", true), ("tag", false), ("[manual]", false)] {
        let text = format!("on: {short}\nprepare: {{script: [x]}}\n");
        assert_eq!(plan(&text, &push("main")).start == Start::Yes, starts, "{short}");
    }
}

#[test]
fn what_the_engine_can_do_is_not_refused() {
    let text = "environment: {inherit: [P*], vars: {A: 1}}\non: [push]\ntimeout: 5m\nfail_fast: true\nx-own: 1\n\
        shell: bash\nclone: {depth: 1}\ndocker: false\nresources: {cpus: 1}\n\
        matrix: {RUST: [stable]}\nstages: [a, b, c]\nprepare: {script: [p]}\na: {script: [x], needs: [prepare]}\n\
        b: {script: [y], image: 'other:${arch}', needs: [], when: {branch: dev}, artifacts: [skipped]}\n\
        c: {script: [z], environment: {A: b}, timeout: 1m, retry: 1, allow_failure: true, workdir: x, user: x, when: always}\n";
    let plan = plan(text, &push("main")).supported().expect("nothing new");
    assert_eq!(plan.job.image.known(), Some("a:latest"));
    let skips: Vec<_> = plan.job.stages.iter().map(PlannedStage::skipped).collect();
    assert_eq!(skips, [None, None, Some("the branch is `main`, and `branch` asks for `dev`"), None]);
}

#[test]
fn what_the_engine_can_not_do_is_refused_and_not_ignored() {
    for text in
        ["cache: {key: a, paths: [b]}", "matrix: {A: [a, b]}", "matrix: {A: [a], allow_failure: [{A: a}]}"]
    {
        let planned = plan(&format!("{text}\nprepare: {{script: [x]}}\n"), &push("main"));
        assert_eq!(planned.supported().expect_err(text).items.len(), 1, "{text}");
    }
    for stage in ["artifacts: [x]", "reports: {junit: x}", "when: {var: {A: b}}, artifacts: [x]"] {
        let text = format!("stages: [a, b]\na: {{script: [x]}}\nb: {{script: [x], {stage}}}\n");
        assert_eq!(plan(&text, &push("main")).supported().expect_err(stage).items.len(), 1, "{stage}");
    }
}

#[test]
fn hostile_conditions_are_an_error_and_end_soon() {
    let globs: Vec<String> = (0..100).map(|i| format!("'{}b{i}'", "**a".repeat(150))).collect();
    let text = format!("stages: [a]\na: {{script: [x], when: {{paths: [{}]}}}}\n", globs.join(", "));
    let paths: Vec<String> = (0..500).map(|i| format!("{}{i}", "a".repeat(1000))).collect();
    let context = Context { changed_paths: Some(paths), ..push("main") };
    let problems = parse(&text).plan_within(&context, Work::new(100_000)).expect_err("too much to compare");
    assert!(problems.items[0].message.contains("take too long"));
}

#[test]
fn a_template_never_grows_beyond_bounds() {
    let text = format!(
        "environment: {{X: {}}}\nconcurrency: '{}'\nprepare: {{script: [x]}}\n",
        "x".repeat(400),
        "${X}".repeat(100)
    );
    let problems = parse(&text).plan(&push("main")).expect_err("too long");
    assert!(problems.items[0].message.contains("longer than 512 bytes"));
}

/// The example of every key, as it was published.
const EVERY_KEY: &str = r##"image: 'dockerimage:tag'
stages: [build, test, lint, cleanup]
build: {script: [make]}
environment: {FOO: bar, PORT: 8080}     # three shapes, everywhere the same: list, {inherit, vars}, flat mapping; mixing is an error
  # inherit: [HTTP_PROXY, "MAVEN_*"]    # besides true/false: names and globs; vars: a list or a mapping; `NAME:` (null) is the bare form
timeout: 45m                            # of a job; default 60m, capped by the agent; also per stage. 90s, 10m, 1h30m; a bare number is an error
shell: bash                             # also per stage: sh (default, -e) | bash (-eo pipefail) | [cmd, args...] for another POSIX shell
clone: {depth: 1, submodules: true, lfs: false}      # default: full history and tags, no submodules
agent: {os: linux, gpu: "true"}         # labels that the agent must have
retry: {times: 1, when: [agent_lost]}   # of a whole job, for infrastructure outcomes
fail_fast: true                         # stages: end the side-by-side ones when one fails (default: let them finish)
resources: {cpus: 2, memory: 4GiB, pids: 2000}       # of the container; also for a stage with its own image
docker: false                           # don't mount the socket; also per stage with its own image. It can only narrow what the operator allows
matrix:
  RUST: ["1.80", stable]                # axes in capitals: one job per combination (first axis slowest), values become variables
  DB: [postgres, sqlite]
  exclude: [{RUST: "1.80", DB: sqlite}]
  include: [{RUST: nightly, DB: sqlite, EXPERIMENTAL: "1"}]   # agrees with a combination on all its axes: extends it; else adds one
  allow_failure: [{RUST: nightly}]
  fail_fast: false
  max_parallel: 4
services:
  db: {image: "postgres:16", environment: {POSTGRES_PASSWORD: x}, command: [postgres, -c, fsync=off], ready: "pg_isready -U postgres", timeout: 30s}
  # short: services: ["redis:7"]; reachable by name; they start before `prepare`, and one that does not get ready is an infrastructure outcome
cache:
  - {key: "cargo-${checksum:Cargo.lock}", restore_keys: ["cargo-"], paths: [target, ~/.cargo/registry], save: success}
on:                                     # which events start a build; default: all. `submit` and `run` always start. Short: on: push / on: [push, tag]
  push: {branches: [main, "release/**"], paths: ["src/**", "!docs/**"]}
  tag: {tags: ["v*"]}
  pull_request:
  cron: [{name: nightly, schedule: "0 3 * * *", branch: main}]      # UTC
concurrency: {group: "deploy-${branch}", cancel: none}      # none: wait, one at a time | queued: newer replaces waiting | running: also ends the running one
test:
  needs: [build]
  script: [cargo test]
  when: {branch: [main, "feature/**"], event: [push], paths: ["src/**"], var: {RUST: stable}, status: success}
  timeout: 10m                          # ends exactly this stage's processes
  retry: {times: 2, when: [failed, timed_out], exit_codes: [42], backoff: 5s}   # short: retry: 2 (extra tries)
  allow_failure: true                   # or {exit_codes: [77]}; counts as passed for those that need it
  artifacts: {paths: ["target/release/app", dist/], name: app, when: success, expire_in: 30d, required: true}   # short: artifacts: [dist/]
  reports: {junit: ["**/junit*.xml"]}   # collected after a failure too
lint:
  script: [lint]
  image: other/tool:1                   # a container of its own: same workspace, not what `prepare` installed
  workdir: sub/dir                      # below the workspace
  user: "1000:1000"
cleanup:
  when: always                          # = {status: always}
  script: ["./teardown.sh $BUILDR_STATUS"]
"##;

#[test]
fn every_key_has_its_place() {
    let (manifest, warnings) =
        Manifest::parse(EVERY_KEY.as_bytes(), ".buildr.yml").unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(warnings, []);
    let context = Context { vars: vec![(name("RUST"), "stable".to_owned())], ..push("main") };
    let planned = manifest.plan(&context).unwrap_or_else(|problems| panic!("{problems}"));
    let jobs: Vec<(&str, bool)> =
        planned.jobs.iter().map(|job| (job.name.as_str(), job.allow_failure)).collect();
    let expected = [
        ("1.80-postgres", false),
        ("stable-postgres", false),
        ("stable-sqlite", false),
        ("nightly-sqlite-1", true),
    ];
    assert_eq!(jobs, expected);
    let states: Vec<_> = planned.jobs[1].stages.iter().map(|stage| stage.decision.clone()).collect();
    let runs = Decision::Run(Status::SUCCESS);
    assert_eq!(states, [runs.clone(), runs.clone(), runs, Decision::Run(Status::ALWAYS)]);
    assert_eq!((waits(&planned, "test"), waits(&planned, "cleanup")), (vec!["build"], vec!["lint"]));
    assert!(planned.supported().is_err());
}
