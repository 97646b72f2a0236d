//! A manifest resolved for one event: which jobs there are, and what each of their stages does.
//!
//! A [`Plan`] is the whole meaning of a manifest. What does not depend on the event (timeouts,
//! scripts, shells, resources) stays where it is, in the manifest and its stages, which the plan
//! carries along. A [`JobPlan`] is the part of it that the engine carries out.

mod fill;
mod job_plan;
mod order;
mod part;
mod progress;
mod start;
mod variables;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{Cache, CancelOlder, Manifest, Service, Stage, Status, VarName, glob::Work, template::Text};

pub use job_plan::JobPlan;
pub use order::Order;
pub(crate) use order::{First, Waits};
pub use part::Part;
pub use progress::{Phase, Progress, Turn};
pub use start::Start;
pub use variables::{VarMap, Variables, is_reserved};

/// What started a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// `buildr run` on this machine.
    #[default]
    Local,
    /// `buildr submit`.
    Manual,
    /// A push to a branch.
    Push,
    /// A new tag.
    Tag,
    /// A pull request.
    PullRequest,
    /// A schedule.
    Cron,
}

/// All that a plan depends on beside the manifest itself. Pure data: who makes it does the I/O.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// What started the build.
    pub trigger: Trigger,
    /// The branch. Taken for unset on tags and pull requests.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The branch that a pull request is to be merged into.
    pub target: Option<String>,
    /// The name of the schedule that started the build.
    pub cron: Option<String>,
    /// The full commit id.
    pub commit: Option<String>,
    /// The repository's URL, or the folder's path in a local run.
    pub repository: String,
    /// The files that were changed, from the root of the repository with `/` between the parts; none
    /// where there is nothing to compare with.
    pub changed_paths: Option<Vec<String>>,
    /// The environment of the process that runs the build, already narrowed to what its operator
    /// lets through. The planner takes from it what the manifest asks for.
    pub process_environment: BTreeMap<String, String>,
    /// Variables given by whoever started the build; they win over the manifest's.
    pub vars: Vec<(VarName, String)>,
}

/// What a build does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The manifest: what it says of all jobs alike.
    pub manifest: Arc<Manifest>,
    /// Whether the event starts a build at all. The jobs are planned in any case.
    pub start: Start,
    /// One for each combination of the matrix; one where there is none.
    pub jobs: Vec<Job>,
    /// What the user should know, as plain sentences.
    pub warnings: Vec<String>,
}

/// One job: the manifest for one combination of the matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Job {
    /// Its number in the build, from 1.
    pub number: usize,
    /// The values of its axes with `-` between them; `main` without a matrix.
    pub name: String,
    /// The variables that the matrix sets: the axes in order, then what `include` added.
    pub values: Vec<(VarName, String)>,
    /// True where its failure does not fail the build.
    pub allow_failure: bool,
    /// The image of the build container, with its tag or digest.
    pub image: Text,
    /// Labels that its agent must have.
    pub agent: BTreeMap<String, Text>,
    /// The name of the group of which one job runs at a time, and what it does to older ones.
    pub concurrency: Option<(Text, CancelOlder)>,
    /// Containers that run beside the build's.
    pub services: Vec<PlannedService>,
    /// Files that one build leaves for the next.
    pub cache: Vec<PlannedCache>,
    /// The variables of a stage that has none of its own.
    pub variables: Variables,
    /// The stages in the order in which they are listed; [`Manifest::order`] says which waits for
    /// which.
    pub stages: Vec<PlannedStage>,
}

/// Which job of a plan is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pick {
    /// The only one; where there are several, none.
    #[default]
    Only,
    /// The only one that has these values of the matrix.
    With(BTreeMap<String, String>),
    /// The first.
    First,
    /// The one whose variables of the matrix are exactly these.
    Values(BTreeMap<String, String>),
}

/// A service of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedService {
    /// What the manifest says of it.
    pub service: Arc<Service>,
    /// Its image, with its tag or digest.
    pub image: Text,
    /// Its variables: only its own.
    pub variables: Arc<VarMap>,
}

/// A cache of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedCache {
    /// What the manifest says of it.
    pub cache: Arc<Cache>,
    /// The name under which it is found again.
    pub key: Text,
    /// Beginnings of names that do as well, the best first.
    pub restore_keys: Vec<Text>,
}

