//! What people see: one story told to each renderer.

mod side_by_side;

use std::time::Duration;

use buildr_engine::job::{Item, Output};
use buildr_manifest::{Cause, Event, EventKind, Outcome, StageName, StageState, Usage};
use buildr_proto::{
    BuildId,
    build::{BuildEvent, BuildEventKind},
};
use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};

use super::*;

fn clock() -> Timestamp {
    "2026-03-01T12:00:12Z".parse().unwrap()
}

fn name(text: &str) -> StageName {
    StageName::new(text).unwrap()
}

fn event(kind: EventKind) -> Entry {
    Entry::Item(Item::Event(Event { at: "2026-03-01T12:00:00Z".parse().unwrap(), kind }))
}

fn output(stage: &str, offset: u64, text: impl AsRef<[u8]>) -> Entry {
    let data = Bytes::copy_from_slice(text.as_ref());
    let times = vec![(offset, clock()), (offset + 6, clock() + Duration::from_millis(1500))];
    Entry::Item(Item::Output(Output { log: name(stage).into(), offset, data, times }))
}

fn step(stage: &str, step: u32, command: &str, offset: u64) -> Entry {
    event(EventKind::StepStarted { stage: name(stage), step, command: command.to_owned(), offset })
}

fn finished(stage: &str, state: StageState, log_bytes: u64) -> Entry {
    let duration = Duration::from_secs(if log_bytes == 0 { 0 } else { 62 });
    let usage = Usage::default();
    event(EventKind::StageFinished { stage: name(stage), state, allowed: false, log_bytes, duration, usage })
}

fn failure() -> Outcome {
    Outcome::Failed { stage: name("test"), step: Some(1), cause: Cause::Exit { code: 101 } }
}

/// A build of three stages, of which the second fails.
fn story() -> Vec<Entry> {
    let failed = StageState::Failed { step: Some(1), cause: Cause::Exit { code: 101 } };
    vec![
        event(EventKind::JobStarted),
        event(EventKind::SourceResolved {
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            branch: Some("main".to_owned()),
            tag: None,
        }),
        event(EventKind::Planned {
            image: "busybox:1".to_owned(),
            stages: vec![name("build"), name("test"), name("deploy")],
            services: Vec::new(),
        }),
        event(EventKind::Warning { message: "stage `lint` is not listed".to_owned() }),
        event(EventKind::PullProgress {
            image: "busybox:1".to_owned(),
            current: 1_200_000,
            total: 2_000_000,
        }),
        event(EventKind::ContainerReady {
            stage: None,
            image: "busybox:1".to_owned(),
            image_id: "sha256:12".to_owned(),
            pull: Duration::ZERO,
            start: Duration::ZERO,
        }),
        event(EventKind::StageStarted { stage: name("build") }),
        step("build", 0, "make all", 0),
        output("build", 0, "first\nsecond \x1b[31mred\x1b[0m\x1b[2J\n10%\r20%"),
        output("build", 40, "\r30%\nno line break"),
        step("build", 1, "for i in 1 2; do\n  echo $i\ndone\n", 60),
        output("build", 60, "1\n2\n"),
        finished("build", StageState::Passed, 64),
        event(EventKind::StageStarted { stage: name("test") }),
        step("test", 0, "cargo build", 0),
        output("test", 0, "compiled\n"),
        step("test", 1, "cargo test", 9),
        output("test", 9, "running 1 test\nassertion failed: \x1b]0;gotcha\x07left == right"),
        finished("test", failed, 80),
        finished("deploy", StageState::NotReached { because: Some(name("test")) }, 0),
        event(EventKind::JobFinished {
            outcome: failure(),
            duration: Duration::from_secs(125),
            containers_removed: 1,
        }),
    ]
}

fn headline() -> Headline {
    Headline { build: None, reproduce: Some("buildr run --clean".to_owned()) }
}

