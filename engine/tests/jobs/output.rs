//! Output: all of it, fast, and from a folder that nobody can trust.

use std::time::{Duration, Instant};

use buildr_engine::{Item, Stop};
use buildr_manifest::Outcome;
use tokio::sync::{mpsc, watch};

use crate::harness::Project;

#[tokio::test]
async fn two_hundred_megabytes_arrive_whole_and_fast() {
    const SIZE: u64 = 200 << 20;
    let project = Project::with_script(&["dd if=/dev/zero bs=1M count=200 2>/dev/null"]);
    let engine = project.engine().await;
    let (items, mut stream) = mpsc::channel(64);
    let (_stop, stop) = watch::channel(Stop::No);
    let prepared = engine.prepare(project.request(), &items, &stop).await.unwrap();
    let begin = Instant::now();
    let job = tokio::spawn(async move { engine.run(prepared, &items, &stop).await });
    let mut length = 0;
    while let Some(item) = stream.recv().await {
        if let Item::Output(output) = item {
            assert_eq!(output.offset, length);
            assert!(output.data.len() <= 256 << 10);
            length += output.data.len() as u64;
        }
    }
    assert_eq!(job.await.unwrap().outcome, Outcome::Passed);
    assert_eq!(length, SIZE);
    // A bound for a machine under load; the budgets are measured elsewhere.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn output_has_the_times_at_which_it_was_written() {
    let project = Project::with_script(&["echo one", "sleep 1", "echo two"]);
    let engine = project.engine().await;
    let (items, mut stream) = mpsc::channel(64);
    let (_stop, stop) = watch::channel(Stop::No);
    let prepared = engine.prepare(project.request(), &items, &stop).await.unwrap();
    engine.run(prepared, &items, &stop).await;
    drop(items);
    let mut times = Vec::new();
    while let Some(item) = stream.recv().await {
        if let Item::Output(output) = item {
            times.extend(output.times);
        }
    }
    let offsets: Vec<_> = times.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, [0, 4]);
    assert!(times[1].1.duration_since(times[0].1).as_millis() >= 900, "{times:?}");
}

#[tokio::test]
async fn a_control_folder_that_the_build_tampers_with_does_no_harm() {
    for tamper in [
        "rm /buildr/0.log; ln -s /etc/passwd /buildr/0.log",
        "rm /buildr/0.log; mkfifo /buildr/0.log",
        "rm /buildr/0.log; mkdir /buildr/0.log",
        ": > /buildr/0.log",
        "rm -rf /buildr/* 2>/dev/null; true",
        "rm /buildr/0.times; mkfifo /buildr/0.times",
        "dd if=/dev/urandom of=/buildr/0.times bs=16 count=999 2>/dev/null",
    ] {
        let project = Project::with_script(&[tamper, "echo after", "sleep 0.2", "echo more"]);
        let (outcome, _) = project.outcome().await;
        match outcome {
            // The script's own files are there too: without them the stage cannot go on.
            Outcome::Passed | Outcome::Failed { .. } => {}
            Outcome::Internal { message } => assert!(message.contains("damaged from within"), "{message}"),
            other => panic!("{tamper}: {other:?}"),
        }
    }
}