/// A stage of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedStage {
    /// What the manifest says of it.
    pub stage: Arc<Stage>,
    /// Whether it is to run, as far as that is known before anything ran.
    pub decision: Decision,
    /// The image of a container of its own, with its tag or digest.
    pub image: Option<Text>,
    /// Its working directory, below the workspace.
    pub workdir: Option<Text>,
    /// The name of its artifacts.
    pub artifact_name: Option<Text>,
    /// Its variables.
    pub variables: Variables,
    /// For each entry of `when`: why it does not hold, variables left aside.
    failures: Arc<[Option<String>]>,
    /// Nobody asked for it: see [`Part`].
    is_left_out: bool,
}

/// Whether a stage is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It runs once those that it waits for have ended so.
    Run(Status),
    /// It is skipped: none of its conditions holds.
    Skip {
        /// The condition and the actual value, in words.
        why: String,
    },
}

impl Trigger {
    /// All events.
    pub const ALL: [Self; 6] =
        [Self::Local, Self::Manual, Self::Push, Self::Tag, Self::PullRequest, Self::Cron];

    /// The word for it in manifests, tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Manual => "manual",
            Self::Push => "push",
            Self::Tag => "tag",
            Self::PullRequest => "pull_request",
            Self::Cron => "cron",
        }
    }
}

impl Plan {
    /// The job that is meant.
    pub fn job(&self, pick: &Pick) -> Option<&Job> {
        match pick {
            Pick::Only => self.jobs.first().filter(|_| self.jobs.len() == 1),
            Pick::With(_) => match self.matching(pick)[..] {
                [job] => Some(job),
                _ => None,
            },
            Pick::First => self.jobs.first(),
            Pick::Values(values) => self.jobs.iter().find(|job| job.has_exactly(values)),
        }
    }

    /// All jobs that have the values which are wanted, if any are.
    fn matching(&self, pick: &Pick) -> Vec<&Job> {
        let has_all = |job: &&Job| match pick {
            Pick::With(values) => values.iter().all(|wanted| job.has(wanted)),
            _ => true,
        };
        self.jobs.iter().filter(has_all).collect()
    }
}

impl PlannedStage {
    /// Whether it is to run, now that the stages before it have handed over these variables.
    pub fn decide(&self, handed_over: &VarMap) -> Decision {
        if self.is_left_out {
            return self.decision.clone();
        }
        let value = |name: &VarName| self.variables.get_with(name, handed_over);
        match self.stage.when.decide(&self.failures, &Work::of_a_plan(), value) {
            Ok(status) => Decision::Run(status),
            Err(why) => Decision::Skip { why },
        }
    }

    /// True where [`Self::decide`] depends on variables: what other stages hand over can change it.
    pub fn reads_variables(&self) -> bool {
        !self.is_left_out && self.stage.when.reads_variables()
    }

    /// Why it is skipped, where it is.
    pub fn skipped(&self) -> Option<&str> {
        match &self.decision {
            Decision::Run(_) => None,
            Decision::Skip { why } => Some(why),
        }
    }
}

impl Job {
    fn has(&self, (name, value): (&String, &String)) -> bool {
        self.values.iter().any(|(its, set)| **its == **name && set == value)
    }

    fn has_exactly(&self, values: &BTreeMap<String, String>) -> bool {
        self.values.len() == values.len()
            && self.values.iter().all(|(name, value)| values.get(&**name) == Some(value))
    }

    /// The stages that a stage waits for, in order: those of `order`, skipped ones replaced by what
    /// they themselves would wait for.
    pub fn waits_for(&self, order: &Order, stage: usize) -> Vec<usize> {
        let mut seen = vec![false; self.stages.len()];
        let mut open = order.needs(stage).to_vec();
        let mut found = Vec::new();
        while let Some(next) = open.pop() {
            if std::mem::replace(&mut seen[next], true) {
                continue;
            }
            match self.stages[next].decision {
                Decision::Run(_) => found.push(next),
                Decision::Skip { .. } => open.extend(order.needs(next)),
            }
        }
        found.sort_unstable();
        found
    }
}
