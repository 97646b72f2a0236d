//! Builds that have root in their container and use it against their own init, control directory
//! and reports: they may lie about themselves, and cost no more than others do.

use buildr_manifest::{Cause, Outcome};

use crate::harness::{BUSYBOX, Project, Repository, Told, stage};

/// What a build sends for init's words; busybox's `printf` is the shell's own, so one write it is.
fn say(report: &str) -> String {
    format!("printf '%s\\n' '{report}' > /proc/1/fd/1")
}

#[tokio::test]
async fn a_log_that_claims_to_be_endless_is_passed_on_to_its_limit() {
    let grow = "rm /buildr/0.log; dd if=/dev/zero of=/buildr/0.log bs=1 count=1 seek=1000000000000 2>&-";
    let claim = say(r#"{"report":"stage","stage":0,"log_bytes":1000000000001,"steps":[0],"end":null}"#);
    let mut project = Project::with_script(&[grow, &claim, "sleep 1000"]);
    project.config.log_limit = 1 << 20;
    let mut going = project.start(project.request()).await;
    going.until(&"\0".repeat(100)).await;
    going.cancel();
    let (finished, told) = going.finish().await;
    assert!(matches!(finished.outcome, Outcome::Canceled { .. }), "{finished:?}");
    assert_eq!(told.output["test"].len(), 1 << 20);
}

#[tokio::test]
async fn garbage_without_an_end_on_init_s_line_harms_only_the_build() {
    let project = Project::with_script(&["head -c 50000000 /dev/zero > /proc/1/fd/1", "echo done"]);
    let (outcome, _) = project.outcome().await;
    assert!(matches!(outcome, Outcome::Passed | Outcome::Failed { .. }), "{outcome}");
}

#[tokio::test]
async fn a_control_directory_that_was_emptied_fails_the_build_or_does_nothing() {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [test, later]\n{}{}",
        stage(
            "test",
            &["rm -rf /buildr/* 2>&-; mkfifo /buildr/1.log /buildr/1.sh; ln -s /etc /buildr/1.go", "true"]
        ),
        stage("later", &["echo later"]),
    );
    let (outcome, told) = Project::new(&manifest).outcome().await;
    match outcome {
        Outcome::Passed => assert_eq!(told.text("later"), "later\n"),
        Outcome::Failed { cause, .. } => assert_ne!(cause, Cause::Exit { code: 0 }),
        other => panic!("{other}"),
    }
}

/// A job whose stages do these things; nothing of it may be left, and it may not fail buildr.
async fn endured(stages: &[(&str, &[&str])]) -> (Outcome, Told) {
    let names: Vec<_> = stages.iter().map(|(name, _)| *name).collect();
    let scripts: String = stages.iter().map(|(name, script)| stage(name, script)).collect();
    let manifest = format!("image: {BUSYBOX}\ntimeout: 8s\nstages: [{}]\n{scripts}", names.join(", "));
    Project::new(&manifest).outcome().await
}

/// What takes the place of control files.
const IN_PLACE: [(&str, &str); 6] = [
    ("a link to a secret", "ln -s /etc/shadow $f"),
    ("a link to a file beside it", "ln -s init $f"),
    ("a pipe", "mkfifo $f"),
    ("a folder", "mkdir $f"),
    ("a device", "mknod $f c 1 5"),
    ("a sparse file", "truncate -s 10G $f"),
];

/// True where a build has done no more than to end itself. One that waits for a pipe or a device of its
/// own making is ended by its timeout.
fn is_its_own(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Passed | Outcome::Failed { .. } | Outcome::Internal { .. } | Outcome::TimedOut { .. }
    )
}

/// What of this machine's `/etc/shadow` must not be in a log.
fn secret() -> String {
    let text = std::fs::read_to_string("/etc/shadow").unwrap();
    text.lines().next().unwrap().to_owned()
}

