//! A plan as a tree, for people. Writing to a `String` cannot fail.

use std::fmt::Write;

use buildr_engine::{JobRequest, planning::Planned};
use buildr_manifest::{AllowFailure, Diagnostic, Job, PlannedStage, Start, Status};

use super::rounds;
use crate::render::{Palette, escape::sanitize, text};

/// The whole plan.
pub(super) fn tree(
    request: &JobRequest,
    planned: &Planned,
    unsupported: &[Diagnostic],
    palette: &Palette,
) -> String {
    let (strong, warn, dim) = (palette.strong, palette.warn, palette.dim);
    let mut out = String::new();
    let _ = writeln!(out, "{strong}event {}{strong:#}{}", request.trigger.word(), situation(planned));
    if let Start::No { why } = &planned.plan.start {
        let _ = writeln!(out, "{warn}nothing would run:{warn:#} {}", sanitize(why));
    }
    for job in &planned.plan.jobs {
        out.push('\n');
        Tree { planned, job, palette, out: &mut out }.job();
    }
    if !unsupported.is_empty() {
        let _ = writeln!(out, "\n{warn}not carried out yet{warn:#}, so `buildr run` refuses this manifest:");
    }
    for problem in unsupported {
        let Diagnostic { file, line, column, message, .. } = problem;
        let place = format!("{}:{line}:{column}:", sanitize(file));
        let _ = writeln!(out, "  {dim}{place}{dim:#} {}", sanitize(message));
    }
    out
}

/// Branch, tag and commit, as far as there are.
fn situation(planned: &Planned) -> String {
    let parts = [
        ("branch", planned.branch.as_deref()),
        ("tag", planned.tag.as_deref()),
        ("commit", planned.commit.as_deref().map(text::short_commit)),
    ];
    let known = parts.into_iter().filter_map(|(what, value)| Some(format!(", {what} {}", sanitize(value?))));
    known.collect()
}

struct Tree<'a> {
    planned: &'a Planned,
    job: &'a Job,
    palette: &'a Palette,
    out: &'a mut String,
}

impl Tree<'_> {
    fn job(&mut self) {
        let Palette { strong, dim, warn, .. } = *self.palette;
        let Job { name, image, allow_failure, .. } = self.job;
        let mut facts = vec![sanitize(&image.to_string())];
        facts.push(format!("at most {}", text::duration(self.planned.plan.manifest.timeout)));
        facts.extend(allow_failure.then(|| "may fail".to_owned()));
        facts.extend(self.job.agent.iter().map(|(label, value)| sanitize(&format!("agent {label}={value}"))));
        facts.extend(
            self.job.concurrency.iter().map(|(group, _)| sanitize(&format!("one at a time in {group}"))),
        );
        let facts = facts.join(" · ");
        let _ = writeln!(self.out, "{strong}job {}{strong:#} {dim}{facts}{dim:#}", sanitize(name));
        for service in &self.job.services {
            let (name, image) = (&service.service.name, &service.image);
            let _ = writeln!(self.out, "│  {dim}service {}{dim:#}", sanitize(&format!("{name} {image}")));
        }
        let rounds = rounds(&self.planned.plan, self.job);
        for (number, round) in rounds.iter().enumerate() {
            self.round(round, number + 1 == rounds.len());
        }
        if self.job.stages.iter().all(|stage| stage.skipped().is_some()) {
            let _ = writeln!(self.out, "{warn}nothing would run:{warn:#} every stage is skipped");
        }
    }

    fn round(&mut self, round: &[usize], is_last: bool) {
        let running = round.iter().filter(|at| self.job.stages[**at].skipped().is_none()).count();
        let dim = self.palette.dim;
        if running < 2 {
            for (number, at) in round.iter().enumerate() {
                let branch = if is_last && number + 1 == round.len() { "└─" } else { "├─" };
                self.stage(branch, *at);
            }
            return;
        }
        let (branch, indent) = if is_last { ("└─┬", "  ") } else { ("├─┬", "│ ") };
        let _ = writeln!(self.out, "{branch} {dim}side by side{dim:#}");
        for (number, at) in round.iter().enumerate() {
            let branch = if number + 1 == round.len() { "└─" } else { "├─" };
            self.stage(&format!("{indent}{branch}"), *at);
        }
    }

    fn stage(&mut self, branch: &str, at: usize) {
        let Palette { dim, warn, strong, .. } = *self.palette;
        let planned = &self.job.stages[at];
        let name = sanitize(&planned.stage.name);
        let _ = match planned.skipped() {
            Some(why) => {
                writeln!(self.out, "{branch} {dim}{name}{dim:#}  {warn}skipped{warn:#}: {}", sanitize(why))
            }
            None => {
                let facts = sanitize(&facts(planned).join(" · "));
                writeln!(self.out, "{branch} {strong}{name}{strong:#}  {dim}{facts}{dim:#}")
            }
        };
    }
}

/// What is worth knowing of a stage that runs.
fn facts(planned: &PlannedStage) -> Vec<String> {
    let stage = &planned.stage;
    let mut facts = vec![match stage.script.len() {
        1 => "1 step".to_owned(),
        steps => format!("{steps} steps"),
    }];
    facts.extend(stage.needs.iter().filter(|needs| !needs.is_empty()).map(|needs| {
        let names: Vec<&str> = needs.iter().map(|(name, _)| &**name).collect();
        format!("after {}", names.join(", "))
    }));
    let image = planned.image.as_ref();
    facts.extend(image.map(|image| format!("in a container of its own: {image}")));
    let status = match planned.decision {
        buildr_manifest::Decision::Run(status) => status,
        buildr_manifest::Decision::Skip { .. } => Status::SUCCESS,
    };
    facts.extend(match (status.success, status.failure) {
        (true, true) => Some("also after a failure".to_owned()),
        (false, true) => Some("only after a failure".to_owned()),
        _ => None,
    });
    facts.extend(stage.timeout.map(|limit| format!("at most {}", text::duration(limit))));
    facts.extend(stage.retry.as_ref().map(|retry| format!("up to {} tries", retry.times + 1)));
    facts.extend(match &stage.allow_failure {
        AllowFailure::No => None,
        AllowFailure::Yes => Some("may fail".to_owned()),
        AllowFailure::ExitCodes(codes) => {
            let codes: Vec<String> = codes.iter().map(u8::to_string).collect();
            Some(format!("may exit with {}", codes.join(", ")))
        }
    });
    facts
}
