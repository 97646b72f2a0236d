//! Where shells and processes bite: one stage per case, in dash, busybox ash and bash, through
//! `buildr run`. What a case prints is compared line by line.

use std::{thread, time::Instant};

use crate::harness::{BASH, BUSYBOX, DEBIAN, Farm, Home, OwnImage, Project, manifest, no_container_of};

const SHELLS: [&str; 3] = [DEBIAN, BUSYBOX, BASH];

/// The lines of one stage in plain output, without its prefix, commands left out.
pub(crate) fn lines_of(out: &str, stage: &str) -> Vec<String> {
    let prefix = format!("[{stage}] ");
    out.lines()
        .filter_map(|line| line.strip_prefix(&prefix).or((line == prefix.trim_end()).then_some("")))
        .filter(|line| !line.starts_with("$ ") && !line.starts_with("> "))
        .map(str::to_owned)
        .collect()
}

/// Runs the entries as the stage `test` in each shell; expects the exit code and the lines.
#[track_caller]
fn check(entries: &[&str], code: i32, expected: &[&str]) {
    for image in SHELLS {
        check_in(image, entries, code, expected);
    }
}

#[track_caller]
fn check_in(image: &str, entries: &[&str], code: i32, expected: &[&str]) {
    let finished = Home::new().run(&Project::with_script(image, entries)).expect_code(code);
    assert_eq!(lines_of(&finished.out(), "test"), expected, "in {image}; stderr:\n{}", finished.stderr);
}

#[test]
fn standard_error_can_be_opened_by_its_name() {
    check(&["echo x > /dev/stderr", "echo y > /dev/stdout", "echo z"], 0, &["x", "y", "z"]);
}

#[test]
fn tracing_shows_the_users_commands_and_none_of_ours() {
    let entries = ["set -x", "echo a", "echo b\necho c"];
    for image in [DEBIAN, BUSYBOX] {
        check_in(image, &entries, 0, &["+ echo a", "a", "+ echo b", "b", "+ echo c", "c"]);
    }
    // bash counts the levels of `eval` in its prompt.
    check_in(BASH, &entries, 0, &["++ echo a", "a", "++ echo b", "b", "++ echo c", "c"]);
}

#[test]
fn output_sent_to_a_file_stays_there() {
    check(&["exec > /tmp/file 2>&1", "echo hidden", "test \"$(cat /tmp/file)\" = hidden"], 0, &[]);
}

#[test]
fn an_exit_trap_that_kills_its_group_hurts_nobody_else() {
    // The shell ends by its own TERM; the farm of processes around it stays whole, so that the
    // stage's end is still reported, and the container is cleaned up.
    let project = Project::with_script(BUSYBOX, &["trap 'kill 0' EXIT", "echo working"]);
    let finished = Home::new().run(&project).expect_code(1);
    assert_eq!(lines_of(&finished.out(), "test"), ["working"]);
    assert!(finished.stderr.contains("signal 15"), "{}", finished.stderr);
    no_container_of(project.path());
    for image in [DEBIAN, BASH] {
        check_in(image, &["trap 'kill 0' EXIT", "echo working"], 1, &["working"]);
    }
}

#[test]
fn a_shell_that_kills_itself_has_failed_by_signal() {
    for image in SHELLS {
        let finished = Home::new().run(&Project::with_script(image, &["echo a", "kill -9 $$", "echo b"]));
        let finished = finished.expect_code(1);
        assert_eq!(lines_of(&finished.out(), "test"), ["a"], "in {image}");
        assert!(finished.stderr.contains("signal 9"), "{}", finished.stderr);
    }
}

#[test]
fn killing_all_processes_of_the_container_hangs_nothing() {
    check(&["kill -9 -1", "echo survived"], 0, &["survived"]);
}

#[test]
fn a_background_process_does_not_keep_a_stage_from_ending() {
    let began = Instant::now();
    check(&["sleep 600 &", "echo done"], 0, &["done"]);
    assert!(began.elapsed().as_secs() < 300);
}

#[test]
fn what_was_started_in_the_background_serves_the_later_stages() {
    let text = manifest(
        BUSYBOX,
        &[
            ("start", &["(while :; do sleep 0.1; echo alive > /tmp/alive; done) &"]),
            (
                "use",
                &[
                    "rm -f /tmp/alive",
                    "i=0; while ! [ -f /tmp/alive ]; do i=$((i+1)); [ $i -lt 100 ]; sleep 0.1; done",
                    "cat /tmp/alive",
                ],
            ),
        ],
    );
    let finished = Home::new().run(&Project::with_manifest(&text)).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "use"), ["alive"]);
}

