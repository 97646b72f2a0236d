//! A project, an engine and what it tells, in words that a test can use.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buildr_engine::{
    Afterwards, Config, Engine, EventFacts, Finished, GitReference, GitSource, Identity, Item, JobRequest,
    Lifetime, RunId, SourceSpec, Stop,
};
use buildr_manifest::{EventKind, Outcome, Part, StageState, Trigger};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

/// Far more than any of these jobs takes.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) const BUSYBOX: &str = "buildr-test/busybox:1";

/// A project with a manifest, and an engine of its own.
pub(crate) struct Project {
    pub(crate) folder: TempDir,
    pub(crate) data: TempDir,
    pub(crate) config: Config,
}

/// A job that goes on.
pub(crate) struct Going {
    pub(crate) run: RunId,
    pub(crate) stop: watch::Sender<Stop>,
    items: mpsc::Receiver<Item>,
    job: tokio::task::JoinHandle<Finished>,
    told: Told,
}

/// All that a job told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<EventKind>,
    pub(crate) output: BTreeMap<String, Vec<u8>>,
    /// Output and events as one text, for tests of the order.
    pub(crate) story: String,
}

impl Project {
    pub(crate) fn new(manifest: &str) -> Self {
        images();
        let folder = tempfile::tempdir().unwrap();
        let data = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".buildr.yml"), manifest).unwrap();
        let config = Config {
            grace: Duration::from_secs(2),
            ..Config::new(data.path(), format!("test-{}", unique()))
        };
        Self { folder, data, config }
    }

    /// One stage `test` in busybox.
    pub(crate) fn with_script(entries: &[&str]) -> Self {
        Self::with_image(BUSYBOX, entries)
    }

    /// One stage `test`.
    pub(crate) fn with_image(image: &str, entries: &[&str]) -> Self {
        Self::new(&format!("image: {image}\nstages: [test]\n{}", stage("test", entries)))
    }

    pub(crate) fn detached(mut self) -> Self {
        self.config.lifetime = Lifetime::Detached { dead_man: Some(Duration::from_secs(60)) };
        self
    }

    pub(crate) async fn engine(&self) -> Engine {
        Engine::connect(self.config.clone()).await.unwrap()
    }

    pub(crate) fn request(&self) -> JobRequest {
        JobRequest {
            run: RunId::new(format!("t{}", unique())).unwrap(),
            source: SourceSpec::Folder(self.folder.path().to_owned()),
            manifest_path: None,
            trigger: Trigger::Local,
            facts: EventFacts::default(),
            pick: Default::default(),
            vars: Vec::new(),
            process_environment: BTreeMap::new(),
            part: Part::Whole,
            afterwards: Afterwards::Remove,
            identity: Identity::default(),
            timeout: None,
        }
    }

    /// Runs a job to its end.
    pub(crate) async fn run(&self) -> Told {
        self.start(self.request()).await.finish().await.1
    }

    /// Runs a job to its end and checks that nothing is left of it.
    pub(crate) async fn outcome(&self) -> (Outcome, Told) {
        self.outcome_of(self.request()).await
    }

    /// As `outcome`, of another request.
    pub(crate) async fn outcome_of(&self, request: JobRequest) -> (Outcome, Told) {
        let going = self.start(request).await;
        let (run, owner) = (going.run.clone(), self.config.owner.clone());
        let (finished, told) = going.finish().await;
        await_no_containers(&owner, &run).await;
        assert!(!self.data.path().join("runs").join(run.as_str()).exists(), "the run's folder is left");
        (finished.outcome, told)
    }

    pub(crate) async fn start(&self, request: JobRequest) -> Going {
        self.start_on_handle(&tokio::runtime::Handle::current(), request).await
    }

    /// As `start`, in a runtime that the test can end.
    pub(crate) async fn start_on(&self, runtime: &tokio::runtime::Runtime, request: JobRequest) -> Going {
        self.start_on_handle(runtime.handle(), request).await
    }

    async fn start_on_handle(&self, runtime: &tokio::runtime::Handle, request: JobRequest) -> Going {
        let config = self.config.clone();
        let engine = runtime.spawn(async { Engine::connect(config).await.unwrap() }).await.unwrap();
        let (items_in, items) = mpsc::channel(16);
        let (stop, stop_out) = watch::channel(Stop::No);
        let run = request.run.clone();
        let job = runtime.spawn(async move {
            match engine.prepare(request, &items_in, &stop_out).await {
                Ok(prepared) => engine.run(prepared, &items_in, &stop_out).await,
                Err(finished) => finished,
            }
        });
        Going { run, stop, items, job, told: Told::default() }
    }
}

