//! `when`: the conditions under which a stage runs, and what they say of one event.
//!
//! Two questions are kept apart. Whether the event, the files and the variables are as a condition
//! wants them is known before anything runs; which `status` it wants of the stages before is not.

use std::{collections::BTreeMap, fmt};

use crate::{Patterns, Place, Trigger, VarName, glob::Work};

/// When a stage runs: where any entry holds. Without an entry: after a success, whatever the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// The entries; of one mapping there is one.
    pub any: Vec<Conditions>,
}

/// Conditions that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conditions {
    /// The branch; never holds on tags and pull requests.
    pub branch: Option<Patterns>,
    /// The tag.
    pub tag: Option<Patterns>,
    /// The branch that a pull request is to be merged into.
    pub target: Option<Patterns>,
    /// What started the build.
    pub event: Option<Events>,
    /// The name of the schedule that started it.
    pub cron: Option<Patterns>,
    /// The files that were changed.
    pub paths: Option<Patterns>,
    /// Variables of the stage.
    pub var: BTreeMap<VarName, Patterns>,
    /// How the stages that it waits for ended.
    pub status: Status,
    /// Where it stands.
    pub place: Place,
}

/// A set of events. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Events(Vec<Trigger>);

/// After which ends of the stages before it a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where all of them passed.
    pub success: bool,
    /// Where one of them failed, timed out or was not reached, or the job is being canceled.
    pub failure: bool,
}

/// What conditions are held against: one event, and what it brought. Made from a context, where an
/// event has no branch or tag whatever the context says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Situation {
    pub(crate) trigger: Trigger,
    pub(crate) branch: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) target: Option<String>,
    pub(crate) cron: Option<String>,
    pub(crate) changed_paths: Option<Vec<String>>,
    /// How much may be compared.
    pub(crate) work: Work,
}

impl Status {
    /// `success`, the default.
    pub const SUCCESS: Self = Self { success: true, failure: false };
    /// `failure`.
    pub const FAILURE: Self = Self { success: false, failure: true };
    /// `always`.
    pub const ALWAYS: Self = Self { success: true, failure: true };

    /// What suffices for either of two.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { success: self.success || other.success, failure: self.failure || other.failure }
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::SUCCESS
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.success, self.failure) {
            (true, true) => "always",
            (false, true) => "failure",
            _ => "success",
        })
    }
}

impl Events {
    /// A set; none where it would be empty.
    pub(crate) fn new(events: Vec<Trigger>) -> Option<Self> {
        (!events.is_empty()).then_some(Self(events))
    }

    /// True for an event of the set.
    pub fn contains(&self, event: Trigger) -> bool {
        self.0.contains(&event)
    }

    /// The events.
    pub fn iter(&self) -> impl Iterator<Item = Trigger> {
        self.0.iter().copied()
    }
}

impl When {
    /// After which ends it may run at all, whatever the event.
    pub fn status(&self) -> Status {
        let statuses = self.any.iter().map(|conditions| conditions.status);
        statuses.reduce(Status::or).unwrap_or_default()
    }

    /// For each entry: why it does not hold, variables left aside.
    pub(crate) fn failures(&self, situation: &Situation) -> Vec<Option<String>> {
        self.any.iter().map(|conditions| conditions.failure(situation)).collect()
    }

    /// The status that is wanted, given what [`Self::failures`] said and the stage's variables; or why
    /// the stage is skipped.
    pub(crate) fn decide<'v>(
        &self,
        failures: &[Option<String>],
        work: &Work,
        var: impl Fn(&VarName) -> Option<&'v str>,
    ) -> Result<Status, String> {
        let mut status: Option<Status> = None;
        let mut reasons: Vec<String> = Vec::new();
        for (conditions, failure) in self.any.iter().zip(failures) {
            match failure.clone().or_else(|| conditions.var_failure(work, &var)) {
                None => status = Some(status.map_or(conditions.status, |other| other.or(conditions.status))),
                Some(reason) if !reasons.contains(&reason) => reasons.push(reason),
                Some(_) => {}
            }
        }
        match status {
            Some(status) => Ok(status),
            None if self.any.is_empty() => Ok(Status::SUCCESS),
            None => Err(reasons.join("; ")),
        }
    }

    /// True where a variable has a say.
    pub(crate) fn reads_variables(&self) -> bool {
        self.any.iter().any(|conditions| !conditions.var.is_empty())
    }
}

impl Conditions {
    /// The first condition that does not hold, with the actual value, in words.
    fn failure(&self, situation: &Situation) -> Option<String> {
        let Situation { trigger, branch, tag, target, cron, changed_paths, work } = situation;
        if let Some(events) = self.event.as_ref().filter(|events| !events.contains(*trigger)) {
            return Some(format!("the event is `{}`, and `event` asks for {events}", trigger.word()));
        }
        name_failure(("branch", "branch"), self.branch.as_ref(), branch.as_deref(), situation)
            .or_else(|| name_failure(("tag", "tag"), self.tag.as_ref(), tag.as_deref(), situation))
            .or_else(|| {
                name_failure(("target branch", "target"), self.target.as_ref(), target.as_deref(), situation)
            })
            .or_else(|| name_failure(("schedule", "cron"), self.cron.as_ref(), cron.as_deref(), situation))
            .or_else(|| paths_failure(self.paths.as_ref(), changed_paths.as_deref(), work))
    }

    fn var_failure<'v>(&self, work: &Work, var: &impl Fn(&VarName) -> Option<&'v str>) -> Option<String> {
        self.var.iter().find_map(|(name, patterns)| match var(name) {
            Some(value) if patterns.matches_within(value, work) => None,
            Some(value) => Some(format!(
                "the variable `{name}` is `{}`, and `var` asks for {patterns}",
                shortened(value)
            )),
            None => Some(format!("the variable `{name}` is not set, and `var` asks for {patterns}")),
        })
    }
}

/// Why a name does not match: with nothing set, nothing does. `what` is the name of, `key` asks for it.
pub(crate) fn name_failure(
    (what, key): (&str, &str),
    patterns: Option<&Patterns>,
    value: Option<&str>,
    situation: &Situation,
) -> Option<String> {
    let patterns = patterns?;
    let trigger = situation.trigger;
    match value {
        Some(value) if patterns.matches_within(value, &situation.work) => None,
        Some(value) => Some(format!("the {what} is `{}`, and `{key}` asks for {patterns}", shortened(value))),
        None => {
            let event = trigger.word();
            Some(format!("there is no {what} (the event is `{event}`), and `{key}` asks for {patterns}"))
        }
    }
}

/// Why no changed file matches. Where there is nothing to compare with, the condition holds.
pub(crate) fn paths_failure(
    patterns: Option<&Patterns>,
    changed: Option<&[String]>,
    work: &Work,
) -> Option<String> {
    let (patterns, changed) = (patterns?, changed?);
    if changed.iter().any(|path| patterns.matches_within(path, work)) {
        return None;
    }
    Some(match changed {
        [] => format!("no file was changed, and `paths` asks for {patterns}"),
        [only] => format!("only `{}` was changed, and `paths` asks for {patterns}", shortened(only)),
        [first, rest @ ..] => format!(
            "of the {} changed files (`{}` is the first) none is what `paths` asks for, {patterns}",
            rest.len() + 1,
            shortened(first)
        ),
    })
}

/// A value in a message.
fn shortened(value: &str) -> String {
    crate::diagnostic::quoted(value).trim_matches('`').to_owned()
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(number, event)| {
            write!(f, "{}`{}`", if number == 0 { "" } else { ", " }, event.word())
        })
    }
}
