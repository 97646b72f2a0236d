//! Stages that run side by side, services, retries, and what was used up.

use buildr_manifest::{LogName, ServiceName};

use super::*;

fn at(seconds: i64, kind: EventKind) -> Entry {
    let begin: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    Entry::Item(Item::Event(Event { at: begin + Duration::from_secs(seconds as u64), kind }))
}

fn started(seconds: i64, stage: &str) -> Entry {
    at(seconds, EventKind::StageStarted { stage: name(stage) })
}

fn ended(stage: &str, state: StageState, allowed: bool, usage: Usage) -> Entry {
    let log_bytes = if matches!(state, StageState::Skipped { .. }) { 0 } else { 12_345 };
    let duration = Duration::from_millis(4_200);
    at(10, EventKind::StageFinished { stage: name(stage), state, allowed, log_bytes, duration, usage })
}

fn exit(code: i32) -> StageState {
    StageState::Failed { step: Some(0), cause: Cause::Exit { code } }
}

fn usage() -> Usage {
    Usage {
        user_cpu: Duration::from_millis(3_000),
        system_cpu: Duration::from_millis(500),
        max_rss: 1 << 20,
        peak_memory: Some(312 << 20),
        network_received: Some(3_400_000),
        network_sent: Some(12_000),
    }
}

fn pull(image: &str, current: u64) -> Entry {
    let image = image.to_owned();
    event(EventKind::PullProgress { image, current, total: 10_000_000 })
}

fn container(stage: Option<&str>, image: &str) -> Entry {
    event(EventKind::ContainerReady {
        stage: stage.map(name),
        image: image.to_owned(),
        image_id: "sha256:12".to_owned(),
        pull: Duration::from_millis(3_200),
        start: Duration::from_millis(210),
    })
}

/// Three stages side by side, one of them tried again, one of an image of its own, and a service.
fn story() -> Vec<Entry> {
    let service = ServiceName::new("db").unwrap();
    vec![
        at(0, EventKind::JobStarted),
        at(1, EventKind::SourceReady { took: Duration::from_millis(1_250) }),
        at(
            1,
            EventKind::Planned {
                image: "busybox:1".to_owned(),
                stages: ["build", "test", "lint", "docs", "deploy"].map(name).to_vec(),
                services: vec![service.clone()],
            },
        ),
        pull("busybox:1", 1_000_000),
        pull("postgres:16", 4_500_000),
        container(None, "busybox:1"),
        at(
            2,
            EventKind::ServiceReady {
                service: service.clone(),
                image: "postgres:16".to_owned(),
                image_id: "sha256:34".to_owned(),
                took: Duration::from_millis(2_100),
            },
        ),
        started(2, "build"),
        step("build", 0, "make all", 0),
        output("build", 0, "compiling "),
        started(4, "lint"),
        started(5, "test"),
        step("lint", 0, "lint src", 0),
        step("test", 0, "cargo test", 0),
        output("test", 0, "test a "),
        output("lint", 0, "warning: x\nwarn"),
        output("build", 10, "one\ncompiling two"),
        output("test", 7, "ok\ntest b "),
        at(
            6,
            EventKind::StageRetried {
                stage: name("test"),
                attempt: 1,
                attempts: 3,
                state: exit(42),
                log_bytes: 17,
                pause: Duration::from_secs(5),
            },
        ),
        output("lint", 15, "ing: y\n"),
        ended("lint", exit(3), true, Usage::default()),
        step("test", 0, "cargo test", 17),
        output("test", 17, "test a ok\n"),
        ended("build", StageState::Passed, false, usage()),
        output("test", 27, "test b "),
        container(Some("docs"), "mkdocs:9"),
        ended("test", StageState::Oom, false, usage()),
        ended("docs", StageState::TimedOut, false, Usage::default()),
        ended(
            "deploy",
            StageState::Skipped { why: "branch is main, not release".to_owned() },
            false,
            Usage::default(),
        ),
        at(
            11,
            EventKind::JobFinished {
                outcome: Outcome::Oom { stage: name("test"), peak: Some(312 << 20), limit: Some(512 << 20) },
                duration: Duration::from_secs(11),
                containers_removed: 3,
            },
        ),
    ]
}

