//! The same project built by `buildr run` and on a farm, and what both told, compared: invariant I8.

use std::{collections::BTreeMap, thread};

use serde_json::Value;

use crate::harness::{Farm, Finished, Home, Project};

/// What a build told as JSON, and how the program that showed it ended.
pub(crate) struct Told {
    pub(crate) events: Vec<Value>,
    pub(crate) code: i32,
    stderr: String,
}

/// A build as both told it.
pub(crate) struct Both {
    pub(crate) local: Told,
    pub(crate) remote: Told,
}

/// What differs from run to run, so that it says nothing.
const OF_THE_MOMENT: [&str; 8] =
    ["at", "duration", "usage", "containers_removed", "took", "start", "pull", "by"];

impl Told {
    pub(crate) fn new(finished: &Finished) -> Self {
        let out = finished.out();
        let events = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        Self { events, code: finished.code, stderr: finished.stderr.clone() }
    }

    /// The events of this name.
    pub(crate) fn all<'t>(&'t self, event: &'t str) -> impl Iterator<Item = &'t Value> {
        self.events.iter().filter(move |told| told["event"] == event)
    }

    /// The output of a stage.
    pub(crate) fn text(&self, stage: &str) -> String {
        let of_stage = self.all("output").filter(|output| output["stage"] == stage);
        of_stage.map(|output| output["text"].as_str().unwrap()).collect()
    }

    /// How a stage ended, as its event.
    #[track_caller]
    pub(crate) fn end(&self, stage: &str) -> &Value {
        let found = self.all("stage_finished").find(|told| told["stage"] == stage);
        found.unwrap_or_else(|| panic!("no end of {stage}: {self:?}"))
    }

    /// How a stage ended, in a word.
    #[track_caller]
    pub(crate) fn state(&self, stage: &str) -> &str {
        self.end(stage)["state"].as_str().unwrap()
    }

    /// How the job ended, as its event.
    #[track_caller]
    pub(crate) fn outcome(&self) -> &Value {
        self.all("job_finished").next().unwrap_or_else(|| panic!("no end: {self:?}"))
    }

    /// All that is said of each stage, in its order, without its output.
    fn by_stage(&self) -> BTreeMap<String, Vec<Value>> {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for event in self.events.iter().filter(|told| told["event"] != "output") {
            if let Some(stage) = event["stage"].as_str()
                && event["event"].as_str().unwrap().starts_with("st")
            {
                all.entry(stage.to_owned()).or_default().push(lasting(event));
            }
        }
        all
    }

    /// The stages as they began and ended.
    fn order(&self) -> Vec<(String, String)> {
        let both = ["stage_started", "stage_finished"];
        let told = self.events.iter().filter(|told| both.iter().any(|event| told["event"] == *event));
        told.map(|told| (told["event"].to_string(), told["stage"].to_string())).collect()
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit code {}\n{}", self.code, self.stderr)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

/// An event without what is of the moment.
fn lasting(event: &Value) -> Value {
    let mut event = event.clone();
    let fields = event.as_object_mut().unwrap();
    fields.retain(|field, _| !OF_THE_MOMENT.contains(&&**field));
    event
}

impl Both {
    /// Builds a project in both ways and compares.
    #[track_caller]
    pub(crate) fn of(project: &Project) -> Self {
        let farm = Farm::new();
        let (local, remote) = thread::scope(|scope| {
            let remote = scope.spawn(|| farm.home.call(&["tail", "--json", &farm.submit(project)]));
            let local = Home::new().call(&["run", "--json", project.path().to_str().unwrap()]);
            (local, remote.join().unwrap())
        });
        Self::compared(&local, &remote)
    }

    /// The same for a manifest.
    #[track_caller]
    pub(crate) fn of_manifest(text: &str) -> Self {
        Self::of(&Project::with_manifest(text))
    }

    /// Both accounts of one build; panics where they differ in what must not.
    #[track_caller]
    pub(crate) fn compared(local: &Finished, remote: &Finished) -> Self {
        let (local, remote) = (Told::new(local), Told::new(remote));
        let both = || format!("locally: {local:?}\non the farm: {remote:?}");
        assert_eq!(local.code, remote.code, "{}", both());
        let planned = |told: &Told| told.all("planned").map(lasting).collect::<Vec<_>>();
        assert_eq!(planned(&local), planned(&remote));
        assert_eq!(local.by_stage(), remote.by_stage(), "{}", both());
        for stage in local.by_stage().keys() {
            assert_eq!(local.text(stage), remote.text(stage), "the log of {stage}");
        }
        assert_eq!(lasting(local.outcome()), lasting(remote.outcome()));
        Self { local, remote }
    }

    /// Panics unless the stages began and ended in the same order; for those that run one by one.
    #[track_caller]
    pub(crate) fn in_one_order(self) -> Self {
        assert_eq!(self.local.order(), self.remote.order());
        self
    }

    /// Panics unless both ended with this exit code.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.local.code, code, "{:?}", self.local);
        self
    }

    /// The output of a stage, which is the same in both.
    pub(crate) fn text(&self, stage: &str) -> String {
        self.local.text(stage)
    }

    /// How a stage ended, which is the same in both.
    #[track_caller]
    pub(crate) fn state(&self, stage: &str) -> &str {
        self.local.state(stage)
    }

    /// How the job ended, in a word.
    #[track_caller]
    pub(crate) fn outcome(&self) -> &str {
        self.local.outcome()["outcome"].as_str().unwrap()
    }
}
