//! From a manifest and a context to a plan: templates filled, variables resolved, conditions held
//! against the event.

use std::{collections::HashSet, sync::Arc};

use super::{
    Decision, Job, Plan, PlannedCache, PlannedService, PlannedStage, Start, VarMap, Variables, start,
    variables,
};
use crate::{
    Combination, Context, Diagnostics, Manifest, Place, Stage, Template, Trigger, VarName,
    check::{image_problem, workdir_problem},
    diagnostic::{Code, Diagnostic, quoted},
    glob::Work,
    template::{Facts, InvalidTemplate, Text},
    when::Situation,
};

/// More problems than this are not told.
const MAX_PROBLEMS: usize = 20;

impl Manifest {
    /// What a build does for this context. The errors are those that only values can cause: what a
    /// template becomes is no image, or no folder of the workspace.
    pub fn plan(&self, context: &Context) -> Result<Plan, Diagnostics> {
        self.plan_within(context, Work::of_a_plan())
    }

    /// The same, with a limit on how much may be compared.
    pub(crate) fn plan_within(&self, context: &Context, work: Work) -> Result<Plan, Diagnostics> {
        let mut planner = Planner::new(self, context, work);
        let combinations =
            self.matrix.as_ref().map_or_else(|| vec![Combination::default()], |m| m.combinations());
        let jobs = (1..).zip(&combinations).map(|(number, values)| planner.job(number, values)).collect();
        let Planner { mut warnings, mut problems, situation, .. } = planner;
        let mut told = HashSet::new();
        warnings.retain(|warning| told.insert(warning.clone()));
        let start = start::start(self.on.as_ref(), &situation);
        if situation.work.is_used_up() {
            let message = "the conditions of this manifest take too long to compare with this event";
            let problem = self.origin.error(Code::TooLarge, Place::default(), message);
            problems.push(problem.hint("use fewer or simpler globs in `paths` and `var`"));
        }
        if !problems.is_empty() {
            return Err(Diagnostics::from(problems));
        }
        if let Start::No { why } = &start {
            warnings.push(format!("the event starts no build by itself: {why}"));
        }
        Ok(Plan { manifest: Arc::new(self.clone()), start, jobs, warnings })
    }
}

/// What all jobs of a plan have in common, and what is told of them.
struct Planner<'m> {
    manifest: &'m Manifest,
    situation: Situation,
    facts: Facts,
    /// The manifest's, for every stage.
    shared: Variables,
    stages: Vec<SharedStage>,
    services: Vec<(Arc<crate::Service>, Arc<VarMap>)>,
    caches: Vec<Arc<crate::Cache>>,
    warnings: Vec<String>,
    problems: Vec<Diagnostic>,
}

/// What a stage has in common in all jobs.
struct SharedStage {
    inherited: Arc<VarMap>,
    own: Arc<VarMap>,
    failures: Arc<[Option<String>]>,
}

impl<'m> Planner<'m> {
    fn new(manifest: &'m Manifest, context: &Context, work: Work) -> Self {
        let mut warnings = Vec::new();
        let situation = situation(context, work);
        let of_manifest = variables::resolve(&manifest.environment, context, &mut warnings);
        let mut lowest = of_manifest.inherited;
        lowest.extend(VarName::new("CI").ok().map(|name| (name, "true".to_owned())));
        lowest.extend(of_manifest.set);
        let given = variables::given(context, &mut warnings);
        let shared = Variables { manifest: Arc::new(lowest), given: Arc::new(given), ..Variables::default() };
        let stage = |stage: &Arc<Stage>| {
            let resolved = variables::resolve(&stage.environment, context, &mut warnings);
            SharedStage {
                inherited: Arc::new(resolved.inherited),
                own: Arc::new(resolved.set),
                failures: stage.when.failures(&situation).into(),
            }
        };
        let stages = manifest.stages.iter().map(stage).collect();
        let service = |service: &crate::Service| {
            let resolved = variables::resolve(&service.environment, context, &mut warnings);
            let mut variables = resolved.inherited;
            variables.extend(resolved.set);
            (Arc::new(service.clone()), Arc::new(variables))
        };
        let services = manifest.services.iter().map(service).collect();
        let caches = manifest.cache.iter().cloned().map(Arc::new).collect();
        let facts = Facts {
            branch: situation.branch.clone(),
            tag: situation.tag.clone(),
            commit: context.commit.clone(),
        };
        Self { manifest, situation, facts, shared, stages, services, caches, warnings, problems: Vec::new() }
    }

    fn job(&mut self, number: usize, combination: &Combination) -> Job {
        let manifest = self.manifest;
        let name = combination.name();
        let matrix = Arc::new(combination.values.iter().cloned().collect::<VarMap>());
        let variables = Variables { matrix, ..self.shared.clone() };
        let mut filler = Filler { planner: self, job: &name, variables: &variables };
        let image = filler.image(&manifest.image);
        let agent = manifest.agent.iter().map(|(label, value)| (label.clone(), filler.text(value))).collect();
        let concurrency = manifest.concurrency.as_ref().map(|c| (filler.text(&c.group), c.cancel));
        let services = filler.services();
        let cache = filler.caches();
        let stages = (0..manifest.stages.len()).map(|at| self.stage(at, &name, &variables)).collect();
        Job {
            number,
            name,
            values: combination.values.clone(),
            allow_failure: combination.allow_failure,
            image,
            agent,
            concurrency,
            services,
            cache,
            variables,
            stages,
        }
    }

