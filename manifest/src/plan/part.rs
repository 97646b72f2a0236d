//! A part of a job: some of its stages are left out, as if their conditions did not hold.

use serde::{Deserialize, Serialize};

use super::{Decision, Plan, PlannedStage};
use crate::{
    Diagnostics, StageName,
    diagnostic::{Code, Report, quoted},
    vocabulary::nearest,
};

/// Which stages are wanted. `prepare` always is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// All of them.
    #[default]
    Whole,
    /// This one. What it waits for is taken as met.
    Stage(StageName),
    /// This one and all that are listed after it.
    From(StageName),
}

impl Plan {
    /// The same, where only a part of each job is to run. A name that no stage has is an error.
    pub fn narrowed(mut self, part: &Part) -> Result<Self, Diagnostics> {
        let (name, why) = match part {
            Part::Whole => return Ok(self),
            Part::Stage(name) => (name, format!("only {} was asked for", quoted(name))),
            Part::From(name) => (name, format!("what was asked for begins with {}", quoted(name))),
        };
        let stages = &self.manifest.stages;
        let Some(first) = stages.iter().position(|stage| stage.name == *name) else {
            return Err(self.unknown(name));
        };
        let is_wanted = |at: usize, planned: &PlannedStage| match part {
            _ if &*planned.stage.name == StageName::PREPARE => true,
            Part::From(_) => at >= first,
            _ => at == first,
        };
        for job in &mut self.jobs {
            for (at, planned) in job.stages.iter_mut().enumerate() {
                if !is_wanted(at, planned) {
                    planned.decision = Decision::Skip { why: why.clone() };
                    planned.is_left_out = true;
                }
            }
        }
        Ok(self)
    }

    fn unknown(&self, name: &StageName) -> Diagnostics {
        let source = self.manifest.origin.source();
        let mut report = Report::new(&source);
        let names = || self.manifest.stages.iter().map(|stage| &*stage.name);
        let place = self.manifest.keys.get("stages").unwrap_or_default();
        let message = format!("no stage of this manifest is called {}", quoted(name));
        let hint = format!("the stages are {}", names().collect::<Vec<_>>().join(", "));
        let problem = report.error(Code::UnknownStage, place.0, message);
        report.push(problem.suggest(nearest(name, names())).hint(hint));
        report.finish()
    }
}
