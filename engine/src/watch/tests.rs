use std::{fs::OpenOptions, io::Write, path::PathBuf, time::Duration};

use buildr_init::wire::EndCause;
use buildr_manifest::{Event, StageName};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::job::Item;

/// A stage whose container a test plays.
struct Stage {
    folder: TempDir,
    board: watch::Sender<Board>,
    name: StageName,
    script: Vec<String>,
    status: StageStatus,
}

impl Stage {
    fn new(steps: usize) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            board: watch::channel(Board::default()).0,
            name: StageName::new("test").unwrap(),
            script: (0..steps).map(|step| format!("step {step}")).collect(),
            status: StageStatus { stage: 0, log_bytes: 0, steps: Vec::new(), end: None },
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("0.log")
    }

    fn write(&mut self, text: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.status.log_bytes += text.len() as u64;
    }

    fn step(&mut self) {
        self.status.steps.push(self.status.log_bytes);
    }

    fn report(&self) {
        self.board.send_modify(|board| {
            board.stages.insert(0, self.status.clone());
        });
    }

    fn end(&mut self) {
        self.status.end = Some(StageEnd {
            cause: EndCause::Exit(0),
            stopped: false,
            duration: Duration::ZERO,
            user_cpu: Duration::ZERO,
            system_cpu: Duration::ZERO,
            max_rss: 0,
            oom_kills: 0,
            peak_memory: None,
            network: None,
        });
        self.report();
    }

    /// Follows the stage to its end while `play` goes on, and shows the stream as text: `>0` is the
    /// first step.
    async fn follow(&mut self, play: impl AsyncFnOnce(&mut Self)) -> (Seen, String) {
        let (items, mut stream) = mpsc::channel(4096);
        let feed = Feed::new(items, None);
        let control = Arc::new(ControlFolder::open(self.folder.path()).unwrap());
        let (name, script) = (self.name.clone(), self.script.clone());
        let subject = Subject { stage: &name, script: &script, number: 0, base: 0 };
        let mut watch = Watch::new(subject, self.board.subscribe(), control, &feed, Heard::default());
        let (seen, ()) = tokio::join!(watch.follow(), play(self));
        drop(watch);
        drop(feed);
        let mut text = String::new();
        let mut offset = 0;
        while let Some(item) = stream.recv().await {
            match item {
                Item::Output(output) => {
                    assert_eq!(output.offset, offset);
                    offset += output.data.len() as u64;
                    text.push_str(std::str::from_utf8(&output.data).unwrap());
                }
                Item::Event(Event { kind: EventKind::StepStarted { step, offset: at, .. }, .. }) => {
                    assert_eq!(at, offset);
                    text.push_str(&format!(">{step}"));
                }
                Item::Event(other) => panic!("{other:?}"),
            }
        }
        (seen, text)
    }
}

#[tokio::test]
async fn steps_stand_exactly_between_the_output_before_and_after_them() {
    let mut stage = Stage::new(4);
    stage.step();
    stage.write("one ");
    stage.step();
    stage.step();
    stage.write("three ");
    stage.step();
    stage.end();
    let (seen, text) = stage.follow(async |_| {}).await;
    assert!(matches!(seen, Seen::End(_)));
    assert_eq!(text, ">0one >1>2three >3");
}

#[tokio::test]
async fn output_is_passed_on_as_it_is_reported_and_no_further() {
    let mut stage = Stage::new(1);
    let (_, text) = stage
        .follow(async |stage| {
            stage.step();
            stage.write("first ");
            stage.report();
            tokio::task::yield_now().await;
            stage.write("second ");
            let reported = stage.status.log_bytes;
            stage.write("never reported");
            stage.status.log_bytes = reported;
            stage.end();
        })
        .await;
    assert_eq!(text, ">0first second ");
}

#[tokio::test]
async fn what_was_reported_before_the_connection_ended_is_passed_on() {
    let mut stage = Stage::new(1);
    stage.step();
    stage.write("last words");
    stage.report();
    stage.board.send_modify(|board| board.closed = true);
    let (seen, text) = stage.follow(async |_| {}).await;
    assert!(matches!(seen, Seen::Closed));
    assert_eq!(text, ">0last words");
}

#[tokio::test]
async fn steps_that_make_no_sense_do_no_harm() {
    let mut stage = Stage::new(2);
    stage.write("text");
    stage.status.steps = vec![3, 1, 9, u64::MAX];
    stage.end();
    let (seen, text) = stage.follow(async |_| {}).await;
    assert!(matches!(seen, Seen::End(_)));
    assert_eq!(text, "tex>0>1t");
}

#[tokio::test]
async fn a_log_that_was_truncated_or_replaced_is_damaged_and_nothing_hangs() {
    for tamper in [
        |log: &PathBuf| std::fs::write(log, "x").unwrap(),
        |log: &PathBuf| {
            std::fs::remove_file(log).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", log).unwrap();
        },
        |log: &PathBuf| {
            std::fs::remove_file(log).unwrap();
            std::fs::create_dir(log).unwrap();
        },
    ] {
        let mut stage = Stage::new(1);
        stage.write("output");
        stage.end();
        tamper(&stage.log());
        let (seen, _) = stage.follow(async |_| {}).await;
        assert!(matches!(seen, Seen::Damaged(_)), "{seen:?}");
    }
}

#[tokio::test]
async fn following_goes_on_where_it_was_dropped() {
    let mut stage = Stage::new(1);
    stage.step();
    let text = "0123456789".repeat(60_000);
    stage.write(&text);
    stage.end();
    let (items, mut stream) = mpsc::channel(1);
    let feed = Feed::new(items, None);
    let control = Arc::new(ControlFolder::open(stage.folder.path()).unwrap());
    let subject = Subject { stage: &stage.name, script: &stage.script, number: 0, base: 0 };
    let mut watch = Watch::new(subject, stage.board.subscribe(), control, &feed, Heard::default());
    let mut heard = String::new();
    loop {
        tokio::select! {
            biased;
            item = stream.recv() => {
                if let Some(Item::Output(output)) = item {
                    assert_eq!(output.offset, heard.len() as u64);
                    heard.push_str(std::str::from_utf8(&output.data).unwrap());
                }
            }
            seen = watch.follow() => {
                assert!(matches!(seen, Seen::End(_)));
                break;
            }
        }
    }
    while let Ok(Item::Output(output)) = stream.try_recv() {
        heard.push_str(std::str::from_utf8(&output.data).unwrap());
    }
    assert_eq!(heard, text);
}