fn plain(layout: Layout, colour: bool, entries: &[Entry]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut plain = Plain::new(&mut out, &mut err, layout, colour, TimeZone::UTC, headline());
    for entry in entries {
        plain.entry(entry).unwrap();
    }
    plain.settle().unwrap();
    drop(plain);
    (String::from_utf8_lossy(&out).into_owned(), String::from_utf8(err).unwrap())
}

#[test]
fn a_pipe_gets_plain_lines_with_their_stage() {
    let (out, err) = plain(Layout::Staged, false, &story());
    assert!(!out.contains('\x1b') && !err.contains('\x1b'));
    insta::assert_snapshot!(format!("{out}======== standard error\n{err}").replace('\r', "␍"));
}

#[test]
fn times_stand_before_lines() {
    let (out, _) = plain(Layout::Timed, false, &story()[6..10]);
    insta::assert_snapshot!(out.replace('\r', "␍"));
}

#[test]
fn raw_output_is_the_log_byte_for_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    let mut out = Vec::new();
    let mut plain = Plain::new(&mut out, Vec::new(), Layout::Raw, false, TimeZone::UTC, headline());
    plain.entry(&step("a", 0, "true", 0)).unwrap();
    plain.entry(&output("a", 0, &bytes)).unwrap();
    plain.entry(&finished("a", StageState::Passed, 256)).unwrap();
    drop(plain);
    assert_eq!(out, bytes);
}

#[test]
fn stages_side_by_side_never_share_a_line() {
    let entries = [output("a", 0, "one "), output("b", 0, "two\n"), output("a", 4, "three\n")];
    let (out, _) = plain(Layout::Staged, false, &entries);
    assert_eq!(out, "[a] one \n[b] two\n[a] three\n");
}

#[test]
fn a_line_of_megabytes_passes_through() {
    let line = "x".repeat(256 << 10);
    let mut entries: Vec<_> = (0..20u64).map(|i| output("a", i * (256 << 10), &line)).collect();
    entries.push(output("a", 20 * (256 << 10), "\n"));
    let (out, _) = plain(Layout::Staged, false, &entries);
    assert_eq!(out.len(), "[a] \n".len() + 20 * (256 << 10));
    let screen = terminal(80, &entries, |_, _| {});
    assert!(screen.contains("xxx"));
}

/// Draws the entries on a terminal of so many columns, with `look` after each; what is on it at the end.
fn terminal(columns: u16, entries: &[Entry], mut look: impl FnMut(usize, &str)) -> String {
    terminal_of(columns, headline(), entries, &mut look)
}

fn terminal_of(
    columns: u16,
    headline: Headline,
    entries: &[Entry],
    look: &mut dyn FnMut(usize, &str),
) -> String {
    let screen = Screen(std::rc::Rc::new(std::cell::RefCell::new(vt100::Parser::new(200, columns, 0))));
    let mut terminal =
        Terminal::new(screen.clone(), Box::new(move || usize::from(columns)), clock, true, headline);
    for (index, entry) in entries.iter().enumerate() {
        terminal.entry(entry).unwrap();
        terminal.settle().unwrap();
        look(index, &screen.text());
    }
    drop(terminal);
    screen.text()
}

#[derive(Clone)]
struct Screen(std::rc::Rc<std::cell::RefCell<vt100::Parser>>);

impl Screen {
    fn text(&self) -> String {
        let parser = self.0.borrow();
        let text = parser.screen().contents();
        text.trim_end().to_owned()
    }
}

