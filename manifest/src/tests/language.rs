//! The rules of the language, each with manifests that obey it.

use std::{collections::BTreeMap, time::Duration};

use crate::{Context, Inherit, JobPlan, Manifest, VarMap, VarName};

const ORIGINAL: &str = "\
image: 'dockerimage:tag'
environment:
  inherit: false
  vars:
    - FOO=BAR
    - API_KEY=something
stages:
  - build
  - deploy
prepare:
  script:
    - apk add -U git
build:
  script:
    - ./mvnw package
deploy:
  script:
    - docker push registry.example/app
";

/// A valid manifest without a warning.
#[track_caller]
fn parse(text: &str) -> Manifest {
    let (manifest, warnings) = parse_loud(text);
    assert_eq!(warnings, Vec::<String>::new(), "{text}");
    manifest
}

/// A valid manifest with its warnings.
#[track_caller]
fn parse_loud(text: &str) -> (Manifest, Vec<String>) {
    match Manifest::parse(text.as_bytes(), ".buildr.yml") {
        Ok((manifest, warnings)) => (manifest, warnings.into_iter().map(|w| w.message).collect()),
        Err(problems) => panic!("{text}\n{problems}"),
    }
}

/// The messages of a manifest that is not valid.
#[track_caller]
fn refuse(text: impl AsRef<[u8]>) -> Vec<String> {
    let problems = Manifest::parse(text.as_ref(), ".buildr.yml").expect_err("an error");
    problems.items.into_iter().map(|item| item.message).collect()
}

/// The names of the stages, in order.
fn names(manifest: &Manifest) -> Vec<&str> {
    manifest.stages.iter().map(|stage| &*stage.name).collect()
}

/// The script of `prepare`, the lines given below `script:`.
#[track_caller]
fn script(lines: &str) -> Vec<String> {
    parse(&format!("image: a\nprepare:\n  script:{lines}")).stages[0].script.clone()
}

fn name(text: &str) -> VarName {
    VarName::new(text).expect("a variable's name")
}

