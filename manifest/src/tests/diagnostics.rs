//! What the reader of a bad manifest sees, by snapshot.

use crate::{Diagnostics, Manifest, Severity};

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
    planned_keys_are_refused_not_ignored: "image: a\nmatrix: {A: [b]}\ncache: {script: [x]}\nstages: [build]\n\
        build:\n  script: [make]\n  needs: []\n  artifacts: [dist]\n",
    other_shapes_of_environment_are_refused: "image: a\nprepare: {script: [x]}\nenvironment:\n  FOO: bar\n",
    a_list_of_inherited_names_is_refused: "image: a\nprepare: {script: [x]}\nenvironment:\n  inherit: [HTTP_PROXY]\n  vars: {A: b}\n",
    a_list_for_environment_is_refused: "image: a\nprepare: {script: [x]}\nenvironment: [A=b]\n",
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
    a_template_in_the_image_is_refused: "image: 'rust:${RUST}'\nprepare: {script: [x]}\n",
    a_stage_needs_a_script: "image: a\nstages: [a, b, c, d]\na: {}\nb:\nc: [make]\nd: make\n",
    an_empty_script_is_an_error: "image: a\nstages: [a, b, c, d]\na: {script: []}\nb: {script: ''}\nc:\n  script:\nd:\n  script:\n    - make\n    -\n    - ''\n",
    a_colon_in_a_command_makes_a_mapping: "image: a\nprepare:\n  script:\n    - echo a: b\n",
    a_step_of_another_system_is_a_mapping: "image: a\nprepare:\n  script:\n    - name: Build\n      run: make\n",
    a_hash_in_a_command_cuts_it: "image: a\nprepare:\n  script:\n    - echo hi #x\n    - make # builds it\n",
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
    a_variable_is_no_mistyped_key: "image: a\nenvironment: {VAR: x}\nprepare: {script: [x]}\n",
    a_mistyped_key_of_environment_is_guessed: "image: a\nenvironment: {inherti: true}\nprepare: {script: [x]}\n",
    a_stage_of_nothing_has_no_script: "image: a\nstages: [b]\nb:\n",
    a_hash_in_a_variable_cuts_it: "image: a\nenvironment:\n  vars:\n    - COLOR=#fff\n    - TITLE=build #1\nprepare: {script: [x]}\n",
    merge_keys_are_keys_too: "image: a\nx-a: &a {}\nprepare:\n  <<: *a\n  <<: *a\n  script: [x]\n",
    merging_text_is_an_error: "image: a\nprepare:\n  <<: make\n  script: [x]\n",
    control_characters_are_pointed_at: "image: a\nprepare:\n  script:\n    - echo \u{1b}[31m\n",
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
            "severity": "error", "file": "f", "line": 1, "column": 1, "length": 4,
            "message": "unknown key `imge`", "suggestion": "image", "hint": null, "source_line": "imge: a",
        })
    );
    assert_eq!(problems.items[0].to_string(), "f:1:1: error: unknown key `imge` (did you mean `image`?)");
}
