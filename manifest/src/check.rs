//! From the tree to a [`Manifest`]: every rule of the language that needs no machine and no event.
//!
//! All problems are reported, not the first only. Each function reports what is wrong with its own
//! part and gives back what is right about it; a value that is missing because of an error never
//! leads to a second error. What only looks wrong is left to `doubts` and `script_doubts`.

mod doubts;
mod environment;
mod fields;
mod matrix;
mod order;
mod outputs;
mod patterns;
mod script;
mod script_doubts;
mod services;
mod settings;
mod stage;
mod stages;
mod template;
mod top;
mod triggers;
mod value;
mod when;

use crate::{Code, Manifest, diagnostic::Report, place::Origin, tree::Node};

pub(crate) use template::{image_problem, workdir_problem};

/// How many stages the jobs of a manifest may have in all: a plan holds something for each.
const MAX_STAGES_IN_ALL: usize = 32_768;

/// Checks a whole manifest. None only where an error was reported.
pub(crate) fn manifest(root: &Node, report: &mut Report<'_>) -> Option<Manifest> {
    let Some(entries) = root.as_mapping() else {
        let message = format!("a manifest is a mapping of keys, and this is {}", root.kind());
        report.push(
            report
                .error(Code::WrongType, root.span, message)
                .hint("it begins like this: `image: alpine:3.20`"),
        );
        return None;
    };
    let listed = stages::listed(root.get("stages"), report);
    let top = top::Top::sort(entries, &listed, report);
    let environment = top.get("environment").map(|node| environment::check(node, report)).unwrap_or_default();
    let matrix = top.get("matrix").and_then(|node| matrix::check(node, root.key_span("matrix"), report));
    let names = template::Names::new(&environment, matrix.as_ref());
    let image = top.image(root, &names, report);
    let stages = stages::check(root, &top, &listed, &names, report);
    let order = stages.as_ref().and_then(|stages| order::check(stages, &top, report));
    let jobs = matrix.as_ref().map_or(1, |matrix| matrix.combinations().len());
    if stages.as_ref().is_some_and(|stages| jobs * stages.len() > MAX_STAGES_IN_ALL) {
        let message = format!("{jobs} jobs with all their stages are more than {MAX_STAGES_IN_ALL} stages");
        let problem = report.error(Code::TooLarge, root.key_span("matrix"), message);
        report.push(problem.hint("use fewer jobs or fewer stages"));
    }
    let settings = settings::Reader { top: &top, names: &names };
    let manifest = Manifest {
        timeout: settings.timeout(report),
        shell: settings.shell(report),
        clone: settings.clone_options(report),
        agent: settings.agent(report),
        services: top.get("services").map(|node| services::check(node, &names, report)).unwrap_or_default(),
        cache: settings.cache(report),
        on: top.get("on").and_then(|node| triggers::check(node, report)),
        concurrency: settings.concurrency(report),
        retry: settings.retry(report),
        fail_fast: settings.switch("fail_fast", false, report),
        docker: settings.switch("docker", true, report),
        resources: settings.resources(report),
        image: image?,
        environment,
        matrix,
        stages: stages?,
        order: order?,
        keys: top.keys,
        origin: Origin::new(report.source()),
    };
    doubts::check(&manifest, report);
    Some(manifest)
}
