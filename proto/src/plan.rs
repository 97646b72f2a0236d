//! What a manifest wants of the farm, as domain types: an agent reads it, the orchestrator acts on it.

use std::{collections::BTreeMap, num::NonZeroU32};

use buildr_manifest::{CancelOlder, Fault, StageName};
use serde::{Deserialize, Serialize};

/// All jobs of a build, and what is asked for them as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildPlan {
    /// The commit that was resolved; all jobs are pinned to it.
    pub commit: Option<String>,
    /// The jobs in the manifest's order. Never empty where it was received.
    pub jobs: Vec<PlannedJob>,
    /// What holds for all of them.
    pub terms: Terms,
    /// The schedules, where the build is of a branch.
    pub schedules: Option<Schedules>,
}

/// What a manifest asks for its jobs as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// After what and how often a job is tried again.
    pub retry: Option<Retry>,
    /// How many run at the same time.
    pub max_parallel: Option<NonZeroU32>,
    /// One that fails ends the others.
    pub fail_fast: bool,
}

/// After what a job is tried again by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Extra tries.
    pub times: u32,
    /// After these faults.
    pub when: Vec<Fault>,
}

/// One job of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedJob {
    /// What tells it apart, and what its end means.
    pub face: Face,
    /// Labels that its agent must have.
    pub labels: BTreeMap<String, String>,
    /// The image of the build container.
    pub image: String,
    /// The stages in order.
    pub stages: Vec<StageName>,
}

/// What is kept of a planned job for as long as the build is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Face {
    /// The values of its axes with `-` between them; `main` without a matrix.
    pub name: String,
    /// The variables that the matrix sets.
    pub axes: BTreeMap<String, String>,
    /// Its failure does not fail the build.
    pub allow_failure: bool,
    /// The group of which one job runs at a time.
    pub group: Option<Group>,
}

/// Jobs of one repository that name the same group run one at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// What a newer job does to older ones.
    pub cancel: CancelOlder,
}

/// All schedules of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedules {
    /// The branch that is built.
    pub branch: String,
    /// It is known to be the default branch.
    pub of_default_branch: bool,
    /// When builds are wanted.
    pub entries: Vec<Schedule>,
}

/// When a build is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name, unique in the manifest.
    pub name: String,
    /// The five fields of cron, in UTC.
    pub schedule: String,
    /// The branch to build; none: the default branch.
    pub branch: Option<String>,
}

impl Retry {
    /// Whether a job that ended so is tried again, after so many extra tries.
    pub fn wants_another(&self, outcome: &buildr_manifest::Outcome, tries: u32) -> bool {
        tries < self.times && Fault::of(outcome).is_some_and(|fault| self.when.contains(&fault))
    }
}