#[test]
fn on_a_terminal_lines_say_whose_they_are_while_several_stages_run() {
    let mut seen = String::new();
    let end = terminal(80, &story(), |index, screen| {
        if [4, 14, 17, 18, 22].contains(&index) {
            seen.push_str(&format!("======== after entry {index}\n{screen}\n"));
        }
    });
    insta::assert_snapshot!(format!("{seen}======== at the end\n{end}"));
}

#[test]
fn forty_columns_are_enough() {
    let mut seen = String::new();
    let end = terminal(40, &story(), |index, screen| {
        if [4, 17].contains(&index) {
            seen.push_str(&format!("======== after entry {index}\n{screen}\n"));
        }
    });
    insta::assert_snapshot!(format!("{seen}======== at the end\n{end}"));
}

#[test]
fn a_pipe_has_whole_lines_of_each_stage() {
    let (out, err) = plain(Layout::Staged, false, &story());
    insta::assert_snapshot!(format!("{out}======== standard error\n{err}"));
}

#[test]
fn every_stage_that_runs_is_in_the_status_line_or_counted() {
    for columns in [20, 30, 40, 60, 100] {
        terminal(columns, &story(), |index, screen| {
            if index != 17 {
                return;
            }
            let status = screen.lines().last().unwrap();
            let named = ["build", "lint", "test"].iter().filter(|stage| status.contains(**stage)).count();
            let all =
                named == 3 || status.contains(&format!("+{}", 3 - named)) || status.contains("3 stages");
            assert!(all, "{columns} columns: {status}");
        });
    }
}

#[test]
fn what_a_service_prints_says_that_it_is_a_services() {
    let log = LogName::from(ServiceName::new("db").unwrap());
    let data = Bytes::from_static(b"listening\nwaiting");
    let entry = Entry::Item(Item::Output(Output { log, offset: 0, data, times: Vec::new() }));
    let entries = [started(0, "a"), output("a", 0, "one "), entry, output("a", 4, "two\n")];
    let (out, _) = plain(Layout::Staged, false, &entries);
    assert_eq!(out, "[a] one \n[services/db] listening\n[a] two\n");
    let screen = terminal(80, &entries, |_, _| {});
    assert_eq!(screen, "▸ a\n[services/db] listening\none two");
    let mut out = Vec::new();
    let mut json = Json::new(&mut out, Vec::new());
    json.entry(&entries[2]).unwrap();
    drop(json);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        "{\"event\":\"output\",\"service\":\"db\",\"offset\":0,\"text\":\"listening\\nwaiting\"}\n"
    );
}

#[test]
fn lines_that_are_cut_anywhere_are_never_glued_to_another_stages() {
    let logs = [("a", "a1\na2\na3\n"), ("b", "b1\nb2 longer\nb3\n"), ("c", "c\n\nc\n")];
    let mut entries: Vec<Entry> = logs.iter().map(|(stage, _)| started(0, stage)).collect();
    for offset in 0..20 {
        for (stage, log) in logs {
            let byte = log.as_bytes().get(offset..offset + 1);
            entries.extend(byte.map(|byte| output(stage, offset as u64, byte)));
        }
    }
    let (out, _) = plain(Layout::Staged, false, &entries);
    let screen = terminal(80, &entries, |_, _| {});
    for (stage, log) in logs {
        let prefix = format!("[{stage}] ");
        let of = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| line.strip_prefix(prefix.trim_end()))
                .map(|line| line.trim().to_owned())
                .collect()
        };
        let expected: Vec<&str> = log.lines().collect();
        assert_eq!(of(&out), expected);
        assert_eq!(of(&screen), expected);
    }
}
