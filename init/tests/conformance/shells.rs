//! What a script means, in each shell that we promise: the same table for all three.

use std::{collections::BTreeMap, fs};

use buildr_init::wire::{EndCause, StageSpec};

use crate::container::{BUSYBOX, Container, DEBIAN, Done, stage};

/// What a row expects of the log. `++ ` is `+ `: bash counts the `eval`.
enum Log {
    Is(&'static str),
    Has(&'static [&'static str]),
}

struct Row {
    name: &'static str,
    script: &'static [&'static str],
    cause: EndCause,
    steps: usize,
    log: Log,
}

const fn row(name: &'static str, script: &'static [&'static str], code: i32, steps: usize, log: Log) -> Row {
    Row { name, script, cause: EndCause::Exit(code), steps, log }
}

fn rows() -> Vec<Row> {
    use Log::{Has, Is};
    vec![
        row(
            "/dev/stderr does not shorten the log",
            &["echo a", "echo b > /dev/stderr", "echo c"],
            0,
            3,
            Is("a\nb\nc\n"),
        ),
        row(
            "set -x shows the build's commands only",
            &["set -x", "echo a", "set +x", "echo b"],
            0,
            4,
            Is("+ echo a\na\n+ set +x\nb\n"),
        ),
        row("set -x at the end shows nothing of ours", &["set -x"], 0, 1, Is("")),
        row(
            "exec > file catches nothing of ours",
            &["exec > /tmp/file", "echo a", "exec > /dev/stderr", "cat /tmp/file"],
            0,
            4,
            Is("a\n"),
        ),
        row(
            "all redirected to one",
            &["exec 2>&1 > /dev/null", "echo a", "ls /nowhere || :"],
            0,
            3,
            Has(&["nowhere"]),
        ),
        row("a trap on EXIT runs", &["trap 'echo bye $?' EXIT", "(exit 3)", "echo no"], 3, 2, Is("bye 3\n")),
        Row {
            name: "kill 0 in a trap hits the stage alone",
            script: &["trap 'kill 0' EXIT", "echo a"],
            cause: EndCause::Signal(15),
            steps: 2,
            log: Is("a\n"),
        },
        Row {
            name: "kill -9 $$",
            script: &["echo a", "kill -9 $$", "echo b"],
            cause: EndCause::Signal(9),
            steps: 2,
            log: Is("a\n"),
        },
        row("kill -9 -1 leaves the shell that says it", &["kill -9 -1", "echo alive"], 0, 2, Is("alive\n")),
        row(
            "kill 1 is nothing to init",
            &["kill 1; kill -INT 1; kill -HUP 1; kill -9 1; kill -STOP 1", "echo a"],
            0,
            2,
            Is("a\n"),
        ),
        row("a process in the background holds nothing up", &["sleep 600 &", "echo a"], 0, 2, Is("a\n")),
        row("standard input is empty", &["cat", "if read -r x; then echo no; fi; echo a"], 0, 2, Is("a\n")),
        row(
            "an && list is no failure",
            &["[ -f /nowhere ] && echo no", "echo a", "[ -f /nowhere ] && echo no"],
            0,
            3,
            Is("a\n"),
        ),
        row("the first failure ends it", &["echo a", "false", "echo no"], 1, 2, Is("a\n")),
        row(
            "a syntax error is its entry's own",
            &["echo a", "if then (", "echo no"],
            2,
            2,
            Has(&["a\n", "yntax"]),
        ),
        row(
            "here documents",
            &["X=1", "cat <<EOF\na $X\nEOF", "cat <<'EOF'\n$X 'y'\nEOF\necho b"],
            0,
            3,
            Is("a 1\n$X 'y'\nb\n"),
        ),
        row(
            "PATH and IFS destroyed",
            &["PATH=; IFS=' @0123456789'; set -u; set -f", "echo a", "unset PATH", "echo b"],
            0,
            4,
            Is("a\nb\n"),
        ),
        row(
            "state carries over",
            &["cd /tmp; X='a  b'; f() { echo \"$X\"; }; umask 027", "pwd; f; umask"],
            0,
            2,
            Is("/tmp\na  b\n0027\n"),
        ),
        row("$? carries over without -e", &["set +e", "(exit 4)", "echo $?", "(exit 5)"], 5, 4, Is("4\n")),
        row("exit 0 ends it as passed", &["echo a", "exit 0", "echo no"], 0, 2, Is("a\n")),
        row("exec replaces the shell", &["exec sh -c 'echo a; exit 7'", "echo no"], 7, 1, Is("a\n")),
        row("comments, backslashes and nothing", &["echo a # b", "", "echo b \\", "# c"], 0, 4, Is("a\nb\n")),
        row(
            "an entry cannot close what is around it",
            &["echo a", "}", "echo no"],
            2,
            2,
            Has(&["a\n", "yntax"]),
        ),
        row(
            "functions with the names of ours",
            &["printf() { echo p; }; read() { echo r; }; cat() { echo c; }", "printf; read; cat"],
            0,
            2,
            Is("p\nr\nc\n"),
        ),
        row(
            "aliases with the names of ours",
            &["alias eval=false command=false printf=false read=false || :", "echo a"],
            0,
            2,
            Is("a\n"),
        ),
        row("command itself redefined", &["command() { return 1; }", "echo a"], 0, 1, Is("a\n")),
        row("closed descriptors", &["exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-", "echo a"], 0, 2, Is("a\n")),
        row(
            "nothing open but the three",
            &["ls /proc/self/fd | while read -r n; do if [ $n -gt 3 ]; then echo $n; fi; done"],
            0,
            1,
            Is(""),
        ),
        row("forged marks in the output", &["echo @1; echo @2", "echo a"], 0, 2, Is("@1\n@2\na\n")),
        row("set -C, set -a", &["set -C", "set -a", "echo a"], 0, 3, Is("a\n")),
        row("no line break at the end", &["printf a", "printf b"], 0, 2, Is("ab")),
        row("kill -STOP -1 stops neither", &["kill -STOP -1", "echo a"], 0, 2, Is("a\n")),
        row("orphans are taken in", &["sh -c 'sleep 0.01 & sleep 0.01 &'", "echo a"], 0, 2, Is("a\n")),
    ]
}

fn check(done: &Done, row: &Row, shell: &[String]) {
    let log = done.text().replace("++ ", "+ ");
    let place = format!("{} in {shell:?}: {:?} {log:?}", row.name, done.status);
    assert_eq!(done.end.cause, row.cause, "{place}");
    assert_eq!(done.status.steps.len(), row.steps, "{place}");
    assert_eq!(done.status.log_bytes, done.log.len() as u64, "{place}");
    match row.log {
        Log::Is(expected) => assert_eq!(log, expected, "{place}"),
        Log::Has(expected) => expected.iter().for_each(|text| assert!(log.contains(text), "{place}")),
    }
    assert!(!log.contains("buildr"), "{place}");
}

/// The whole table in one container: each row also shows that the ones before did no harm.
fn table(image: &str, shell: &[&str]) {
    let mut container = Container::new(image);
    let shell: Vec<String> = shell.iter().map(|word| (*word).to_owned()).collect();
    for row in rows() {
        let done = container.run(StageSpec { shell: shell.clone(), ..stage(row.script) });
        let ours = row.name.starts_with("a syntax") || row.name.starts_with("an entry cannot");
        let done = if ours { without_script_path(done) } else { done };
        check(&done, &row, &shell);
    }
}

/// Shells name the script in their own errors, as they do with any script.
fn without_script_path(done: Done) -> Done {
    let length = done.log.len();
    let mut log = done.text().replace("/buildr/", "").into_bytes();
    log.resize(length, b' ');
    Done { log, ..done }
}

#[test]
fn scripts_mean_the_same_in_busybox_ash() {
    table(BUSYBOX, &["sh", "-e"]);
}

#[test]
fn scripts_mean_the_same_in_dash() {
    table(DEBIAN, &["sh", "-e"]);
}

#[test]
fn scripts_mean_the_same_in_bash() {
    table(DEBIAN, &["bash", "-eo", "pipefail"]);
}

#[test]
fn steps_begin_where_their_output_begins() {
    for (image, shell) in [(BUSYBOX, "sh"), (DEBIAN, "sh"), (DEBIAN, "bash")] {
        let mut container = Container::new(image);
        let script = ["printf abc", "head -c 300000 /dev/zero", "echo x; echo y >&2", ":"];
        let spec = StageSpec { shell: vec![shell.into(), "-e".into()], ..stage(&script) };
        let done = container.run(spec);
        assert_eq!(done.status.steps, [0, 3, 300_003, 300_007], "{shell} {:?}", done.status);
    }
}

#[test]
fn output_is_kept_byte_for_byte() {
    let mut container = Container::new(BUSYBOX);
    container.check(&["head -c 3000000 /dev/urandom > /tmp/noise; printf '\\0\\377\\r\\033' >> /tmp/noise"]);
    let sum = container.check(&["md5sum < /tmp/noise"]);
    let noise = container.run(stage(&["cat /tmp/noise"]));
    assert_eq!(noise.log.len(), 3_000_004);
    fs::write(container.folder.path().join("copy"), &noise.log).unwrap();
    assert_eq!(container.check(&["md5sum < /buildr/copy"]), sum);
}

#[test]
fn a_line_of_five_megabytes_is_a_line() {
    let mut container = Container::new(BUSYBOX);
    let done = container.run(stage(&["head -c 5000000 /dev/zero | tr '\\0' x", "echo"]));
    assert_eq!(done.log.len(), 5_000_001);
    assert!(done.log[..5_000_000].iter().all(|byte| *byte == b'x'));
}

#[test]
fn the_environment_is_exactly_what_was_given() {
    let mut container = Container::new(BUSYBOX);
    let pairs = [("PATH", "/bin"), ("A", "1\n2 'x' $y"), ("a-b.c", "odd"), ("EMPTY", "")];
    let environment: BTreeMap<String, String> = pairs.map(|(name, value)| (name.into(), value.into())).into();
    let spec = StageSpec { environment, ..stage(&["tr '\\0' '|' < /proc/$$/environ"]) };
    assert_eq!(container.run(spec).text(), "A=1\n2 'x' $y|EMPTY=|PATH=/bin|a-b.c=odd|HOME=/root|");
}

#[test]
fn a_stage_runs_as_its_user_with_that_users_groups_and_home() {
    let mut container = Container::new(BUSYBOX);
    for (user, expected) in [
        ("", "0 0 /root\n"),
        ("dev", "1000 1000 /home/dev\n"),
        ("1000", "1000 1000 /home/dev\n"),
        ("dev:extra", "1000 1234 /home/dev\n"),
        ("4242:77", "4242 77 /\n"),
    ] {
        let script = ["echo $(id -u) $(id -g) $HOME", "echo b > /dev/stderr; echo c > /dev/stdout", "id -G"];
        let done = container.run(StageSpec { user: user.into(), ..stage(&script) });
        let text = done.text();
        assert_eq!(done.end.cause, EndCause::Exit(0), "{user:?} {text}");
        assert!(text.starts_with(&format!("{expected}b\nc\n")), "{user:?} {text}");
        assert_eq!(
            text.trim_end().ends_with("1234"),
            user.contains("extra") || user == "dev" || user == "1000",
            "{text}"
        );
    }
}
