//! What the reader of a bad manifest sees, by snapshot.

use crate::{Context, Diagnostics, Manifest, Severity};

/// The rendered problems, or the rendered warnings of a manifest that is valid.
fn shown(text: &str) -> String {
    match Manifest::parse(text.as_bytes(), ".buildr.yml") {
        Ok((_, warnings)) => format!("valid\n\n{}", Diagnostics::from(warnings)),
        Err(problems) => problems.to_string(),
    }
}

/// One snapshot per named manifest, the manifest above what is said of it.
macro_rules! snapshots {
    ($($name:ident: $text:expr,)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), shown($text), &$text);
        }
    )*};
}

snapshots! {
    an_empty_file_says_what_is_needed: "",
    a_file_of_comments_is_empty: "# image: alpine\n",
    a_list_at_the_top_is_no_manifest: "- build\n- test\n",
    two_documents_are_one_too_many: "---\nimage: a\nprepare: {script: [x]}\n---\nimage: b\n",
    a_tab_can_not_indent: "image: a\nprepare:\n\tscript:\n    - make\n",
    a_wrong_indentation_is_pointed_at: "image: a\nprepare:\n  script:\n  - a\n - b\n",
    an_unclosed_quote_is_pointed_at: "image: a\nprepare:\n  script:\n    - 'make\n    - test\n",
    an_unclosed_bracket_is_pointed_at: "image: a\nprepare:\n  script: [make\n",
    duplicate_keys_are_told_at_the_second: "image: a\nimage: b\nprepare: {script: x, script: y}\n",
    mistyped_keys_are_guessed: "imge: a\nstages: [biuld]\nenviroment: {vars: [A=b]}\nbuild:\n  scirpt: [make]\n",
    mistyped_stages_are_guessed: "image: a\nstages: [biuld]\nbuild: {script: [make]}\n",
    a_mistyped_list_of_stages_is_one_error: "image: a\nstage: [build]\nbuild: {script: [make]}\n",
    words_of_other_systems_are_translated: "container: a\nvariables: {A: b}\nbefore_script: [x]\nafter_script: [y]\n\
        jobs: {}\nruns-on: linux\nstrategy: {}\nrules: []\nstages: [build, test, lint]\n\
        build:\n  commands: [make]\n  depends_on: [x]\n  if: x\n  env: {A: b}\n  continue-on-error: true\n  \
        timeout-minutes: 5\n  runs-on: x\ntest: {steps: [x]}\nlint: {script: [x], run: y}\n",
    bad_variables_are_all_told: "image: a\nprepare: {script: [x]}\nenvironment:\n  inherit: yes\n  vars:\n    - A: b\n    \
        - A=1\n    - A=2\n    - BUILDR_X=1\n    - BUILDR\n    - 1X=5\n    - [a]\n    -\n    - =x\n",
    a_bad_list_of_stages_is_told_entry_by_entry: "image: a\nstages:\n  - test\n  - test\n  - image\n  - a/b\n  - {c: d}\n  - gone\n\
        test: {script: [make]}\n",
    one_name_is_no_list_of_stages: "image: a\nstages: build\nbuild: {script: [x]}\n",
    stages_that_nobody_lists_are_an_error: "image: a\nbuild: {script: [x]}\ntest: {script: [y]}\n",
    a_stage_that_is_not_listed_is_a_warning: "image: a\nstages: [build]\nbuild: {script: [x]}\ntest: {script: [y]}\n",
    nothing_to_run_is_an_error: "image: a\nstages: []\n",
    a_missing_image_is_an_error: "prepare: {script: [x]}\n",
    an_empty_image_is_an_error: "image:\nprepare: {script: [x]}\n",
    a_bad_image_says_why: "image: my image\nprepare: {script: [x]}\n",
    a_stage_needs_a_script: "image: a\nstages: [a, b, c, d]\na: {}\nb:\nc: [make]\nd: make\n",
    an_empty_script_is_an_error: "image: a\nstages: [a, b, c, d]\na: {script: []}\nb: {script: ''}\nc:\n  script:\nd:\n  script:\n    - make\n    -\n    - ''\n",
    a_colon_in_a_command_makes_a_mapping: "image: a\nprepare:\n  script:\n    - echo a: b\n",
    a_step_of_another_system_is_a_mapping: "image: a\nprepare:\n  script:\n    - name: Build\n      run: make\n",
    a_hash_in_a_command_cuts_it: "image: a\nprepare:\n  script:\n    - echo hi #x\n    - make # builds it\n",
    a_template_in_braces_must_be_quoted: "image: a\ncache: {key: cargo-${os}, paths: [target]}\nprepare: {script: [x]}\n",
    a_bracket_makes_a_list: "image: a\nprepare:\n  script:\n    - [ -f x ]\n    - [make, test]\n",
    a_bracket_and_more_is_no_yaml: "image: a\nprepare:\n  script:\n    - [ -f x ] && make\n",
    a_quote_and_more_is_no_yaml: "image: a\nprepare:\n  script:\n    - \"$X\" it's\n",
    a_bang_is_a_tag: "image: a\nprepare:\n  script:\n    - ! grep -q x file\n    - !important\n",
    a_star_is_an_alias: "image: a\nprepare:\n  script:\n    - *.sh\n",
    an_at_sign_is_reserved: "image: a\nprepare:\n  script:\n    - @make\n",
    a_backtick_is_reserved: "image: a\nprepare:\n  script:\n    - `which make`\n",
    a_percent_sign_is_reserved: "image: a\nprepare:\n  script:\n    - %make\n",
    a_list_in_the_list_is_an_error: "image: a\nx-common: &common\n  - a\n  - b\nprepare:\n  script:\n    - *common\n    - c\n",
    a_timeout_needs_a_unit: "image: a\ntimeout: 10\nprepare: {script: [x]}\n",
    a_stage_may_have_the_name_of_a_key: "image: a\nstages: [cache, timeout]\ncache: {script: [x]}\ntimeout: {script: [y]}\n",
    a_mistyped_prepare_is_guessed: "image: a\nstages: [b]\nPrepare: {script: [x]}\nb: {script: [x]}\n",
    a_mistyped_key_of_environment_is_guessed: "image: a\nenvironment: {inherti: true}\nprepare: {script: [x]}\n",
    a_stage_of_nothing_has_no_script: "image: a\nstages: [b]\nb:\n",
    a_hash_in_a_variable_cuts_it: "image: a\nenvironment:\n  vars:\n    - COLOR=#fff\n    - TITLE=build #1\nprepare: {script: [x]}\n",
    merge_keys_are_keys_too: "image: a\nx-a: &a {}\nprepare:\n  <<: *a\n  <<: *a\n  script: [x]\n",
    merging_text_is_an_error: "image: a\nprepare:\n  <<: make\n  script: [x]\n",
    a_missing_dash_makes_a_long_command: "image: a\nprepare:\n  script:\n    make\n    make test\n",
    a_dash_missing_in_a_list_is_pointed_at: "image: a\nprepare:\n  script:\n    - make\n    make test\n    - make install\n",
    a_script_that_is_not_indented_is_no_part_of_its_stage: "image: a\nstages: [build]\nbuild:\nscript:\n  - make\n",
    a_script_indented_too_far_is_pointed_at: "image: a\nprepare:\n  timeout: 5m\n    script:\n      - make\n",
    a_stage_called_image_is_refused: "image: a\nstages: [image]\nimage:\n  script: [docker build .]\n",
    a_stage_called_like_a_setting_must_be_listed: "image: a\nstages: [build]\nbuild: {script: [make]}\ncache:\n  script: [x]\n",
    line_ends_of_windows_are_no_problem: "image: a\r\nprepare:\r\n  scirpt:\r\n    - make\r\n",
    a_byte_order_mark_is_no_problem: "\u{feff}imge: a\nprepare: {script: [make]}\n",
    a_text_at_the_top_is_no_manifest: "hello\n",
    keys_in_the_wrong_place_are_told_where_they_belong: "image: a\nwhen: {branch: main}\nneeds: [x]\nworkdir: sub\nprepare:\n  \
        script: [x]\n  services: [redis]\n  cache: []\n  stage: build\n  extends: base\n  uses: actions/checkout\n",
    shapes_of_environment_do_not_mix: "image: a\nprepare: {script: [x]}\nenvironment:\n  inherit: true\n  FOO: bar\n  vars: [A=b]\n",
    bad_values_of_variables_are_told: "image: a\nprepare: {script: [x]}\nenvironment:\n  LIST: [a, b]\n  1X: y\n  BUILDR_X: z\n  COMPOSE_PROJECT_NAME: p\n",
    a_template_of_an_unknown_name_is_refused: "image: 'rust:${RSUT}'\nmatrix: {RUST: [stable]}\nprepare: {script: [x]}\n",
    bad_templates_say_why: "image: 'app:$TAG'\nconcurrency: 'deploy-${branch'\ncache:\n  - {key: 'c-${checksum}', paths: [x]}\n  \
        - {key: 'c-${checksum:../x}', paths: [x]}\n  - {key: '${commmit}', paths: ['../x']}\nprepare: {script: [x]}\n",
    bad_settings_are_all_told: "image: a\nshell: zsh\nclone: {depth: 0, submodules: yes, tags: true}\nagent: [linux]\n\
        retry: {times: 11, when: [failed]}\nfail_fast: 1\ndocker: off\nresources: {cpus: two, memory: 4G, pids: 0, disk: 1GiB}\n\
        concurrency: {cancel: newest}\ncache: {paths: [target]}\nprepare: {script: [x]}\n",
    bad_services_are_all_told: "image: a\nservices:\n  DB: postgres\n  db: {environment: {A: b}}\n  redis: {image: redis, ready: [ping], command: redis-server --save x}\n\
        prepare: {script: [x]}\n",
    services_in_a_list_need_distinct_names: "image: a\nservices: ['redis:6', 'redis:7', {name: postgres}, 'x/${os}']\nprepare: {script: [x]}\n",
    bad_events_are_told: "image: a\non: [push, merge_request, cron]\nprepare: {script: [x]}\n",
    bad_triggers_are_all_told: "image: a\non:\n  push: [main]\n  tag: {branches: [main]}\n  schedule: daily\n  manual: true\n  cron:\n    - {name: a, schedule: '0 25 * * *'}\n    \
        - {name: b, schedule: '* * *'}\n    - {schedule: '@daily'}\n    - {name: c, schedule: '0 0 31 2 *'}\nprepare: {script: [x]}\n",
    schedules_alone_turn_pushes_off: "image: a\non: {cron: [{name: nightly, schedule: '0 3 * * *'}]}\nprepare: {script: [x]}\n",
    a_matrix_of_too_many_jobs_is_refused: "image: a\nmatrix:\n  A: [a, b, c, d, e, f, g, h]\n  B: [a, b, c, d, e, f, g, h]\n  C: [a, b, c, d, e]\nprepare: {script: [x]}\n",
    bad_matrices_are_all_told: "image: a\nmatrix:\n  rust: [stable]\n  RUST: stable\n  DB: [a, a]\n  EMPTY: []\n  exclude: [{PG: x}]\n  include: {X: y}\n  max-parallel: 2\nprepare: {script: [x]}\n",
    entries_of_a_matrix_that_mean_nothing_are_told: "image: a\nmatrix:\n  RUST: [1.80, stable]\n  DB: [pg, lite]\n  exclude: [{RUST: 1.8}]\n  include: [{RUST: nightly}]\n  allow_failure: [{RUST: nightyl}]\nprepare: {script: [x]}\n",
    a_matrix_without_a_job_is_refused: "image: a\nmatrix:\n  A: [b]\n  exclude: [{A: b}]\nprepare: {script: [x]}\n",
    unknown_needs_are_guessed: "image: a\nstages: [build, test]\nbuild: {script: [x]}\ntest: {script: [x], needs: [biuld, deploy]}\ndeploy: {script: [x]}\n",
    a_cycle_is_shown: "image: a\nstages: [a, b, c]\na: {script: [x], needs: [c]}\nb: {script: [x], needs: [a]}\nc: {script: [x], needs: [b]}\n",
    a_cycle_through_a_stage_without_needs_says_how_to_mend_it: "image: a\nstages: [lint, build]\nlint: {script: [x], needs: [build]}\nbuild: {script: [x]}\n",
    a_stage_that_needs_itself_is_refused: "image: a\nstages: [a]\na: {script: [x], needs: a}\n",
    prepare_can_not_wait: "image: a\nstages: [a]\nprepare: {script: [x], needs: [a]}\na: {script: [x]}\n",
    bad_conditions_are_all_told: "image: a\nstages: [a, b, c, d, e, f]\na: {script: [x], when: manual}\nb: {script: [x], when: '$BRANCH == \"main\"'}\n\
        c: {script: [x], when: on_failure}\nd: {script: [x], when: {event: schedule, status: failed, brnach: main}}\n\
        e: {script: [x], when: {branch: ['[a'], paths: ['../x', '{a,b}'], var: {}}}\nf: {script: [x], when: []}\n",
    conditions_that_decide_nothing_are_told: "image: a\nmatrix: {RUST: [stable]}\nstages: [a, b, c, d, e, f]\n\
        a: {script: [x], when: {branch: main, event: tag}}\nb: {script: [x], when: {branch: main, target: main}}\n\
        c: {script: [x], when: {paths: ['**']}}\nd: {script: [x], when: {branch: ['!**']}}\ne: {script: [x], when: {var: {RUST: nightly}}}\n\
        f: {script: [x], needs: [], when: failure}\n",
    bad_settings_of_a_stage_are_all_told: "image: a\nstages: [a]\na:\n  script: [x]\n  timeout: 10\n  retry: {tries: 2, when: [agent_lost], exit_codes: [0], backoff: 5}\n  \
        allow_failure: {exit_code: 77}\n  artifacts: {name: app, expires: 30}\n  reports: {coverage: x}\n  workdir: /app\n  user: '1000:'\n  docker: false\n  needs:\n",
    secrets_in_plain_text_are_told: "image: a\nenvironment:\n  DB_PASSWORD: hunter2hunter2\n  TOKEN: ghp_abcdefghijklmnopqrstuvwxyz\n  PASSWORD_FILE: /run/secrets/pw\n  KEY: abc\nprepare: {script: [x]}\n",
    a_pipe_hides_failures: "image: a\nstages: [a, b]\na:\n  script:\n    - make\n    - make test | tee log\nb: {script: ['make | tee log'], shell: bash}\n",
    a_shell_in_a_shell_expands_twice: "image: a\nprepare:\n  script:\n    - sh -c \"echo $HOME\"\n    - sh -c 'echo $HOME'\n    - sh -c \"echo \\$HOME\"\n",
    a_folded_block_is_one_line: "image: a\nprepare:\n  script:\n    - >-\n      make\n      make test\n    - >\n      cargo build\n      --release\n",
    an_axis_hides_a_variable: "image: a\nenvironment: {RUST: stable}\nmatrix: {RUST: [stable, nightly]}\nprepare: {script: [x]}\n",
    reserved_words_say_so: "image: a\nsecrets: [x]\nstages: [a]\nprepare: {script: [x], snapshot: true}\na: {script: [x], approval: true, per: build, matrix: {A: [b]}, secrets: [y]}\n",
    names_of_buildr_are_no_variables_of_the_manifest: "image: 'a:${BUILDR_TAG}'\nstages: [a]\na: {script: [x], when: {var: {BUILDR_BRANCH: main, BUILDR_JOB: x}}}\n",
    globs_that_begin_with_a_mark_are_quoted: "image: a\nstages: [a]\na:\n  script: [x]\n  when:\n    branch: [!main, main]\n    paths:\n      - *.rs\n",
    control_characters_are_pointed_at: "image: a\nprepare:\n  script:\n    - echo \u{1b}[31m\n",
}