impl io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().process(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_terminal_shows_one_status_line_and_keeps_all_output() {
    let mut seen = String::new();
    let end = terminal(72, &story(), |index, screen| {
        if [1, 4, 8, 17].contains(&index) {
            seen.push_str(&format!("======== after entry {index}\n{screen}\n"));
        }
    });
    insta::assert_snapshot!(format!("{seen}======== at the end\n{end}"));
}

#[test]
fn a_narrow_terminal_has_no_leftovers_of_the_status_line() {
    let end = terminal(20, &story(), |_, screen| {
        assert!(screen.matches(SPINNER_FIRST).count() <= 1, "{screen}");
    });
    assert!(!end.contains(SPINNER_FIRST), "{end}");
}

const SPINNER_FIRST: &str = "⠋";

#[test]
fn a_window_that_becomes_narrower_is_cleaned_of_the_wrapped_status_line() {
    let columns = std::rc::Rc::new(std::cell::Cell::new(60usize));
    let mut out = Vec::new();
    let width = columns.clone();
    let mut terminal = Terminal::new(&mut out, Box::new(move || width.get()), clock, false, headline());
    terminal.entry(&event(EventKind::StageStarted { stage: name("a") })).unwrap();
    terminal.entry(&step("a", 0, "a command that fills the status line to its end, surely", 0)).unwrap();
    terminal.settle().unwrap();
    columns.set(20);
    terminal.tick().unwrap();
    drop(terminal);
    // 59 columns are three rows of 20: two rows up, then everything below goes.
    assert!(String::from_utf8(out).unwrap().contains("\x1b[2A\r\x1b[J"));
}

#[test]
fn a_farm_build_says_what_the_farm_does() {
    let farm = |kind| {
        let at = "2026-03-01T12:00:00Z".parse().unwrap();
        let build = BuildId::new(42).unwrap();
        Entry::Farm(BuildEvent { seq: 1, at, build, job: 0, attempt: None, kind })
    };
    let entries = [
        farm(BuildEventKind::Queued),
        farm(BuildEventKind::AttemptAccepted { agent_name: "north\x1b[2J".to_owned() }),
        Entry::ConnectionLost { why: "connection refused".to_owned() },
        Entry::ConnectionBack,
        farm(BuildEventKind::AttemptLost { reason: "the agent was silent".to_owned(), requeued: true }),
        farm(BuildEventKind::CancelRequested { by: "ann".to_owned() }),
        Entry::LogIncomplete { log: name("test").into(), missing: 12_345 },
        farm(BuildEventKind::Finished(Outcome::Canceled { by: "ann".to_owned() })),
    ];
    let headline = Headline { build: BuildId::new(42), reproduce: None };
    let mut err = Vec::new();
    let mut plain = Plain::new(Vec::new(), &mut err, Layout::Staged, false, TimeZone::UTC, headline.clone());
    entries.iter().for_each(|entry| plain.entry(entry).unwrap());
    drop(plain);
    let screen = terminal_of(80, headline, &entries, &mut |_, _| {});
    let err = String::from_utf8(err).unwrap();
    insta::assert_snapshot!(format!("{err}======== on a terminal\n{screen}"));
}

#[test]
fn json_has_one_object_per_line_and_cuts_no_character() {
    let mut out = Vec::new();
    let mut json = Json::new(&mut out, Vec::new());
    let mut entries =
        vec![output("a", 0, b"gr\xc3"), output("a", 3, b"\xbcn\n"), output("a", 6, b"\xff\xfe")];
    entries.push(output("a", 8, b"end\xe2\x82"));
    entries.push(finished("a", StageState::Passed, 13));
    entries.iter().for_each(|entry| json.entry(entry).unwrap());
    drop(json);
    let lines: Vec<serde_json::Value> =
        str::from_utf8(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let outputs: Vec<_> = lines
        .iter()
        .filter(|line| line["event"] == "output")
        .map(|line| {
            (line["offset"].as_u64().unwrap(), line["text"].as_str().or(line["base64"].as_str()).unwrap())
        })
        .collect();
    assert_eq!(outputs, [(0, "gr"), (2, "ün\n"), (6, "//4="), (8, "end"), (11, "4oI=")]);
    assert_eq!(lines.last().unwrap()["event"], "stage_finished");
}
