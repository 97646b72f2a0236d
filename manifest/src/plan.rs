//! What the engine carries out: a manifest resolved for one event on one machine.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{StageName, VarName};

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// What started the build.
    pub trigger: Trigger,
    /// The branch, unset on tags.
    pub branch: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// The full commit id.
    pub commit: Option<String>,
    /// The repository's URL, or the folder's path in a local run.
    pub repository: String,
    /// The environment of the process that runs the build, already narrowed to what its operator
    /// lets through. The planner takes from it what the manifest asks for.
    pub process_environment: BTreeMap<String, String>,
    /// Variables given by whoever started the build; they win over the manifest's.
    pub vars: Vec<(VarName, String)>,
}

/// What one job does: one container of `image`, the stages in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPlan {
    /// The image with its tag or digest, `:latest` where the manifest names none.
    pub image: String,
    /// The limit on the whole job's run.
    pub timeout: Duration,
    /// Inherited variables, `CI=true`, the manifest's and `Context::vars`, resolved and in order;
    /// of one name the last wins. Buildr's own (`BUILDR_*`) are added by the engine.
    pub environment: Vec<(VarName, String)>,
    /// The stages in the order in which they run, `prepare` first. Never empty.
    pub stages: Vec<StagePlan>,
}

/// What one stage does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// Its name, unique in the job.
    pub name: StageName,
    /// The entries; each is a step. Never empty.
    pub script: Vec<String>,
}