#[test]
fn a_reader_of_standard_input_finds_it_empty() {
    check(&["cat", "if read line; then echo \"got $line\"; else echo nothing; fi"], 0, &["nothing"]);
}

#[test]
fn a_false_condition_at_the_end_of_an_entry_goes_on() {
    check(&["[ -f /no/such/file ] && echo there", "echo next"], 0, &["next"]);
}

#[test]
fn the_first_failing_command_ends_the_stage_with_its_code() {
    check(&["echo one", "echo two\n(exit 7)\necho three", "echo four"], 1, &["one", "two"]);
}

#[test]
fn a_syntax_error_is_its_own_entrys() {
    for image in SHELLS {
        let finished = Home::new().run(&Project::with_script(image, &["echo fine", "if then", "echo never"]));
        let finished = finished.expect_code(1);
        let lines = lines_of(&finished.out(), "test");
        assert_eq!(lines[0], "fine", "in {image}");
        assert!(lines[1].to_lowercase().contains("syntax error"), "in {image}: {lines:?}");
        assert!(!lines.contains(&"never".to_owned()));
        assert!(finished.stderr.contains("if then"), "the failing entry is named: {}", finished.stderr);
    }
}

#[test]
fn heredocs_work() {
    check(
        &[
            "cat <<END\none $((1 + 1))\nEND",
            "cat <<'END'\n$raw \\x 'y' \"z\"\nEND\necho after",
            "cat <<-END\n\tindented\n\tEND",
        ],
        0,
        &["one 2", "$raw \\x 'y' \"z\"", "after", "indented"],
    );
}

#[test]
fn nothing_depends_on_path_or_ifs() {
    check(
        &[
            "PATH=/nowhere IFS=0123456789abcdef",
            "export PATH IFS",
            "echo still here",
            "unset PATH IFS",
            "echo and here",
        ],
        0,
        &["still here", "and here"],
    );
}

#[test]
fn entries_share_one_shell() {
    check(
        &[
            "cd /tmp\nX=1",
            "f() { echo \"f in $(pwd) with $X\"; }",
            "f",
            "set -u",
            "set +e; false",
            "echo \"on, $-\" | grep -q e || echo 'no -e'",
        ],
        0,
        &["f in /tmp with 1", "no -e"],
    );
}

#[test]
fn functions_and_aliases_of_the_users_do_not_get_in_our_way() {
    check(
        &[
            "echo() { printf 'mine %s\\n' \"$1\"; }\nread() { return 3; }\nprintf_() { :; }",
            "alias read=false || true",
            "echo a",
            "printf 'b\\n'",
        ],
        0,
        &["mine a", "b"],
    );
}

#[test]
fn exit_zero_ends_the_stage_as_passed() {
    check(&["echo a", "exit 0", "echo b"], 0, &["a"]);
}

#[test]
fn dollars_and_quotes_reach_the_shell_as_they_are() {
    check(
        &[
            "X='a  b'; echo $X",
            "echo \"${X}\" '$X' \\$X",
            "sh -c \"echo $X\"",
            "echo \"it's\" 'a \"b\"' `echo c`",
        ],
        0,
        &["a b", "a  b $X $X", "a b", "it's a \"b\" c"],
    );
}

#[test]
fn a_hundred_stages_run_in_order() {
    let names: Vec<String> = (0..100).map(|i| format!("stage{i}")).collect();
    let stages: Vec<(&str, &[&str])> =
        names.iter().map(|name| (name.as_str(), &["echo $BUILDR_STAGE"][..])).collect();
    let finished = Home::new().run(&Project::with_manifest(&manifest(BUSYBOX, &stages))).expect_code(0);
    let out = finished.out();
    let printed: Vec<&str> = out.lines().filter(|line| line.contains("] stage")).collect();
    let expected: Vec<String> = names.iter().map(|name| format!("[{name}] {name}")).collect();
    assert_eq!(printed, expected);
}

#[test]
fn output_without_a_last_newline_is_whole() {
    check(&["printf 'a\\nb'"], 0, &["a", "b"]);
}

