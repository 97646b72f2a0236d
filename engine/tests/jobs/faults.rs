//! A Docker daemon that hangs, goes away and comes back, and others who remove what a job needs. The
//! daemon is the machine's own, behind a socket that a test can hold up.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use buildr_engine::Engine;
use buildr_manifest::Outcome;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::harness::{DerivedImage, Project, containers, docker};

/// What the way to the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing gets through, as where the daemon was stopped.
    Still,
    /// Connections end and new ones are ended at once, as where it restarts.
    Cut,
}

/// What is done once, before the first call with this text in its first line goes on.
type Hook = (&'static str, Box<dyn FnOnce() + Send>);

type Before = Arc<Mutex<Option<Hook>>>;

/// A socket before Docker's.
struct Proxy {
    folder: TempDir,
    way: watch::Sender<Way>,
    refused: watch::Receiver<u32>,
    before: Before,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("docker.sock")).unwrap();
        let (way, seen) = watch::channel(Way::Open);
        let (refusing, refused) = watch::channel(0);
        let before = Before::default();
        let task = tokio::spawn({
            let before = before.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if *seen.borrow() == Way::Cut {
                        refusing.send_modify(|count| *count += 1);
                        continue;
                    }
                    let (from, to) = client.into_split();
                    let daemon = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let (answers, asks) = daemon.into_split();
                    tokio::spawn(pump(from, asks, seen.clone(), before.clone()));
                    tokio::spawn(pump(answers, to, seen.clone(), Before::default()));
                }
            }
        });
        Self { folder, way, refused, before, task }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// A project whose Docker is behind this.
    fn stands_before(&self, mut project: Project) -> Project {
        project.config.docker_host = Some(format!("unix://{}", self.socket().display()));
        project
    }

    fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    fn before(&self, call: &'static str, act: impl FnOnce() + Send + 'static) {
        *self.before.lock().unwrap() = Some((call, Box::new(act)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    before: Before,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = tokio::select! {
            _ = way.wait_for(|way| *way == Way::Cut) => return,
            read = from.read(&mut buffer) => read.unwrap_or(0),
        };
        if way.wait_for(|way| *way != Way::Still).await.is_ok_and(|way| *way == Way::Cut) {
            return;
        }
        if length == 0 {
            return;
        }
        act_before(&before, &buffer[..length]).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn act_before(before: &Before, text: &[u8]) {
    let first = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let first = String::from_utf8_lossy(first).into_owned();
    let act = before.lock().unwrap().take_if(|(call, _)| first.contains(*call));
    if let Some((_, act)) = act {
        tokio::task::spawn_blocking(act).await.unwrap();
    }
}

/// Once the daemon is back nothing is left.
async fn reaped(project: &Project, run: &buildr_engine::RunId) {
    let engine = Engine::connect(project.config.clone()).await.unwrap();
    engine.reap(&HashSet::new()).await.unwrap();
    crate::harness::await_no_containers(&project.config.owner, run).await;
    assert!(!project.data.path().join("runs").join(run.as_str()).exists());
}

/// The daemon stands still under a stage, and the job is canceled.
async fn canceled_under_a_silent_daemon(proxy: Proxy, project: Project) {
    let mut going = project.start(project.request()).await;
    going.until("begun\n").await;
    let run = going.run.clone();
    proxy.set(Way::Still);
    going.cancel();
    let asked = Instant::now();
    let (finished, _) = going.finish().await;
    assert!(matches!(finished.outcome, Outcome::Canceled { .. }), "{finished:?}");
    assert!(asked.elapsed() < Duration::from_secs(90), "{:?}", asked.elapsed());
    proxy.set(Way::Open);
    reaped(&project, &run).await;
}

#[tokio::test]
async fn a_daemon_that_stands_still_does_not_hold_a_cancel_up_for_long() {
    let proxy = Proxy::start();
    let project = proxy.stands_before(Project::with_script(&["echo begun; sleep 1000"]));
    canceled_under_a_silent_daemon(proxy, project).await;
}

#[tokio::test]
async fn a_daemon_that_stands_still_does_not_hold_an_agent_s_cancel_up_for_long() {
    let proxy = Proxy::start();
    let project = proxy.stands_before(Project::with_script(&["echo begun; sleep 1000"]).detached());
    canceled_under_a_silent_daemon(proxy, project).await;
}

#[tokio::test]
async fn a_daemon_that_stands_still_before_the_start_is_a_fault_of_the_machine() {
    let proxy = Proxy::start();
    let project = proxy.stands_before(Project::with_script(&["echo never"]));
    let way = proxy.way.clone();
    proxy.before("/images/", move || {
        way.send_replace(Way::Still);
    });
    let going = project.start(project.request()).await;
    let run = going.run.clone();
    let (finished, _) = going.finish().await;
    let Outcome::ImageError { message } = finished.outcome else { panic!("{finished:?}") };
    assert!(message.contains("docker did not look at the image within 20 seconds"), "{message}");
    proxy.set(Way::Open);
    reaped(&project, &run).await;
}

#[tokio::test]
async fn a_detached_build_goes_on_where_the_way_to_the_daemon_was_cut_for_a_while() {
    let mut proxy = Proxy::start();
    let script = "echo begun; until [ -f go ]; do sleep 0.05; done; echo end";
    let project = proxy.stands_before(Project::with_script(&[script]).detached());
    let mut going = project.start(project.request()).await;
    going.until("begun\n").await;
    proxy.set(Way::Cut);
    proxy.refused.wait_for(|count| *count > 0).await.unwrap();
    std::fs::write(project.folder.path().join("go"), "").unwrap();
    proxy.set(Way::Open);
    let run = going.run.clone();
    let (finished, told) = going.finish().await;
    assert_eq!((finished.outcome, told.text("test").as_str()), (Outcome::Passed, "begun\nend\n"));
    reaped(&project, &run).await;
}

#[tokio::test]
async fn a_build_that_ends_with_the_connection_to_the_daemon_has_not_passed() {
    let proxy = Proxy::start();
    let project = proxy.stands_before(Project::with_script(&["echo begun; sleep 1000"]));
    let mut going = project.start(project.request()).await;
    going.until("begun\n").await;
    proxy.set(Way::Cut);
    let run = going.run.clone();
    let (finished, told) = going.finish().await;
    let Outcome::Internal { .. } = finished.outcome else { panic!("{finished:?}: {}", told.story) };
    proxy.set(Way::Open);
    reaped(&project, &run).await;
}

#[tokio::test]
async fn an_image_that_is_removed_before_the_container_is_made_is_an_image_error() {
    let proxy = Proxy::start();
    let image = DerivedImage::new(&["LABEL only=this"]);
    let project = proxy.stands_before(Project::with_image(&image.name, &["echo never"]));
    let name = image.name.clone();
    proxy.before("/containers/create", move || drop(docker(&["rmi", "-f", &name])));
    let (outcome, _) = project.outcome().await;
    let Outcome::ImageError { message } = outcome else { panic!("{outcome}") };
    assert!(message.contains(&image.name), "{message}");
}

#[tokio::test]
async fn a_container_that_others_remove_before_its_start_is_never_a_build_that_passed() {
    let proxy = Proxy::start();
    let project = proxy.stands_before(Project::with_script(&["echo never"]));
    let request = project.request();
    let (owner, run) = (project.config.owner.clone(), request.run.clone());
    proxy.before("/start", move || {
        for id in containers(&owner, &run) {
            docker(&["rm", "-f", &id]);
        }
    });
    let (outcome, told) = project.outcome_of(request).await;
    assert!(
        matches!(outcome, Outcome::Internal { .. } | Outcome::ImageError { .. }),
        "{outcome}: {}",
        told.story
    );
}
