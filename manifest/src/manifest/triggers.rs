//! `on`: which events start a build.

use crate::{Patterns, Schedule};

/// Which events start a build. `submit` and `run` always do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Triggers {
    /// Pushes to a branch.
    pub push: Option<OnPush>,
    /// New tags.
    pub tag: Option<OnTag>,
    /// Pull requests.
    pub pull_request: Option<OnPullRequest>,
    /// Schedules. Empty: none.
    pub cron: Vec<Cron>,
}

/// Which pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnPush {
    /// To these branches; none: to any.
    pub branches: Option<Patterns>,
    /// Of changes to these files; none: of any.
    pub paths: Option<Patterns>,
}

/// Which tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnTag {
    /// With these names; none: with any.
    pub tags: Option<Patterns>,
}

/// Which pull requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnPullRequest {
    /// Into these branches; none: into any.
    pub branches: Option<Patterns>,
    /// Of changes to these files; none: of any.
    pub paths: Option<Patterns>,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cron {
    /// Its name, unique in the manifest.
    pub name: String,
    /// When, in UTC.
    pub schedule: Schedule,
    /// Of which branch; none: the default branch.
    pub branch: Option<String>,
}