    fn stage(&mut self, at: usize, job: &str, variables: &Variables) -> PlannedStage {
        let stage = &self.manifest.stages[at];
        let shared = &self.stages[at];
        let variables = Variables {
            stage_inherited: Arc::clone(&shared.inherited),
            own: Arc::clone(&shared.own),
            ..variables.clone()
        };
        let failures = Arc::clone(&shared.failures);
        let mut filler = Filler { planner: self, job, variables: &variables };
        let image = stage.image.as_ref().map(|image| filler.image(image));
        let workdir = stage.workdir.as_ref().map(|workdir| filler.workdir(workdir));
        let artifact_name = stage.artifacts.as_ref().and_then(|artifacts| artifacts.name.as_ref());
        let artifact_name = artifact_name.map(|name| filler.text(name));
        let decision = match stage.when.decide(&failures, &self.situation.work, |name| variables.get(name)) {
            Ok(status) => Decision::Run(status),
            Err(why) => Decision::Skip { why },
        };
        let stage = Arc::clone(stage);
        PlannedStage {
            stage,
            decision,
            image,
            workdir,
            artifact_name,
            variables,
            failures,
            is_left_out: false,
        }
    }

    /// Adds a problem, unless another job has it too.
    fn problem(&mut self, code: Code, template: &Template, message: String, hint: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let problem = self.manifest.origin.error(code, template.place(), message).hint(hint);
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// Fills the templates of one job or stage.
struct Filler<'p, 'm> {
    planner: &'p mut Planner<'m>,
    job: &'p str,
    variables: &'p Variables,
}

impl Filler<'_, '_> {
    fn text(&mut self, template: &Template) -> Text {
        match template.fill(&self.planner.facts, self.job, |name| self.variables.get(name)) {
            Ok(text) => text,
            Err(problem) => {
                debug_assert_eq!(problem, InvalidTemplate::TooLong, "all else was checked");
                let message = "this becomes longer than 512 bytes".to_owned();
                self.planner.problem(Code::BadTemplate, template, message, "use shorter values");
                Text::default()
            }
        }
    }

    /// An image, with `:latest` where it has neither tag nor digest.
    fn image(&mut self, template: &Template) -> Text {
        let mut text = self.text(template);
        let outline = text.outline();
        if let Some(why) = image_problem(&outline).filter(|_| self.planner.problems.is_empty()) {
            let message = format!(
                "{} becomes {}, which is not the name of an image: {why}",
                quoted(&template.to_string()),
                quoted(&text.to_string())
            );
            self.planner.problem(Code::BadImage, template, message, &self.explain(template));
        }
        if !has_tag(&outline) {
            text.push(":latest");
        }
        text
    }

    fn workdir(&mut self, template: &Template) -> Text {
        let text = self.text(template);
        if let Some(why) = workdir_problem(&text.outline()) {
            let message = format!(
                "{} becomes {}, which {why}",
                quoted(&template.to_string()),
                quoted(&text.to_string())
            );
            self.planner.problem(Code::BadPath, template, message, &self.explain(template));
        }
        text
    }

    fn services(&mut self) -> Vec<PlannedService> {
        let services = self.planner.services.clone();
        let planned = services.into_iter().map(|(service, variables)| {
            let image = self.image(&service.image);
            PlannedService { service, image, variables }
        });
        planned.collect()
    }

    fn caches(&mut self) -> Vec<PlannedCache> {
        let caches = self.planner.caches.clone();
        let planned = caches.into_iter().map(|cache| {
            let key = self.text(&cache.key);
            let restore_keys = cache.restore_keys.iter().map(|key| self.text(key)).collect();
            PlannedCache { cache, key, restore_keys }
        });
        planned.collect()
    }

    /// Which values made a template what it is.
    fn explain(&self, template: &Template) -> String {
        let shown = |name: &VarName| match self.variables.get(name) {
            Some(value) => format!("`{name}` is {}", quoted(value)),
            None => format!("`{name}` is not set"),
        };
        let values: Vec<String> = template.variables().map(shown).collect();
        if values.is_empty() {
            return format!(
                "the event is `{}`; not every event has a branch or a tag",
                self.planner.situation.trigger.word()
            );
        }
        values.join(", ")
    }
}

/// What an event brought. Tags and pull requests are of no branch, and only a pull request has a target.
fn situation(context: &Context, work: Work) -> Situation {
    let trigger = context.trigger;
    let only_if = |value: &Option<String>, holds: bool| value.clone().filter(|_| holds);
    Situation {
        trigger,
        branch: only_if(&context.branch, !matches!(trigger, Trigger::Tag | Trigger::PullRequest)),
        tag: only_if(&context.tag, matches!(trigger, Trigger::Tag | Trigger::Manual | Trigger::Local)),
        target: only_if(&context.target, trigger == Trigger::PullRequest),
        cron: only_if(&context.cron, trigger == Trigger::Cron),
        changed_paths: match trigger {
            Trigger::Push | Trigger::PullRequest | Trigger::Local => context.changed_paths.clone(),
            Trigger::Tag | Trigger::Cron | Trigger::Manual => None,
        },
        work,
    }
}

/// True for an image with a tag or digest. A `:` before the last `/` is the port of a registry.
fn has_tag(image: &str) -> bool {
    image.rsplit('/').next().unwrap_or(image).contains([':', '@'])
}