#[test]
fn any_bytes_and_very_long_lines_arrive_as_they_were_written() {
    let farm = Farm::new();
    let script = [
        "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf '%03o' $i)\"; i=$((i+1)); done",
        "head -c 5000000 /dev/zero | tr '\\0' x; echo",
        "printf end",
    ];
    let project = Project::with_script(DEBIAN, &script);
    let build = farm.submit(&project);
    let raw = farm.home.call(&["tail", &build, "--stage", "test", "--raw"]).expect_code(0).stdout;
    let mut expected: Vec<u8> = (0..=255).collect();
    expected.extend(vec![b'x'; 5_000_000]);
    expected.extend(b"\nend");
    assert_eq!(raw.len(), expected.len());
    assert!(raw == expected, "the bytes differ");
    // Locally the same bytes go through the renderer, which must neither fail nor hang on them.
    let local = Home::new().run(&project).expect_code(0);
    assert!(local.stdout.len() >= 5_000_000);
}

#[test]
fn stages_run_as_the_images_user() {
    for (user, uid) in [("dev", "1000"), ("1000:1234", "1000"), ("4321", "4321")] {
        let image = OwnImage::changed(BUSYBOX, &[&format!("USER {user}")]);
        let project = Project::with_script(&image.0, &["id -u", "touch made", "echo x > /dev/stderr"]);
        let finished = Home::new().run(&project).expect_code(0);
        assert_eq!(lines_of(&finished.out(), "test"), [uid, "x"], "USER {user}");
    }
}

#[test]
fn what_a_build_writes_belongs_to_the_folders_owner_afterwards() {
    use std::os::unix::fs::{MetadataExt, chown};
    let image = OwnImage::changed(BUSYBOX, &["USER dev"]);
    for (image, owner) in [(image.0.as_str(), 0), (BUSYBOX, 7777)] {
        let project = Project::with_script(image, &["mkdir -p out/deep", "echo x > out/deep/file"]);
        for entry in [".", ".buildr.yml"] {
            chown(project.path().join(entry), Some(owner), Some(owner)).unwrap();
        }
        Home::new().run(&project).expect_code(0);
        for path in [".", ".buildr.yml", "out", "out/deep", "out/deep/file"] {
            assert_eq!(
                std::fs::metadata(project.path().join(path)).unwrap().uid(),
                owner,
                "{path} with {image}"
            );
        }
    }
}

#[test]
fn an_images_entrypoint_is_not_run() {
    let image = OwnImage::changed(BUSYBOX, &[r#"ENTRYPOINT ["/bin/false"]"#, r#"CMD ["x"]"#]);
    let finished = Home::new().run(&Project::with_script(&image.0, &["echo fine"])).expect_code(0);
    assert_eq!(lines_of(&finished.out(), "test"), ["fine"]);
}

#[test]
fn an_image_without_a_shell_is_an_image_error() {
    let text = manifest(BUSYBOX, &[("a", &["rm -f /bin/sh"]), ("b", &["echo never"])]);
    let project = Project::with_manifest(&text);
    let finished = Home::new().run(&project).expect_code(4);
    assert!(finished.stderr.contains("/bin/sh"), "{}", finished.stderr);
    no_container_of(project.path());
}

#[test]
fn endless_output_ends_at_the_log_limit() {
    let home = Home::new();
    let project = Project::with_script(BUSYBOX, &["yes"]);
    let finished =
        home.call(&["run", "--log-limit", "20MiB", project.path().to_str().unwrap()]).expect_code(1);
    assert!(finished.stderr.contains("limit"), "{}", finished.stderr);
    // Each `y` stands behind a prefix of its own in plain output.
    assert_eq!(lines_of(&finished.out(), "test").len(), 10 << 20);
}

#[test]
fn the_farm_prints_what_the_laptop_prints() {
    let text = manifest(
        BUSYBOX,
        &[
            ("prepare", &["echo ready > /tmp/state"]),
            ("a", &["set -x", "cat /tmp/state", "echo err >&2"]),
            ("b", &["printf 'x\\ny'", "exit 3"]),
            ("c", &["echo never"]),
        ],
    );
    let project = Project::with_manifest(&text);
    let farm = Farm::new();
    let remote = thread::scope(|scope| {
        let remote = scope.spawn(|| farm.tail(&farm.submit(&project)));
        let local = Home::new().run(&project).expect_code(1);
        let remote = remote.join().unwrap().expect_code(1);
        for stage in ["prepare", "a", "b", "c"] {
            let of = |out: &str| -> Vec<String> {
                out.lines()
                    .filter(|line| line.starts_with(&format!("[{stage}]")))
                    .map(str::to_owned)
                    .collect()
            };
            assert_eq!(of(&local.out()), of(&remote.out()), "stage {stage}");
        }
        remote
    });
    assert_eq!(lines_of(&remote.out(), "b"), ["x", "y"]);
}