/// What is said of a manifest that is valid and can't be carried out yet.
fn refused(text: &str) -> String {
    let (manifest, _) = Manifest::parse(text.as_bytes(), ".buildr.yml").expect(text);
    let plan = manifest.plan(&Context::default()).expect(text);
    plan.supported().expect_err(text).to_string()
}

#[test]
fn a_schedule_as_another_system_has_it_is_one_error() {
    for on in ["{schedule: [{cron: '0 3 * * *'}]}", "{push: , cron: [{cron: '0 3 * * *'}]}"] {
        let text = format!("image: a\non: {on}\nprepare: {{script: [x]}}\n");
        let problems = Manifest::parse(text.as_bytes(), ".buildr.yml").expect_err(on).items;
        let hint = problems[0].hint.as_deref().unwrap_or_default();
        assert!(problems.len() == 1 && hint.contains("{name: nightly, schedule: "), "{on}: {problems:?}");
    }
}

#[test]
fn what_can_not_be_carried_out_yet_is_told_at_its_place() {
    let text = "image: a\nshell: bash\nservices: [redis]\nmatrix: {A: [b, c]}\nstages: [a, b, c]\na: {script: [x], image: other}\n\
        b:\n  script: [x]\n  needs: []\nc: {script: [x], when: always}\n";
    insta::assert_snapshot!("what_can_not_be_carried_out_yet", refused(text), text);
}