impl Going {
    /// Waits until what was told has this text.
    pub(crate) async fn until(&mut self, text: &str) {
        let wait = async {
            while !self.told.story.contains(text) {
                let item = self.items.recv().await;
                self.told.take(item.unwrap_or_else(|| panic!("no {text:?} in:\n{}", self.told.story)));
            }
        };
        if timeout(LIMIT, wait).await.is_err() {
            panic!("no {text:?} in time in:\n{}", self.told.story);
        }
    }

    /// Reads all that is told and gives the number of bytes of output, none of which is kept.
    pub(crate) async fn count(&mut self) -> u64 {
        let mut count = 0;
        while let Some(item) = self.items.recv().await {
            match item {
                Item::Output(output) => count += output.data.len() as u64,
                item => self.told.take(item),
            }
        }
        count
    }

    pub(crate) fn cancel(&self) {
        self.stop.send(Stop::Cancel { by: "ann".into() }).unwrap();
    }

    pub(crate) fn kill(&self) {
        self.stop.send(Stop::Kill { by: "bob".into() }).unwrap();
    }

    pub(crate) async fn finish(mut self) -> (Finished, Told) {
        let wait = async {
            while let Some(item) = self.items.recv().await {
                self.told.take(item);
            }
            self.job.await.unwrap()
        };
        let finished = timeout(LIMIT, wait).await.expect("the job ends in time");
        let last = self.told.events.last().unwrap();
        assert!(
            matches!(last, EventKind::JobFinished { outcome, .. } if *outcome == finished.outcome),
            "{last:?} is not the end of {finished:?}"
        );
        (finished, self.told)
    }
}

impl Told {
    fn take(&mut self, item: Item) {
        match item {
            Item::Output(output) => {
                let log = self.output.entry(output.log.to_string()).or_default();
                assert_eq!(output.offset, log.len() as u64, "a gap in the output");
                log.extend_from_slice(&output.data);
                if self.story.len() < 1 << 20 {
                    self.story.push_str(&String::from_utf8_lossy(&output.data));
                }
            }
            Item::Event(event) => {
                self.story.push_str(&line(&event.kind));
                self.events.push(event.kind);
            }
        }
    }

    pub(crate) fn text(&self, stage: &str) -> String {
        String::from_utf8_lossy(self.output.get(stage).map_or(&[], |log| log)).into_owned()
    }

    pub(crate) fn state(&self, wanted: &str) -> &StageState {
        let found = self.events.iter().find_map(|event| match event {
            EventKind::StageFinished { stage, state, .. } if &**stage == wanted => Some(state),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no end of stage {wanted} in:\n{}", self.story))
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        let mut warnings = Vec::new();
        for event in &self.events {
            if let EventKind::Warning { message } = event {
                warnings.push(message.as_str());
            }
        }
        warnings
    }
}

fn line(event: &EventKind) -> String {
    match event {
        EventKind::StageStarted { stage } => format!("[{stage} started]\n"),
        EventKind::StepStarted { step, .. } => format!("[step {step}]\n"),
        EventKind::StageFinished { stage, state, .. } => format!("[{stage} {}]\n", state.word()),
        EventKind::ContainerReady { .. } => "[ready]\n".to_owned(),
        EventKind::SourceReady { .. } => "[files]\n".to_owned(),
        EventKind::ServiceReady { service, .. } => format!("[service {service}]\n"),
        EventKind::StageRetried { stage, attempt, .. } => format!("[{stage} retried after try {attempt}]\n"),
        EventKind::JobFinished { outcome, .. } => format!("[{outcome}]\n"),
        EventKind::JobStarted => "[started]\n".to_owned(),
        EventKind::SourceResolved { .. } => "[source]\n".to_owned(),
        EventKind::Planned { .. } => "[planned]\n".to_owned(),
        EventKind::Warning { message } => format!("[warning: {message}]\n"),
        EventKind::PullProgress { .. } => String::new(),
    }
}

/// A repository on this machine.
pub(crate) struct Repository(TempDir);

impl Repository {
    /// With one commit of these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        for arguments in [&["init", "-qb", "main"][..], &["add", "."], &["commit", "-qm", "first"]] {
            let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"];
            let mut git = Command::new("git");
            let status = git.arg("-C").arg(folder.path()).args(identity).args(arguments).status();
            assert!(status.unwrap().success(), "git {arguments:?}");
        }
        Self(folder)
    }

    /// A build of it.
    pub(crate) fn request(&self, project: &Project) -> JobRequest {
        let url = format!("file://{}", self.0.path().display());
        let source = GitSource { url, reference: GitReference::Default, commit: None };
        JobRequest { source: SourceSpec::Git(source), ..project.request() }
    }
}