/// The last value of each variable, as the container sees it.
fn effective(plan: &JobPlan) -> BTreeMap<String, String> {
    let variables = plan.job.variables.resolve(&VarMap::new());
    variables.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// The plan of a manifest that the engine can carry out.
#[track_caller]
fn carried_out(manifest: &Manifest, context: &Context) -> (JobPlan, Vec<String>) {
    let plan = manifest.plan(context).expect("values that fit");
    match plan.supported() {
        Ok(job) => (job, plan.warnings),
        Err(problems) => panic!("{problems}"),
    }
}

fn map<const N: usize>(variables: [(&str, &str); N]) -> BTreeMap<String, String> {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn context(process: &[(&str, &str)]) -> Context {
    let process_environment = process.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Context { process_environment, ..Context::default() }
}

/// A plan for the given lines of `environment`.
#[track_caller]
fn plan(environment: &str, context: &Context) -> (JobPlan, Vec<String>) {
    carried_out(&parse(&format!("image: a\nprepare: {{script: [x]}}\nenvironment:\n{environment}")), context)
}

#[test]
fn the_original_manifest_means_what_it_meant() {
    let manifest = parse(ORIGINAL);
    let (plan, warnings) = carried_out(&manifest, &context(&[("SECRET", "x")]));
    assert!(warnings.is_empty());
    assert_eq!(plan.job.image.known(), Some("dockerimage:tag"));
    assert_eq!(plan.manifest.timeout, Duration::from_secs(3600));
    let stages = plan.job.stages.iter().map(|planned| &planned.stage);
    let stages: Vec<_> = stages.map(|s| (&*s.name, s.script.as_slice())).collect();
    assert_eq!(stages[0], ("prepare", ["apk add -U git".to_owned()].as_slice()));
    assert_eq!(stages[1], ("build", ["./mvnw package".to_owned()].as_slice()));
    assert_eq!(stages[2], ("deploy", ["docker push registry.example/app".to_owned()].as_slice()));
    let environment: Vec<_> = effective(&plan).into_iter().collect();
    let expected = [("API_KEY", "something"), ("CI", "true"), ("FOO", "BAR")];
    assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn prepare_runs_first_wherever_it_stands() {
    let cases = [
        (
            "stages: [a, b]\nb: {script: [x]}\na: {script: [x]}\nprepare: {script: [x]}\n",
            vec!["prepare", "a", "b"],
        ),
        ("stages: [a, prepare]\na: {script: [x]}\nprepare: {script: [x]}\n", vec!["prepare", "a"]),
        ("prepare: {script: [x]}\n", vec!["prepare"]),
        ("stages: []\nprepare: {script: [x]}\n", vec!["prepare"]),
        ("stages:\nprepare: {script: [x]}\n", vec!["prepare"]),
        ("stages: [b, a]\nb: {script: [x]}\na: {script: [x]}\n", vec!["b", "a"]),
    ];
    for (text, expected) in cases {
        assert_eq!(names(&parse(&format!("image: a\n{text}"))), expected, "{text}");
    }
}

#[test]
fn a_listed_prepare_must_be_defined() {
    let messages = refuse("image: a\nstages: [prepare, a]\na: {script: [x]}\n");
    assert_eq!(messages, ["no stage `prepare` is defined"]);
}

#[test]
fn an_entry_of_a_script_is_its_very_characters() {
    let cases = [
        ("\n    - 1.80\n", "1.80"),
        ("\n    - 0755\n", "0755"),
        ("\n    - yes\n", "yes"),
        ("\n    - true\n", "true"),
        ("\n    - 12:30\n", "12:30"),
        ("\n    - 0x1F\n", "0x1F"),
        ("\n    - .nan\n", ".nan"),
        ("\n    - 1_000\n", "1_000"),
        ("\n    - 2024-01-01\n", "2024-01-01"),
        ("\n    - make   all  # comment\n", "make   all"),
        ("\n    - echo \"$A\" '$B' \\n\n", "echo \"$A\" '$B' \\n"),
        ("\n    - 'it''s'\n", "it's"),
        ("\n    - \"a\\tb\"\n", "a\tb"),
        ("\n    - 'null'\n", "null"),
        ("\n    - !!str null\n", "null"),
        ("\n    - a\n      b\n", "a b"),
        ("\n    - |\n      a\n        b\n\n      c\n", "a\n  b\n\nc\n"),
        ("\n    - |-\n      a\n      b\n", "a\nb"),
        ("\n    - >-\n      a &&\n      b\n", "a && b"),
        (" make\n", "make"),
        (" |\n    a\n    b\n", "a\nb\n"),
        ("\n  - not indented\n", "not indented"),
        (" [\"make\"]\n", "make"),
    ];
    for (lines, expected) in cases {
        assert_eq!(script(lines), [expected], "{lines}");
    }
}

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_change_nothing() {
    let unix = format!("{ORIGINAL}x-note: |\n  a\n  b\n")
        .replace("- ./mvnw package", "- |\n      one\n      two\n    - three");
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    assert_eq!(parse(&windows), parse(&unix));
    assert!(parse(&windows).stages.iter().flat_map(|s| &s.script).all(|entry| !entry.contains('\r')));
    let problems =
        Manifest::parse("\u{feff}image: a\r\nprepare: {script: [x]}\r\nfoo: 1\r\n".as_bytes(), "f");
    let problems = problems.expect_err("an unknown key");
    assert_eq!((problems.items[0].line, problems.items[0].column), (3, 1));
    assert_eq!(problems.items[0].source_line.as_deref(), Some("foo: 1"));
}

#[test]
fn keys_of_ones_own_are_ignored() {
    parse(
        "image: a\nx-any: [1, {a: b}]\n.hidden: {script: [x]}\nx-stage: {script: [x]}\nprepare: {script: [x]}\n",
    );
}

#[test]
fn anchors_and_merge_keys_work() {
    let text = "image: a\nx-base: &base\n  script: &lines\n    - one\n    - two\nstages: [a, b, c, d]\n\
        a: *base\nb: {script: *lines}\nc: {<<: *base}\nd:\n  <<: [*base, {script: [never]}]\n  script: [own]\n";
    let manifest = parse(text);
    let scripts: Vec<_> = manifest.stages.iter().map(|stage| stage.script.join(" ")).collect();
    assert_eq!(scripts, ["one two", "one two", "one two", "own"]);
}

#[test]
fn a_listed_name_is_a_stage_even_if_a_key_has_it() {
    for key in ["cache", "timeout", "matrix", "on", "secrets", "x-y", ".z"] {
        let (manifest, warnings) =
            parse_loud(&format!("image: a\nstages: [{key}]\n{key}: {{script: [x]}}\n"));
        assert_eq!(names(&manifest), [key]);
        assert_eq!(warnings.len(), usize::from(!key.starts_with(['x', '.'])), "{key}");
        assert_eq!(manifest.timeout, Manifest::DEFAULT_TIMEOUT);
    }
}

#[test]
fn reserved_words_are_refused() {
    for key in crate::vocabulary::Scope::Top.reserved() {
        let messages = refuse(format!("image: a\n{key}: x\nprepare: {{script: [x]}}\n"));
        assert_eq!(messages, [format!("`{key}` is not supported yet")]);
    }
    for key in crate::vocabulary::Scope::Stage.reserved() {
        let messages = refuse(format!("image: a\nprepare: {{script: [x], {key}: x}}\n"));
        assert_eq!(messages, [format!("`{key}` in a stage is not supported yet")]);
    }
}

#[test]
fn a_timeout_is_a_length_of_time() {
    let manifest = parse("image: a\ntimeout: 1h30m\nprepare: {script: [x]}\n");
    assert_eq!(carried_out(&manifest, &Context::default()).0.manifest.timeout, Duration::from_secs(5400));
    for bad in ["10", "0s", "1w", "soon", "[1h]", "''", "-5m"] {
        assert_eq!(refuse(format!("image: a\ntimeout: {bad}\nprepare: {{script: [x]}}\n")).len(), 1, "{bad}");
    }
}

#[test]
fn an_image_without_tag_or_digest_is_the_latest() {
    let cases = [
        ("alpine", "alpine:latest"),
        ("alpine:3.20", "alpine:3.20"),
        ("host:5000/app", "host:5000/app:latest"),
        ("host:5000/team/app:1", "host:5000/team/app:1"),
        ("app@sha256:0123456789abcdef", "app@sha256:0123456789abcdef"),
        ("host:5000/app:1@sha256:0123", "host:5000/app:1@sha256:0123"),
        ("localhost/app", "localhost/app:latest"),
        ("1.80", "1.80:latest"),
    ];
    for (image, expected) in cases {
        let manifest = parse(&format!("image: {image}\nprepare: {{script: [x]}}\n"));
        assert_eq!(manifest.image.to_string(), image);
        assert_eq!(carried_out(&manifest, &Context::default()).0.job.image.known(), Some(expected));
    }
}

#[test]
fn what_can_not_be_an_image_is_refused() {
    for image in
        ["a b", "''", "'app:'", "app@", "/app", "-app", "'a\"b'", "app:${V}", "[a]", "{name: a}", "~"]
    {
        assert_eq!(refuse(format!("image: {image}\nprepare: {{script: [x]}}\n")).len(), 1, "{image}");
    }
}

#[test]
fn values_are_literal() {
    let (plan, _) = plan(
        "  vars:\n    - FOO=a b=c $X ${Y}\n    - EMPTY=\n    - V=1.10\n    - \"Q='a' # b: c\"\n    - _x1=~\n",
        &context(&[("X", "no"), ("Y", "no")]),
    );
    let environment = effective(&plan);
    assert_eq!(environment["FOO"], "a b=c $X ${Y}");
    assert_eq!(environment["EMPTY"], "");
    assert_eq!(environment["V"], "1.10");
    assert_eq!(environment["Q"], "'a' # b: c");
    assert_eq!(environment["_x1"], "~");
}

#[test]
fn a_bare_name_takes_the_value_of_the_process() {
    let context = context(&[("TOKEN", "t=1"), ("PATH", "/host/bin")]);
    let (plan, warnings) = plan("  vars:\n    - TOKEN\n    - GONE\n    - PATH\n", &context);
    let environment = effective(&plan);
    assert_eq!(environment["TOKEN"], "t=1");
    assert_eq!(environment["PATH"], "/host/bin");
    assert!(!environment.contains_key("GONE"));
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("`GONE`"));
}

#[test]
fn inherit_passes_on_all_but_the_hosts_own_and_buildrs() {
    let host = [
        "PATH",
        "HOME",
        "PWD",
        "OLDPWD",
        "SHELL",
        "USER",
        "LOGNAME",
        "HOSTNAME",
        "SHLVL",
        "TERM",
        "_",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "SSH_AUTH_SOCK",
        "DOCKER_HOST",
        "BUILDR",
        "BUILDR_TOKEN",
        "BASH_FUNC_x%%",
    ];
    let mut process: Vec<_> = host.iter().map(|name| (*name, "host")).collect();
    process.extend([("HTTP_PROXY", "p"), ("PATHS", "q"), ("BUILDRS", "r"), ("CI", "false")]);
    let (inheriting, warnings) = plan("  inherit: true\n", &context(&process));
    let expected = map([("HTTP_PROXY", "p"), ("PATHS", "q"), ("BUILDRS", "r"), ("CI", "true")]);
    assert_eq!(effective(&inheriting), expected);
    assert!(warnings.is_empty());
    for quiet in ["  inherit: false\n", "  vars: []\n", ""] {
        let (plan, _) = plan(quiet, &context(&process));
        assert_eq!(effective(&plan), map([("CI", "true")]), "{quiet}");
    }
}

#[test]
fn the_last_source_of_a_variable_wins() {
    let mut context = context(&[("A", "process"), ("B", "process"), ("C", "process"), ("CI", "process")]);
    context.vars = vec![(name("C"), "given".to_owned()), (name("D"), "given".to_owned())];
    let (first, _) = plan("  inherit: true\n  vars: [B=manifest, C=manifest]\n", &context);
    let expected = [("A", "process"), ("B", "manifest"), ("C", "given"), ("CI", "true"), ("D", "given")];
    assert_eq!(effective(&first), map(expected));
    let (second, _) = plan("  vars: [CI=no]\n", &context);
    assert_eq!(effective(&second)["CI"], "no");
}

#[test]
fn nobody_sets_buildrs_own_variables() {
    let vars = vec![(name("BUILDR_STAGE"), "x".to_owned()), (name("BUILDR"), "x".to_owned())];
    let context = Context { vars, ..Context::default() };
    let (plan, warnings) = plan("  vars: []\n", &context);
    assert_eq!(effective(&plan), map([("CI", "true")]));
    assert_eq!(warnings.len(), 2);
    for entry in ["BUILDR=1", "BUILDR", "BUILDR_X=1", "BUILDR_TOKEN"] {
        let text = format!("image: a\nprepare: {{script: [x]}}\nenvironment: {{vars: [{entry}]}}\n");
        assert_eq!(refuse(text).len(), 1, "{entry}");
    }
}

#[test]
fn the_name_of_a_variable_is_checked() {
    for entry in ["1A=x", "A-B=x", "=x", "' A=x'", "A B=x", "Ä=x", "''", "A.B"] {
        let text = format!("image: a\nprepare: {{script: [x]}}\nenvironment: {{vars: [{entry}]}}\n");
        assert_eq!(refuse(text).len(), 1, "{entry}");
    }
}

#[test]
fn a_variable_set_twice_is_a_warning_and_the_last_wins() {
    let (manifest, warnings) =
        parse_loud("image: a\nprepare: {script: [x]}\nenvironment: {vars: [A=1, B=1, A=2, A]}\n");
    assert_eq!(warnings.len(), 2);
    assert_eq!(effective(&carried_out(&manifest, &Context::default()).0)["A"], "2");
}

#[test]
fn an_empty_environment_is_no_environment() {
    for text in ["environment:\n", "environment: {}\n", "environment: {vars: }\n"] {
        let manifest = parse(&format!("image: a\n{text}prepare: {{script: [x]}}\n"));
        assert_eq!((manifest.environment.inherit, manifest.environment.vars.len()), (Inherit::Nothing, 0));
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let messages = refuse(
        "image: a b\ntimeout: 5\nfoo: 1\nenvironment: {vars: [1=2]}\nstages: [x, y]\nx: {script: []}\n",
    );
    assert_eq!(messages.len(), 6, "{messages:#?}");
}

#[test]
fn the_limits_hold() {
    let filler = |bytes: usize| format!("image: a\nprepare: {{script: [x]}}\n# {}", "x".repeat(bytes));
    parse(&filler(1024 * 1024 - 100));
    assert!(refuse(filler(1024 * 1024))[0].contains("larger than 1 MiB"));
    let nested = |depth: usize| {
        format!("image: a\nprepare: {{script: [x]}}\nx-a: {}{}\n", "[".repeat(depth), "]".repeat(depth))
    };
    parse(&nested(31));
    for depth in [32, 33, 1000, 100_000] {
        assert_eq!(refuse(nested(depth)), ["lists and mappings are nested more than 32 deep"], "{depth}");
    }
    let block: String = (0..40).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert_eq!(refuse(block), ["lists and mappings are nested more than 32 deep"]);
}

#[test]
fn a_billion_laughs_are_not_laughed() {
    let mut text = "image: a\nx-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("x-{i}: &a{i} [{aliases}]\n"));
    }
    text.push_str("prepare: {script: [x]}\n");
    assert_eq!(refuse(text), ["the aliases up to here expand to more than 4 MiB"]);
}

#[test]
fn an_alias_can_not_stand_inside_of_its_anchor() {
    let messages = refuse("image: a\nprepare: &p\n  script: [x, *p]\n");
    assert_eq!(messages, ["the alias `*p` stands inside of its own anchor"]);
}

#[test]
fn nesting_through_aliases_counts() {
    let mut text = "image: a\nx-0: &a0 [x]\n".to_owned();
    for i in 1..40 {
        text.push_str(&format!("x-{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert_eq!(refuse(text), ["lists and mappings are nested more than 32 deep"]);
}