#[test]
fn what_only_values_can_break_is_told_by_the_plan() {
    let text = "image: 'app:${tag}'\nstages: [a]\na: {script: [x], environment: {DIR: ../up}, workdir: 'sub/${DIR}'}\n";
    let (manifest, _) = Manifest::parse(text.as_bytes(), ".buildr.yml").expect(text);
    let problems = manifest.plan(&Context::default()).expect_err(text);
    insta::assert_snapshot!("what_only_values_can_break", problems.to_string(), text);
}

#[test]
fn what_is_not_utf_8_is_pointed_at() {
    let problems = Manifest::parse(b"image: a\nprepare: {script: [caf\xe9]}\n", "f").expect_err("not UTF-8");
    insta::assert_snapshot!(problems.to_string());
    let problems = Manifest::parse(b"\xff\xfei\0m\0", "f").expect_err("UTF-16");
    assert!(problems.items[0].hint.as_deref().is_some_and(|hint| hint.contains("UTF-16")));
}

#[test]
fn color_is_there_only_when_asked_for() {
    let problems = Manifest::parse(b"imge: a", "f").expect_err("a bad manifest");
    assert!(problems.render(true).contains("\u{1b}["));
    assert!(!problems.render(false).contains("\u{1b}["));
}

#[test]
fn columns_count_characters_not_bytes() {
    let text = "image: a\nprepare: {script: [\"äöü\", {a: b}]}\n";
    let problems = Manifest::parse(text.as_bytes(), "f").expect_err("a mapping as an entry");
    assert_eq!((problems.items[0].line, problems.items[0].column, problems.items[0].length), (2, 27, 6));
    insta::assert_snapshot!(problems.to_string());
}