/// A stage of a manifest.
pub(crate) fn stage(name: &str, entries: &[&str]) -> String {
    let quoted = |entry: &&str| format!("    - {}\n", serde_json::to_string(entry).unwrap());
    let script: String = entries.iter().map(quoted).collect();
    format!("{name}:\n  script:\n{script}")
}

/// An image made out of busybox by `docker commit --change`, removed with the test.
pub(crate) struct DerivedImage {
    pub(crate) name: String,
}

impl DerivedImage {
    pub(crate) fn new(changes: &[&str]) -> Self {
        Self::named(&format!("buildr-test/engine-{}:1", unique()), changes)
    }

    pub(crate) fn named(name: &str, changes: &[&str]) -> Self {
        images();
        let container = docker(&["create", BUSYBOX, "true"]);
        Self::commit(container.trim(), name, changes)
    }

    /// What is left in a container after a script.
    pub(crate) fn by_script(script: &str, changes: &[&str]) -> Self {
        images();
        let script = format!("{script}\n");
        let run = ["run", "-d", "--network", "none", BUSYBOX, "/bin/busybox", "sh", "-ec", &script];
        let container = docker(&run);
        assert_eq!(docker(&["wait", container.trim()]).trim(), "0", "{script}");
        Self::commit(container.trim(), &format!("buildr-test/engine-{}:1", unique()), changes)
    }

    /// The same, with a description of the image that no tool would write: of its architecture, and
    /// of what it does by itself.
    pub(crate) fn described(architecture: &str, script: &str, config: &serde_json::Value) -> Self {
        let made = Self::by_script(script, &[]);
        let container = docker(&["create", &made.name, "true"]);
        let name = format!("buildr-test/engine-{}:1", unique());
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file).display().to_string();
        docker(&["export", "-o", &path("layer.tar"), container.trim()]);
        docker(&["rm", container.trim()]);
        let layer = Sha256::digest(std::fs::read(path("layer.tar")).unwrap());
        let layer: String = layer.iter().map(|byte| format!("{byte:02x}")).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture, "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        let manifest =
            serde_json::json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
        std::fs::write(path("config.json"), config.to_string()).unwrap();
        std::fs::write(path("manifest.json"), manifest.to_string()).unwrap();
        let files = ["config.json", "manifest.json", "layer.tar"];
        let mut tar = Command::new("tar");
        let packed = tar.arg("-C").arg(folder.path()).args(["-cf", &path("image.tar")]).args(files).status();
        assert!(packed.unwrap().success());
        docker(&["load", "-q", "-i", &path("image.tar")]);
        Self { name }
    }

    fn commit(container: &str, name: &str, changes: &[&str]) -> Self {
        let changes: Vec<_> = changes.iter().flat_map(|change| ["--change", change]).collect();
        docker(&[&["commit"], &changes[..], &[container, name]].concat());
        docker(&["rm", container]);
        Self { name: name.to_owned() }
    }

    /// An image in which there is nothing but one file.
    pub(crate) fn empty() -> Self {
        let name = format!("buildr-test/engine-{}:1", unique());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("only"), "file").unwrap();
        let archive = folder.path().join("../").join(format!("{}.tar", unique()));
        let made =
            Command::new("tar").arg("-C").arg(folder.path()).arg("-cf").arg(&archive).arg("only").status();
        assert!(made.unwrap().success());
        docker(&["import", archive.to_str().unwrap(), &name]);
        std::fs::remove_file(archive).unwrap();
        Self { name }
    }
}

impl Drop for DerivedImage {
    fn drop(&mut self) {
        let _left = Command::new("docker").args(["rmi", "-f", &self.name]).stdout(Stdio::null()).status();
    }
}

/// Runs the docker program and gives what it says.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The ids of the containers of a run.
pub(crate) fn containers(owner: &str, run: &RunId) -> Vec<String> {
    let labels = [format!("label=buildr.agent={owner}"), format!("label=buildr.attempt={run}")];
    let list = docker(&["ps", "-aq", "--no-trunc", "--filter", &labels[0], "--filter", &labels[1]]);
    list.lines().map(str::to_owned).collect()
}

/// Waits until Docker has removed what is left to it.
pub(crate) async fn await_no_containers(owner: &str, run: &RunId) {
    let gone = async {
        while !containers(owner, run).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("the containers go away");
}

/// Makes the test images, once.
fn images() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/test-images");
        let status = Command::new(script).arg("busybox").stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "the test images can be made");
    });
}

fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