#[tokio::test]
async fn what_takes_the_place_of_control_files_is_never_followed_or_waited_for() {
    let before = resident();
    for (what, put) in IN_PLACE {
        // Also those of stages to come, and what this one is to hand on.
        let swap = format!(
            "for n in 0 16 32; do for k in log times env sh go; do f=/buildr/$n.$k; rm -rf $f; {put}; done; done 2>&-"
        );
        let stages: [(&str, &[&str]); 3] =
            [("test", &["echo a", &swap, "echo b"]), ("second", &["echo c"]), ("third", &["echo d"])];
        let (outcome, told) = endured(&stages).await;
        assert!(is_its_own(&outcome), "{what}: {outcome}");
        assert!(!told.story.contains(&secret()), "{what}");
        let size: usize = told.output.values().map(Vec::len).sum();
        assert!(size < 1 << 20, "{what}: {size} bytes of log");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn files_that_change_after_the_stage_s_end_change_nothing_that_was_told() {
    let away = "(trap '' HUP TERM; setsid sh -c 'while :; do rm -rf /buildr/*.log /buildr/*.env; \
                ln -s /etc/shadow /buildr/0.env; mkdir /buildr/16.env; done' >/dev/null 2>&1 &)";
    let (outcome, told) = endured(&[("test", &["echo a", away]), ("later", &["echo b"])]).await;
    assert!(is_its_own(&outcome), "{outcome}");
    assert!(!told.story.contains(&secret()));
}

#[tokio::test]
async fn the_control_directory_cannot_be_mounted_over() {
    let (outcome, told) = endured(&[(
        "test",
        &[
            "if mount -t tmpfs none /buildr; then echo mounted; fi",
            "if mount --bind / /buildr; then echo mounted; fi",
        ],
    )])
    .await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert!(!told.text("test").contains("mounted\n"), "{}", told.story);
}

/// What a build may leave in its workspace.
const WORKSPACES: [(&str, &str); 5] = [
    ("links", "i=0; while [ $i -lt 500 ]; do ln -s /etc l$i; ln -s /etc/shadow f$i; i=$((i+1)); done"),
    ("odd files", "mkfifo pipe; mknod disk b 7 0; mknod zero c 1 5; truncate -s 10G sparse"),
    (
        "no permissions",
        "mkdir -p a/b/c; echo x > a/b/c/d; chown -R 1234 a; chmod 0 a/b/c/d a/b/c a/b a; chmod 0 .",
    ),
    (
        "odd names",
        r#"mkdir "$(printf 'a\nb')" "$(printf '\377\376')" ./-rf; touch "$(printf 'a\nb/\033[2J')" "$(printf '\377\376/\200')""#,
    ),
    ("deep nesting", "i=0; while [ $i -lt 500 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > file"),
];

#[tokio::test]
async fn a_workspace_goes_whatever_a_build_has_left_in_it() {
    for (what, make) in WORKSPACES {
        let repository = Repository::new(&[(".buildr.yml", &one_stage(&[make]))]);
        let mut project = Project::with_script(&[]);
        project.config.allow_file_urls = true;
        let (outcome, told) = project.outcome_of(repository.request(&project)).await;
        assert_eq!(outcome, Outcome::Passed, "{what}: {}", told.story);
    }
    assert!(std::path::Path::new("/etc/shadow").exists());
}

#[tokio::test]
async fn a_workspace_of_fifty_thousand_files_goes() {
    let many = "for d in $(seq 50); do mkdir $d; (cd $d; touch $(seq 1000)); done";
    let repository = Repository::new(&[(".buildr.yml", &one_stage(&[many]))]);
    let mut project = Project::with_script(&[]);
    project.config.allow_file_urls = true;
    let (outcome, told) = project.outcome_of(repository.request(&project)).await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
}

#[tokio::test]
async fn a_git_folder_that_was_rewritten_is_of_no_account_to_the_next_build() {
    let marker = tempfile::tempdir().unwrap();
    let proof = marker.path().join("ran");
    let hook = format!("#!/bin/sh\ntouch {}\n", proof.display());
    let script = [
        "echo marker > inside".to_owned(),
        format!(
            "for h in post-checkout pre-commit post-merge reference-transaction fsmonitor; do \
             mkdir -p .git/hooks; printf '%s' '{hook}' > .git/hooks/$h; chmod +x .git/hooks/$h; done"
        ),
        "rm -rf .git/objects; mkdir -p .git/objects/info; echo /etc > .git/objects/info/alternates"
            .to_owned(),
        format!(
            "printf '[core]\\n\\thooksPath = /workspace/.git/hooks\\n\\tfsmonitor = touch {p}\\n\\tsshCommand = touch {p}\\n\
             [filter \"x\"]\\n\\tsmudge = touch {p}\\n' > .git/config",
            p = proof.display()
        ),
    ];
    let script: Vec<_> = script.iter().map(String::as_str).collect();
    let repository =
        Repository::new(&[(".buildr.yml", &one_stage(&script)), (".gitattributes", "* filter=x\n")]);
    let mut project = Project::with_script(&[]);
    project.config.allow_file_urls = true;
    let mirrors = || fingerprint(&project.data.path().join("sources"));
    let (outcome, told) = project.outcome_of(repository.request(&project)).await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    let first = mirrors();
    let (outcome, told) = project.outcome_of(repository.request(&project)).await;
    assert_eq!(outcome, Outcome::Passed, "{}", told.story);
    assert_eq!(first, mirrors(), "the mirror is as it was");
    assert!(!proof.exists(), "something of the build's ran on this machine");
}

/// A stage that makes processes without end, and one that comes after it in any case.
fn fork_bomb(bomb: &str) -> Project {
    let manifest = format!(
        "image: {BUSYBOX}\nstages: [bomb, after]\n{}  timeout: 5s\n{}  when: always\n",
        stage("bomb", &[bomb]),
        stage("after", &["cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>&- || :", "echo alive"])
    );
    let mut project = Project::new(&manifest);
    project.config.pids_limit = 2000;
    project
}

#[tokio::test]
async fn a_fork_bomb_meets_the_operator_s_limit_and_ends_with_its_stage_s_time() {
    let (outcome, told) = fork_bomb("b() { b 2>/dev/null | b 2>/dev/null & }; b; sleep 1000").outcome().await;
    assert!(matches!(outcome, Outcome::TimedOut { .. }), "{outcome}");
    assert!(told.text("after").contains("2000\n"), "{}", told.story);
    assert!(told.text("after").ends_with("alive\n"), "{}", told.story);
}

#[tokio::test]
async fn a_fork_bomb_that_a_stage_leaves_behind_is_the_build_s_own_fault() {
    let left = "(trap '' HUP; while :; do sleep 1000 & done) 2>/dev/null; exit 0";
    let (outcome, told) = fork_bomb(left).outcome().await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome}: {}", told.story);
}

#[tokio::test]
async fn output_without_a_newline_takes_no_more_memory_than_other_output() {
    // 200 MB; a longer form counts a GiB.
    let bytes: u64 = match std::env::var_os("BUILDR_TEST_LONG") {
        Some(_) => 1 << 30,
        None => 200_000_000,
    };
    let mut project = Project::with_script(&[&format!("head -c {bytes} /dev/zero")]);
    project.config.log_limit = 2 << 30;
    let (before, highest) = (resident(), peak());
    let mut going = project.start(project.request()).await;
    let count = going.count().await;
    let (finished, _) = going.finish().await;
    assert_eq!((finished.outcome, count), (Outcome::Passed, bytes));
    let grown = resident().saturating_sub(before).max(peak().saturating_sub(highest.max(before)));
    assert!(grown < 100 << 20, "{grown} bytes more");
}

fn one_stage(script: &[&str]) -> String {
    format!("image: {BUSYBOX}\nstages: [test]\n{}", stage("test", script))
}

/// What the test's own process has in memory, in bytes.
fn resident() -> u64 {
    of_status("VmRSS:")
}

/// The most that it has had.
fn peak() -> u64 {
    of_status("VmHWM:")
}

fn of_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The names and sizes of all files below a folder.
fn fingerprint(folder: &std::path::Path) -> Vec<(String, u64)> {
    let found =
        std::process::Command::new("find").arg(folder).args(["-type", "f", "-printf", "%P %s\n"]).output();
    let text = String::from_utf8(found.unwrap().stdout).unwrap();
    let mut files: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    files.sort_unstable();
    files.into_iter().map(|(name, size)| (name.to_owned(), size.parse().unwrap())).collect()
}