#[test]
fn an_unreasonably_long_line_is_not_shown() {
    let text = format!("image: a\nfoo: {}\nprepare: {{script: [x]}}\n", "x".repeat(5000));
    let problems = Manifest::parse(text.as_bytes(), "f").expect_err("an unknown key");
    assert_eq!(problems.items[0].source_line, None);
    insta::assert_snapshot!(problems.to_string());
}

#[test]
fn a_flood_of_problems_is_counted_and_no_error_is_lost_among_warnings() {
    let unlisted: String = (0..500).map(|i| format!("s{i}: {{script: [x]}}\n")).collect();
    let text = format!("image: a\nstages: [a]\na: {{script: [x]}}\n{unlisted}zzz: 1\n");
    let problems = Manifest::parse(text.as_bytes(), "f").expect_err("an unknown key");
    assert_eq!((problems.items.len(), problems.omitted), (101, 400));
    assert!(
        problems.items.iter().any(|item| item.severity == Severity::Error && item.message.contains("zzz"))
    );
    assert!(problems.to_string().ends_with("and 400 more"));
}

#[test]
fn a_diagnostic_is_data_too() {
    let problems = Manifest::parse(b"imge: a", "f").expect_err("a bad manifest");
    let json = serde_json::to_value(&problems).expect("plain data");
    assert_eq!(
        json["items"][0],
        serde_json::json!({
            "severity": "error", "code": "unknown-key", "file": "f", "line": 1, "column": 1, "length": 4,
            "message": "unknown key `imge`", "suggestion": "image", "hint": null, "source_line": "imge: a",
        })
    );
    assert_eq!(problems.items[0].to_string(), "f:1:1: error: unknown key `imge` (did you mean `image`?)");
}

#[test]
fn a_bracket_that_is_open_above_a_key_is_the_hint() {
    for text in ["[a, b\na: {script: [x]}\n", "[a,\n  b\n\na:\n  script: [x]\n"] {
        let shown = shown(&format!("image: a\nstages: {text}"));
        assert!(shown.contains("a `[` or `{` in a line above is not closed"), "{shown}");
    }
}
