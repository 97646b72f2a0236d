//! `needs`: which stage waits for which, and that none waits for itself.

use std::{collections::HashMap, sync::Arc};

use super::top::Top;
use crate::{
    Code, Order, Stage, StageName,
    diagnostic::{Report, Severity, quoted},
    plan::{First, Waits},
    vocabulary::nearest,
};

/// The order of the stages. None only where an error was reported.
pub(super) fn check(stages: &[Arc<Stage>], top: &Top<'_>, report: &mut Report<'_>) -> Option<Order> {
    let index: HashMap<&str, usize> =
        stages.iter().enumerate().map(|(at, stage)| (&*stage.name, at)).collect();
    let mut all_known = true;
    let waits: Vec<Waits> = stages
        .iter()
        .map(|stage| {
            let needs = stage.needs.as_ref().map(|needs| {
                let found: Vec<usize> =
                    needs.iter().filter_map(|(name, _)| index.get(&**name).copied()).collect();
                if found.len() < needs.len() {
                    all_known = false;
                    report_unknown(stage, &index, top, report);
                }
                found
            });
            Waits { needs, status: stage.when.status() }
        })
        .collect();
    let has_prepare = stages.first().is_some_and(|stage| &*stage.name == StageName::PREPARE);
    let prepare_waits = has_prepare && stages[0].needs.as_ref().is_some_and(|needs| !needs.is_empty());
    if !all_known || prepare_waits {
        return None;
    }
    let first = if has_prepare { First::BeforeAll } else { First::Ordinary };
    Order::new(&waits, first).map_err(|cycle| report_cycle(&cycle, stages, report)).ok()
}

fn report_unknown(stage: &Stage, index: &HashMap<&str, usize>, top: &Top<'_>, report: &mut Report<'_>) {
    for (name, place) in stage.needs.iter().flatten().filter(|(name, _)| !index.contains_key(&**name)) {
        let is_defined = top.unlisted.iter().any(|entry| entry.key.text == **name);
        let near = if is_defined || report.is_full(Severity::Error) {
            None
        } else {
            nearest(name, index.keys().copied().filter(|other| *other != &*stage.name))
        };
        let hint = if is_defined {
            "it is defined, but `stages` does not list it"
        } else {
            "`needs` names stages that `stages` lists"
        };
        let message =
            format!("{} needs {}, and no stage of that name runs", quoted(&stage.name), quoted(name));
        report.push(report.error(Code::UnknownStage, place.0, message).suggest(near).hint(hint));
    }
}

fn report_cycle(cycle: &[usize], stages: &[Arc<Stage>], report: &mut Report<'_>) {
    const MAX_SHOWN: usize = 10;
    let round = || cycle.iter().chain(cycle.first());
    let shown: Vec<String> = round().take(MAX_SHOWN).map(|at| quoted(&stages[*at].name)).collect();
    let end = if cycle.len() + 1 > MAX_SHOWN { " -> ..." } else { "" };
    // The place to mend it is a `needs` that names what comes later.
    let named = cycle.iter().zip(round().skip(1)).find_map(|(at, next)| {
        let needs = stages[*at].needs.as_ref()?;
        needs.iter().find(|(name, _)| *name == stages[*next].name).map(|(_, place)| *place)
    });
    let place = named.unwrap_or_else(|| stages[cycle[0]].place);
    let without = cycle.iter().find(|at| stages[**at].needs.is_none());
    let problem = report.error(
        Code::Cycle,
        place.0,
        format!("stages wait for one another: {}{end}", shown.join(" -> ")),
    );
    report.push(match (cycle, without) {
        ([_], _) => problem.hint("a stage can't wait for itself"),
        (_, Some(at)) => problem.hint(format!(
            "{} has no `needs`, so it waits for all stages that are listed before it; list it earlier, or give it a `needs`",
            quoted(&stages[*at].name)
        )),
        (_, None) => problem.hint("remove one of these `needs`"),
    });
}
