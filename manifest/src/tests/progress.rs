//! How a job goes from its first stage to its last, whatever becomes of each.

use proptest::{collection::vec, prelude::*};

use crate::{Context, Manifest, Phase, Plan, Progress, Trigger, Turn, VarMap, VarName};

#[track_caller]
fn plan(stages: &str) -> Plan {
    let text = format!("image: a\n{stages}");
    let (manifest, _) =
        Manifest::parse(text.as_bytes(), "f").unwrap_or_else(|problems| panic!("{text}\n{problems}"));
    let context = Context { trigger: Trigger::Push, branch: Some("main".to_owned()), ..Context::default() };
    manifest.plan(&context).expect("values that fit")
}

/// Runs a job in which these stages fail; in words, what became of each, and in which order.
fn run(plan: &Plan, failing: &[&str]) -> Vec<String> {
    let name = |at: usize| plan.manifest.stages[at].name.to_string();
    drive(plan, |at, _| if failing.contains(&name(at).as_str()) { Phase::Failed } else { Phase::Passed })
        .into_iter()
        .map(|(at, phase)| match phase {
            Phase::Passed => name(at),
            Phase::Failed => format!("{} failed", name(at)),
            Phase::Skipped => format!("{} skipped", name(at)),
            Phase::NotReached { because } => {
                format!("{} not reached ({})", name(at), because.map_or("ended".to_owned(), name))
            }
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Runs a job to its end, one stage at a time.
fn drive(plan: &Plan, mut end: impl FnMut(usize, &mut Progress) -> Phase) -> Vec<(usize, Phase)> {
    let (job, order) = (&plan.jobs[0], &plan.manifest.order);
    let mut progress = Progress::new(job);
    let mut ends = Vec::new();
    while !progress.is_over() {
        let turns = progress.turns(job, order);
        let (stage, turn) = turns.into_iter().next().expect("a job that is not over goes on");
        let phase = match turn {
            Turn::Start => end(stage, &mut progress),
            Turn::Skip { .. } => Phase::Skipped,
            Turn::NotReached { because } => Phase::NotReached { because },
        };
        progress.phases[stage] = phase;
        ends.push((stage, phase));
    }
    assert!(progress.turns(job, order).is_empty());
    ends
}

#[test]
fn the_first_failure_stops_what_comes_after() {
    let plan = plan("stages: [a, b, c]\na: {script: [x]}\nb: {script: [x]}\nc: {script: [x]}\n");
    assert_eq!(run(&plan, &[]), ["a", "b", "c"]);
    assert_eq!(run(&plan, &["a"]), ["a failed", "b not reached (a)", "c not reached (a)"]);
}

#[test]
fn what_does_not_wait_for_a_failure_runs() {
    let plan = plan(
        "stages: [a, b, c]\nprepare: {script: [x]}\na: {script: [x], needs: []}\nb: {script: [x], needs: []}\nc: {script: [x], needs: [b]}\n",
    );
    assert_eq!(run(&plan, &["a"]), ["prepare", "a failed", "b", "c"]);
    let stopped =
        ["prepare failed", "a not reached (prepare)", "b not reached (prepare)", "c not reached (prepare)"];
    assert_eq!(run(&plan, &["prepare"]), stopped);
}

#[test]
fn cleanup_runs_after_a_failure_and_hides_none() {
    let plan = plan(
        "stages: [a, clean, alarm, b]\na: {script: [x]}\nclean: {script: [x], when: always}\nalarm: {script: [x], when: failure}\nb: {script: [x]}\n",
    );
    assert_eq!(run(&plan, &[]), ["a", "clean", "alarm skipped", "b"]);
    assert_eq!(run(&plan, &["a"]), ["a failed", "clean", "alarm", "b not reached (a)"]);
    assert_eq!(run(&plan, &["clean"]), ["a", "clean failed", "alarm", "b not reached (clean)"]);
}

#[test]
fn a_skipped_stage_is_looked_through() {
    let plan = plan(
        "stages: [a, b, c]\na: {script: [x]}\nb: {script: [x], needs: [a], when: {branch: dev}}\nc: {script: [x], needs: [b]}\n",
    );
    assert_eq!(run(&plan, &[]), ["a", "b skipped", "c"]);
    assert_eq!(run(&plan, &["a"]), ["a failed", "b skipped", "c not reached (a)"]);
}

#[test]
fn a_variable_that_is_handed_over_counts_when_its_reader_has_its_turn() {
    let plan = plan("stages: [a, b]\na: {script: [x]}\nb: {script: [x], when: {var: {GO: 'yes'}}}\n");
    assert_eq!(run(&plan, &[]), ["a", "b skipped"]);
    let name = VarName::new("GO").expect("a name");
    let ends = drive(&plan, |_, progress| {
        progress.handed_over = VarMap::from([(name.clone(), "yes".to_owned())]);
        Phase::Passed
    });
    assert_eq!(ends, [(0, Phase::Passed), (1, Phase::Passed)]);
}

#[test]
fn a_job_that_is_ended_starts_only_what_runs_after_failures() {
    let plan =
        plan("stages: [a, b, c]\na: {script: [x]}\nb: {script: [x]}\nc: {script: [x], when: always}\n");
    let ends = drive(&plan, |_, progress| {
        progress.ending = true;
        Phase::Passed
    });
    assert_eq!(ends, [(0, Phase::Passed), (1, Phase::NotReached { because: None }), (2, Phase::Passed)]);
}

#[test]
fn stages_side_by_side_have_their_turn_together() {
    let plan = plan(
        "stages: [a, b, c, d]\na: {script: [x]}\nb: {script: [x], needs: [a]}\nc: {script: [x], needs: [a]}\nd: {script: [x]}\n",
    );
    let mut progress = Progress::new(&plan.jobs[0]);
    progress.phases[0] = Phase::Passed;
    let turns = progress.turns(&plan.jobs[0], &plan.manifest.order);
    assert_eq!(turns, [(1, Turn::Start), (2, Turn::Start)]);
}

proptest! {
    #[test]
    fn every_stage_ends_and_none_before_what_it_waits_for(
        shapes in vec((0..4_usize, 0..4_usize, any::<bool>(), any::<u8>()), 1..12),
    ) {
        let mut text = "image: a\nstages:\n".to_owned();
        (0..shapes.len()).for_each(|at| text.push_str(&format!("  - s{at}\n")));
        for (at, (needs, when, ..)) in shapes.iter().enumerate() {
            let before = |back: usize| at.checked_sub(back).map(|at| format!("s{at}"));
            let needs = match needs {
                0 => String::new(),
                1 => ", needs: []".to_owned(),
                more => format!(", needs: [{}]", (1..=*more).filter_map(|back| before(back * 2 - 1)).collect::<Vec<_>>().join(", ")),
            };
            let when = ["", ", when: always", ", when: failure", ", when: {branch: dev}"][*when];
            text.push_str(&format!("s{at}: {{script: [x]{needs}{when}}}\n"));
        }
        let plan = plan(&text.replace("image: a\n", ""));
        let order = &plan.manifest.order;
        let ends = drive(&plan, |at, _| if shapes[at].2 { Phase::Passed } else { Phase::Failed });
        prop_assert_eq!(ends.len(), shapes.len());
        for (number, (stage, _)) in ends.iter().enumerate() {
            prop_assert!(order.needs(*stage).iter().all(|need| ends[..number].iter().any(|(done, _)| done == need)));
        }
        // The short form of the order means the same as the rule: without `needs`, all before passed.
        for (stage, phase) in &ends {
            let plain = shapes[*stage].0 == 0 && shapes[*stage].1 == 0;
            let bad = ends.iter().any(|(before, end)| before < stage && matches!(end, Phase::Failed | Phase::NotReached { .. }));
            if plain {
                prop_assert_eq!(matches!(phase, Phase::NotReached { .. }), bad, "{}", text);
            }
        }
    }
}
