//! `buildr run --dry-run`: the plan of a build, and nothing else. Needs no Docker.

mod document;
mod tree;

use std::str::FromStr;

use buildr_engine::{JobRequest, planning::plan_folder};
use buildr_manifest::{Job, Pick};

use crate::{Error, Exit, render::escape::sanitize_lines, screen::Screen};

/// `AXIS=VALUE`, one value of an axis of the matrix.
#[derive(Clone, Debug)]
pub(super) struct AxisValue(String, String);

impl FromStr for AxisValue {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (axis, value) = text.split_once('=').ok_or("give AXIS=VALUE")?;
        Ok(Self(axis.to_owned(), value.to_owned()))
    }
}

impl AxisValue {
    /// Axis and value.
    pub(super) fn pair(&self) -> (&str, &str) {
        (&self.0, &self.1)
    }

    fn is_of(&self, job: &Job) -> bool {
        job.values.iter().any(|(axis, value)| **axis == *self.0 && *value == self.1)
    }
}

/// How the plan is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Tree,
    /// One JSON document.
    Json,
}

/// Plans a build and prints the plan.
pub(super) fn run(
    request: &JobRequest,
    wanted: &[AxisValue],
    form: Form,
    screen: &Screen,
) -> Result<Exit, Error> {
    let mut planned = plan_folder(request).map_err(Error::Plan)?;
    let unsupported =
        planned.plan.supported_job(&Pick::First).err().map(|problems| problems.items).unwrap_or_default();
    planned.plan.jobs.retain(|job| wanted.iter().all(|value| value.is_of(job)));
    if planned.plan.jobs.is_empty() {
        let values: Vec<String> =
            wanted.iter().map(|AxisValue(axis, value)| format!("{axis}={value}")).collect();
        return Err(Error::usage_with(
            format!("the matrix has no job with {}", values.join(" and ")),
            "`buildr run --dry-run` shows all jobs",
        ));
    }
    if form == Form::Json {
        screen.print_json(&document::document(request, &planned, &unsupported))?;
        return Ok(Exit::OK);
    }
    for diagnostic in &planned.diagnostics {
        screen.say(&diagnostic.render(false));
    }
    for warning in planned.warnings.iter().chain(&planned.plan.warnings) {
        screen.say(&format!("warning: {}", sanitize_lines(warning)));
    }
    screen.print(tree::tree(request, &planned, &unsupported, &screen.palette()).trim_end())?;
    Ok(Exit::OK)
}

/// The running stages of a job by rounds, and each skipped one in the round in which it would run.
/// Those of a round wait for stages of earlier rounds alone.
fn rounds(planned: &buildr_manifest::Plan, job: &Job) -> Vec<Vec<usize>> {
    let order = &planned.manifest.order;
    let mut level = vec![0; job.stages.len()];
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    // In this sequence each stage comes after all that it waits for.
    for stage in order.rounds().into_iter().flatten() {
        let before = job.waits_for(order, stage);
        level[stage] = before.iter().map(|at| level[*at] + 1).max().unwrap_or(0);
        if rounds.len() <= level[stage] {
            rounds.resize(level[stage] + 1, Vec::new());
        }
        rounds[level[stage]].push(stage);
    }
    rounds.iter_mut().for_each(|round| round.sort_unstable());
    rounds
}

#[cfg(test)]
mod tests;
