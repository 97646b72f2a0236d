//! Whether an event starts a build at all.

use crate::{
    Trigger, Triggers,
    when::{Situation, name_failure, paths_failure},
};

/// Whether an event starts a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It does.
    Yes,
    /// It does not.
    No {
        /// What `on` says and what the event is, in words.
        why: String,
    },
}

/// Holds `on` against an event. `submit` and `run` always start.
pub(super) fn start(on: Option<&Triggers>, situation: &Situation) -> Start {
    let Some(on) = on else { return Start::Yes };
    let Situation { trigger, branch, tag, target, cron, changed_paths, work } = situation;
    let not_named = || Some(format!("`on` does not name the event `{}`", trigger.word()));
    let paths = |patterns| paths_failure(patterns, changed_paths.as_deref(), work);
    let why = match trigger {
        Trigger::Local | Trigger::Manual => None,
        Trigger::Push => on.push.as_ref().map_or_else(not_named, |push| {
            name_failure(("branch", "branches"), push.branches.as_ref(), branch.as_deref(), situation)
                .or_else(|| paths(push.paths.as_ref()))
        }),
        Trigger::Tag => on.tag.as_ref().map_or_else(not_named, |on_tag| {
            name_failure(("tag", "tags"), on_tag.tags.as_ref(), tag.as_deref(), situation)
        }),
        Trigger::PullRequest => on.pull_request.as_ref().map_or_else(not_named, |request| {
            name_failure(
                ("target branch", "branches"),
                request.branches.as_ref(),
                target.as_deref(),
                situation,
            )
            .or_else(|| paths(request.paths.as_ref()))
        }),
        Trigger::Cron => match cron {
            Some(name) if !on.cron.iter().any(|entry| entry.name == *name) => {
                Some(format!("`on` has no schedule `{name}`"))
            }
            _ if on.cron.is_empty() => not_named(),
            _ => None,
        },
    };
    why.map_or(Start::Yes, |why| Start::No { why })
}
