//! Many builds, half of them ended at random moments: nothing of them is left on the machine or in the
//! engine.

use std::{sync::Arc, time::Duration};

use buildr_engine::{Engine, Stop};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use crate::harness::{BUSYBOX, Project, docker, stage};

/// How many builds run at once.
const AT_ONCE: usize = 4;

/// How many are run before the engine is measured.
const WARM_UP: u64 = 8;

/// What the engine's process may have more of at the end, in bytes.
const MEMORY: u64 = 64 << 20;

/// Numbers that are the same in each run of the test.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a build is made of.
fn manifest(number: u64) -> String {
    let stages = stage("first", &["echo x > made", "sleep 0.2", "(sleep 900 &)"]);
    match number % 20 {
        7 => format!(
            "image: {BUSYBOX}\nservices:\n  db: {{image: '{BUSYBOX}', command: [sleep, '1000']}}\nstages: [first]\n{stages}"
        ),
        3 | 13 => format!(
            "image: {BUSYBOX}\nstages: [first, own]\n{stages}{}  image: {BUSYBOX}\n",
            stage("own", &["cat made"])
        ),
        _ => format!("image: {BUSYBOX}\nstages: [first]\n{stages}"),
    }
}

/// Runs a build to its end, or ends it after a time.
async fn build(engine: Engine, project: Arc<Project>, number: u64, cancel: Option<Duration>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".buildr.yml"), manifest(number)).unwrap();
    let request = buildr_engine::JobRequest {
        source: buildr_engine::SourceSpec::Folder(folder.path().to_owned()),
        ..project.request()
    };
    let (items_in, mut items) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(Stop::No);
    let listening = tokio::spawn(async move { while items.recv().await.is_some() {} });
    let canceling = tokio::spawn(async move {
        if let Some(after) = cancel {
            // The moment is what is tried, so no event says when it has come.
            tokio::time::sleep(after).await;
            let kind = if after.as_millis() % 3 == 0 {
                Stop::Kill { by: "k".into() }
            } else {
                Stop::Cancel { by: "c".into() }
            };
            stop.send_replace(kind);
        }
        stop.closed().await;
    });
    if let Ok(prepared) = engine.prepare(request, &items_in, &stopped).await {
        engine.run(prepared, &items_in, &stopped).await;
    }
    drop((items_in, stopped));
    listening.await.unwrap();
    canceling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_many_builds_of_which_half_were_ended_at_random() {
    let count = std::env::var("BUILDR_TEST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let projects = [Arc::new(Project::with_script(&[])), Arc::new(Project::with_script(&[]).detached())];
    let engines = [projects[0].engine().await, projects[1].engine().await];
    let mut random = Random(0x00b1_1d5e_ed00);
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut before = None;
    let mut builds = JoinSet::new();
    for number in 0..count {
        if number == WARM_UP {
            while builds.join_next().await.transpose().unwrap().is_some() {}
            before = Some(held());
        }
        let which = usize::try_from(number % 2).unwrap();
        let (engine, project) = (engines[which].clone(), projects[which].clone());
        let cancel = (random.below(2) == 0).then(|| Duration::from_millis(random.below(1500)));
        let slot = slots.clone().acquire_owned().await.unwrap();
        builds.spawn(async move {
            build(engine, project, number, cancel).await;
            drop(slot);
        });
    }
    while builds.join_next().await.transpose().unwrap().is_some() {}
    for (project, engine) in projects.iter().zip(&engines) {
        all_gone(project, engine).await;
    }
    let (before, after) = (before.unwrap(), held());
    eprintln!("{count} builds: {before:?} before, {after:?} after");
    assert!(after.files <= before.files + 4, "{before:?} {after:?}");
    assert!(after.memory <= before.memory + MEMORY, "{before:?} {after:?}");
    assert_eq!(after.mounts, before.mounts);
}

/// Only what one was killed in the making of may be the reaper's.
async fn all_gone(project: &Project, engine: &Engine) {
    engine.reap(&std::collections::HashSet::new()).await.unwrap();
    let owner = format!("label=buildr.agent={}", project.config.owner);
    let gone = async {
        while !docker(&["ps", "-aq", "--filter", &owner]).is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the containers go away");
    for kind in ["network", "volume"] {
        assert_eq!(docker(&[kind, "ls", "-q", "--filter", &owner]), "", "{kind}");
    }
    let runs = project.data.path().join("runs");
    let left: Vec<_> = std::fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes =
        std::process::Command::new("pgrep").args(["-f", &project.data.path().display().to_string()]).output();
    assert!(processes.unwrap().stdout.is_empty());
}

/// What this process has.
#[derive(Debug)]
struct Held {
    files: usize,
    memory: u64,
    mounts: usize,
}

fn held() -> Held {
    let lines = |path: &str| std::fs::read_to_string(path).unwrap();
    let status = lines("/proc/self/status");
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Held {
        files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        memory: memory.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10,
        mounts: lines("/proc/self/mountinfo").lines().filter(|line| line.contains("buildr")).count(),
    }
}
