//! Several jobs, tries, groups, silence: one behaviour per test.

use std::num::NonZeroU32;

use buildr_manifest::{CancelOlder, Fault};
use buildr_proto::plan::{Group, Retry, Schedule, Schedules, Terms};

use super::*;
use crate::core::{
    explain::{HeldBack, Obstacle, Standing, Unfit},
    input::{Desired, Want},
    record::AgentOrder,
};

/// An agent that takes what it is offered, and never goes away.
struct Worker {
    name: u8,
    instance: InstanceId,
}

impl Worker {
    /// One with two slots that has just connected.
    fn new(world: &mut World, name: u8) -> Self {
        let instance = InstanceId::new();
        world.hello(name, instance, name.into(), &[]).reply.unwrap();
        Self { name, instance }
    }

    fn claim(&self, attempt: AttemptId) -> Claim {
        Claim { attempt, agent: agent(self.name), instance: self.instance }
    }

    /// Takes the next offer.
    fn take(&self, world: &mut World) -> (Claim, BuildId) {
        let (attempt, build) = *world.offers(1).first().expect("an offer");
        let claim = self.claim(attempt);
        assert_eq!(world.reply(Input::Accept(claim.clone())), Ok(Reply::Accepted(Accepted::Go)));
        (claim, build)
    }

    /// Takes the next offer and reports this plan.
    fn plan(&self, world: &mut World, plan: &BuildPlan) -> (Claim, Reply) {
        let (claim, _) = self.take(world);
        let reply = world.reply(Input::Plan { claim: claim.clone(), plan: plan.clone() }).unwrap();
        (claim, reply)
    }
}

fn ends(claim: &Claim, outcome: Outcome) -> Input {
    let kinds = [story()[..3].to_vec(), Vec::new()].concat();
    let finished = EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 2 };
    let events = [kinds, vec![Event { at: Timestamp::UNIX_EPOCH, kind: finished }]].concat();
    Input::Report(Report { claim: claim.clone(), first_seq: 1, events, last: Some(Vec::new()) })
}

fn passed() -> Outcome {
    Outcome::Passed
}

fn failed() -> Outcome {
    Outcome::Oom { stage: StageName::new("test").unwrap(), peak: None, limit: None }
}

fn broken() -> Outcome {
    Outcome::ImageError { message: "no registry".to_owned() }
}

fn with_group(mut plan: BuildPlan, cancel: CancelOlder) -> BuildPlan {
    for job in &mut plan.jobs {
        job.face.group = Some(Group { name: "deploy".to_owned(), cancel });
    }
    plan
}

fn with_retry(mut plan: BuildPlan, times: u32, when: &[Fault]) -> BuildPlan {
    plan.terms.retry = Some(Retry { times, when: when.to_vec() });
    plan
}

fn kinds(world: &World, build: u64) -> Vec<BuildEventKind> {
    let events = world.written.events.iter().filter(|event| event.build == number(build));
    events.map(|event| event.kind.clone()).collect()
}

fn standing(world: &mut World, build: u64) -> Vec<Standing> {
    match world.reply(Input::Explain(number(build))) {
        Ok(Reply::Explained(jobs)) => jobs.into_iter().map(|job| job.standing).collect(),
        other => panic!("{other:?}"),
    }
}

fn obstacles(world: &mut World, build: u64) -> Vec<Obstacle> {
    match standing(world, build).remove(0) {
        Standing::Waiting { obstacles, .. } => obstacles,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_matrix_becomes_jobs_that_are_pinned_to_the_commit_and_told_apart() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let first = Worker::new(&mut world, 1);
    let (claim, reply) = first.plan(&mut world, &plan(&["x", "y"]));
    assert_eq!(reply, GO, "the job that was planned goes on");
    let ids = vec![AttemptId::new(), AttemptId::new()];
    let signals = world.step(Input::Dispatch { ids }).signals;
    let offers: Vec<_> = signals
        .into_iter()
        .filter_map(|signal| match signal {
            Signal::Offer(_, offer) => Some(offer),
            _ => None,
        })
        .collect();
    assert_eq!(offers.len(), 1);
    assert_eq!((offers[0].job.index, offers[0].planned), (2, true));
    assert_eq!(offers[0].axes, BTreeMap::from([("N".to_owned(), "y".to_owned())]));
    assert_eq!(offers[0].spec.source.commit.as_deref(), Some("c"));
    let second = first.claim(offers[0].attempt);
    world.reply(Input::Accept(second.clone())).unwrap();
    let again = Input::Plan { claim: second.clone(), plan: plan(&["other"]) };
    assert_eq!(world.reply(again), Ok(GO), "only the first plan counts");
    world.reply(ends(&claim, passed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Running);
    world.reply(ends(&second, failed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(failed()));
}

#[test]
fn a_plan_for_other_agents_is_handed_back() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let mut wanted = plan(&["main"]);
    wanted.jobs[0].labels.insert("gpu".to_owned(), "true".to_owned());
    let worker = Worker::new(&mut world, 1);
    let (claim, reply) = worker.plan(&mut world, &wanted);
    assert_eq!(reply, Reply::Planned(Planned::HandBack));
    assert_eq!(world.reply(ends(&claim, passed())), Err(Refusal::NotCurrent(claim.attempt)));
    assert!(world.offers(1).is_empty());
    let gpu = vec![("gpu".to_owned(), "true".to_owned())];
    assert_eq!(obstacles(&mut world, 1), [Obstacle::NoSuchAgent { missing: gpu.clone(), wanted: gpu }]);
}

#[test]
fn a_failure_that_is_allowed_makes_no_build_red_but_is_told() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let mut plan = plan(&["x", "y"]);
    plan.jobs[1].face.allow_failure = true;
    let worker = Worker::new(&mut world, 1);
    let (first, _) = worker.plan(&mut world, &plan);
    let (second, _) = worker.take(&mut world);
    world.reply(ends(&second, failed())).unwrap();
    let told = BuildEventKind::JobEnded { outcome: failed(), allowed: true };
    assert!(kinds(&world, 1).contains(&told));
    world.reply(ends(&first, passed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Passed));
}

#[test]
fn a_fault_that_would_be_allowed_is_no_pass() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let mut plan = plan(&["x"]);
    plan.jobs[0].face.allow_failure = true;
    let (claim, _) = Worker::new(&mut world, 1).plan(&mut world, &plan);
    world.reply(ends(&claim, broken())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(broken()));
}

#[test]
fn one_failure_ends_the_others_where_the_matrix_fails_fast_and_is_the_build_s_own() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let mut plan = plan(&["x", "y", "z"]);
    plan.terms.fail_fast = true;
    let worker = Worker::new(&mut world, 1);
    let (first, _) = worker.plan(&mut world, &plan);
    let (second, _) = worker.take(&mut world);
    let signals = world.step(ends(&second, failed())).signals;
    let cancel = Want::Cancel { by: "job 1.2, which failed".to_owned() };
    let told = |signal: &Signal| matches!(signal, Signal::Desired(_, Desired { attempt, want }) if *attempt == first.attempt && *want == cancel);
    assert!(signals.iter().any(told));
    assert_eq!(world.state_of(1), BuildState::Running, "the one that was told has to say that it is gone");
    world.reply(ends(&first, Outcome::Canceled { by: "x".to_owned() })).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(failed()));
}

#[test]
fn a_matrix_keeps_to_its_most_at_the_same_time() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let mut plan = plan(&["x", "y"]);
    plan.terms.max_parallel = NonZeroU32::new(1);
    let worker = Worker::new(&mut world, 1);
    let (first, _) = worker.plan(&mut world, &plan);
    assert!(world.offers(2).is_empty());
    let most = Obstacle::HeldBack(HeldBack::MaxParallel { most: 1 });
    let Standing::Waiting { obstacles, .. } = standing(&mut world, 1).remove(1) else { panic!() };
    assert_eq!(obstacles, [most]);
    world.reply(ends(&first, passed())).unwrap();
    assert_eq!(world.offers(2).len(), 1);
}

#[test]
fn a_job_is_tried_again_after_the_faults_that_its_manifest_names_and_so_often() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let wanted = with_retry(plan(&["x"]), 1, &[Fault::ImageError]);
    let worker = Worker::new(&mut world, 1);
    let (claim, _) = worker.plan(&mut world, &wanted);
    world.reply(ends(&claim, broken())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Running);
    assert!(kinds(&world, 1).contains(&BuildEventKind::JobRetried { outcome: broken(), next: 2, tries: 2 }));
    let (claim, _) = worker.plan(&mut world, &wanted);
    world.reply(ends(&claim, broken())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(broken()));
}

#[test]
fn a_red_test_is_never_tried_again() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let wanted = with_retry(plan(&["x"]), 5, &Fault::ALL);
    let (claim, _) = Worker::new(&mut world, 1).plan(&mut world, &wanted);
    world.reply(ends(&claim, failed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(failed()));
}

#[test]
fn a_lost_agent_is_given_up_soon_where_the_job_can_go_elsewhere_and_fences_itself_before() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    let wanted = with_retry(plan(&["x"]), 1, &[Fault::AgentLost]);
    let worker = Worker::new(&mut world, 1);
    let (claim, reply) = worker.plan(&mut world, &wanted);
    let Reply::Planned(Planned::Go { fence_after: Some(fence) }) = reply else { panic!("{reply:?}") };
    let limits = Limits::default();
    assert!(fence < limits.short_lease, "it ends its containers before another agent may begin");
    world.reply(report(&claim, 1, &story()[..2])).unwrap();
    world.wait(69);
    assert!(world.losses().is_empty());
    world.wait(1);
    assert_eq!(world.losses(), [true]);
    // The next try is the last, so nobody will have the job after it, and the lease is the long one.
    let other = Worker::new(&mut world, 2);
    let (claim, reply) = other.plan(&mut world, &wanted);
    assert_eq!(reply, GO);
    world.reply(report(&claim, 1, &story()[..2])).unwrap();
    world.wait(609);
    assert_eq!(world.losses(), [true]);
    world.wait(1);
    let lost = Outcome::AgentLost { agent: "agent 2".to_owned() };
    assert_eq!(world.state_of(1), BuildState::Finished(lost));
}

#[test]
fn silence_is_told_once_and_so_is_its_end() {
    let (mut world, claim) = accepted();
    let silences = |world: &World| {
        let silent = |kind: &BuildEventKind| matches!(kind, BuildEventKind::AgentSilent { .. });
        kinds(world, 1).iter().filter(|kind| silent(kind)).count()
    };
    world.wait(14);
    assert_eq!(silences(&world), 0);
    world.wait(1);
    world.wait(100);
    let kind = BuildEventKind::AgentSilent {
        agent_name: "agent 1".to_owned(),
        silent_for: Duration::from_secs(15),
        lost_in: Duration::from_secs(595),
    };
    assert_eq!(kinds(&world, 1).last(), Some(&kind));
    world.reply(report(&claim, 1, &story()[..1])).unwrap();
    let back =
        BuildEventKind::AgentBack { agent_name: "agent 1".to_owned(), silent_for: Duration::from_secs(115) };
    assert!(kinds(&world, 1).contains(&back));
    world.wait(14);
    assert_eq!(silences(&world), 1);
}

#[test]
fn a_cancel_is_acknowledged_with_its_time_and_what_was_removed() {
    let (mut world, claim) = accepted();
    world.reply(Input::Cancel { build: number(1), by: "eve".to_owned() }).unwrap();
    world.now += Duration::from_millis(1200);
    world.reply(ends(&claim, passed())).unwrap();
    let took = Duration::from_millis(1200);
    let confirmed = BuildEventKind::CancelConfirmed { took, containers_removed: Some(2) };
    assert!(kinds(&world, 1).contains(&confirmed));
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Canceled { by: "eve".to_owned() }));
}

/// The plan of build 1 in a group, and then that of build 2.
fn two_in_a_group(cancel: CancelOlder) -> (World, Worker, (Claim, Reply), (Claim, Reply)) {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    world.submit("two", spec("a", 0));
    let worker = Worker::new(&mut world, 1);
    let first = worker.plan(&mut world, &with_group(plan(&["x"]), cancel));
    let second = worker.plan(&mut world, &with_group(plan(&["x"]), cancel));
    (world, worker, first, second)
}

#[test]
fn jobs_of_a_group_run_one_at_a_time() {
    let (mut world, worker, (first, reply), (_, second)) = two_in_a_group(CancelOlder::None);
    assert_eq!((reply, second), (GO, Reply::Planned(Planned::HandBack)));
    assert!(world.offers(1).is_empty());
    let holder = JobId { build: number(1), index: 1 };
    let busy = HeldBack::Group { group: "deploy".to_owned(), holder };
    assert_eq!(obstacles(&mut world, 2), [Obstacle::HeldBack(busy)]);
    world.reply(ends(&first, passed())).unwrap();
    let (claim, build) = worker.take(&mut world);
    assert_eq!(build, number(2));
    world.reply(ends(&claim, passed())).unwrap();
    assert_eq!(world.state_of(2), BuildState::Finished(Outcome::Passed));
}

#[test]
fn a_group_is_one_repository_s() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    world.submit("two", spec("b", 0));
    let worker = Worker::new(&mut world, 1);
    for _ in 0..2 {
        let (_, reply) = worker.plan(&mut world, &with_group(plan(&["x"]), CancelOlder::None));
        assert_eq!(reply, GO);
    }
}

#[test]
fn a_newer_job_takes_the_place_of_the_ones_that_wait_and_not_of_the_one_that_runs() {
    let (mut world, worker, (first, _), _) = two_in_a_group(CancelOlder::Queued);
    world.submit("three", spec("a", 0));
    let (_, third) = worker.plan(&mut world, &with_group(plan(&["x"]), CancelOlder::Queued));
    assert_eq!(third, Reply::Planned(Planned::HandBack));
    assert_eq!(world.state_of(2), BuildState::Finished(Outcome::Superseded { by: 3 }));
    assert_eq!(world.state_of(1), BuildState::Running);
    world.reply(ends(&first, passed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Passed));
    assert_eq!(world.offers(1)[0].1, number(3));
}

#[test]
fn a_newer_job_ends_the_one_that_runs_where_it_says_so_and_waits_until_that_is_gone() {
    let (mut world, worker, (first, _), (_, second)) = two_in_a_group(CancelOlder::Running);
    assert_eq!(second, Reply::Planned(Planned::HandBack));
    assert!(world.offers(1).is_empty(), "the first one still has its containers");
    world.reply(ends(&first, passed())).unwrap();
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Superseded { by: 2 }));
    let (_, build) = worker.take(&mut world);
    assert_eq!(build, number(2));
}

#[test]
fn an_older_build_that_is_planned_late_is_superseded_at_once() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    world.submit("two", spec("a", 0));
    let worker = Worker::new(&mut world, 1);
    let (first, _) = worker.take(&mut world);
    let plan = with_group(plan(&["x"]), CancelOlder::Queued);
    let (_, reply) = worker.plan(&mut world, &plan);
    assert_eq!(reply, GO);
    let late = world.reply(Input::Plan { claim: first, plan });
    assert_eq!(late, Ok(Reply::Planned(Planned::HandBack)), "nothing of it is to run");
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Superseded { by: 2 }));
}

#[test]
fn why_says_what_the_scheduler_sees() {
    let mut world = World::new();
    for key in ["one", "two", "three", "four"] {
        world.submit(key, spec("a", 0));
    }
    assert_eq!(obstacles(&mut world, 1), [Obstacle::NoAgents]);
    let worker = Worker::new(&mut world, 1);
    assert_eq!(obstacles(&mut world, 1), [], "its turn is now");
    let (first, _) = worker.take(&mut world);
    worker.take(&mut world);
    let busy = |why: Unfit| vec![Obstacle::Agent { name: "agent 1".to_owned(), why }];
    assert_eq!(obstacles(&mut world, 3), busy(Unfit::Busy { slots: 2 }));
    let ahead = |standing: &Standing| match standing {
        Standing::Waiting { ahead, .. } => *ahead,
        other => panic!("{other:?}"),
    };
    assert_eq!([3, 4].map(|build| ahead(&standing(&mut world, build)[0])), [0, 1]);
    let by = "eve".to_owned();
    world.reply(Input::Order { agent: agent(1), order: AgentOrder::Drain { by: by.clone() } }).unwrap();
    assert_eq!(obstacles(&mut world, 3), busy(Unfit::Drained { by }));
    world.reply(ends(&first, passed())).unwrap();
    assert!(world.offers(4).is_empty());
    world.reply(Input::Order { agent: agent(1), order: AgentOrder::Resume }).unwrap();
    let (attempt, build) = world.offers(1)[0];
    assert_eq!(build, number(3));
    let claim = worker.claim(attempt);
    world.reply(Input::Decline { claim, reason: "the disk is full".to_owned() }).unwrap();
    let why = "the disk is full".to_owned();
    assert_eq!(obstacles(&mut world, 3), busy(Unfit::Paused { why }));
}

#[test]
fn how_many_are_ahead_is_how_many_are_given_out_before() {
    let mut world = World::new();
    for (key, repository, priority) in
        [("1", "a", 0), ("2", "a", 0), ("3", "a", 0), ("4", "b", 0), ("5", "c", 7), ("6", "b", 0)]
    {
        world.submit(key, spec(repository, priority));
    }
    let mut ahead: Vec<(usize, u64)> = (1..=6)
        .map(|build| match standing(&mut world, build).remove(0) {
            Standing::Waiting { ahead, .. } => (ahead, build),
            other => panic!("{other:?}"),
        })
        .collect();
    ahead.sort_unstable();
    assert_eq!(ahead.iter().map(|(ahead, _)| *ahead).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    for name in 1..=3 {
        Worker::new(&mut world, name);
    }
    let order: Vec<u64> = world.offers(10).iter().map(|(_, build)| build.get()).collect();
    assert_eq!(order, ahead.iter().map(|(_, build)| *build).collect::<Vec<_>>());
}

#[test]
fn an_agent_is_removed_only_while_it_is_away_and_what_it_had_is_lost() {
    let (mut world, _) = accepted();
    let remove = || Input::Order { agent: agent(1), order: AgentOrder::Remove };
    assert_eq!(world.reply(remove()), Err(Refusal::Connected("agent 1".to_owned())));
    world.reply(Input::Gone { agent: agent(1), session: SessionId(1) }).unwrap();
    world.reply(remove()).unwrap();
    assert_eq!(world.losses(), [true]);
    assert_eq!(world.reply(Input::Agents), Ok(Reply::Agents(Vec::new())));
}

fn nightly(of_default_branch: bool, branch: &str, schedule: &str) -> Schedules {
    let entry = Schedule { name: "nightly".to_owned(), schedule: schedule.to_owned(), branch: None };
    Schedules { branch: branch.to_owned(), of_default_branch, entries: vec![entry] }
}

fn planned_with(world: &mut World, schedules: Schedules) {
    let key = world.now.to_string() + &schedules.branch + &schedules.entries[0].schedule;
    world.submit(&key, spec("a", 0));
    let worker = Worker::new(world, 1);
    let plan = BuildPlan { schedules: Some(schedules), ..plan(&["x"]) };
    let (claim, _) = worker.plan(world, &plan);
    world.reply(ends(&claim, passed())).unwrap();
    world.reply(Input::Gone { agent: agent(1), session: SessionId(1) }).unwrap();
}

fn upcoming(world: &mut World) -> Vec<String> {
    match world.reply(Input::Upcoming) {
        Ok(Reply::Upcoming(times)) => times.iter().map(|(at, _, name)| format!("{name} {at}")).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_schedule_of_the_default_branch_starts_builds_at_its_times() {
    let mut world = World::new();
    planned_with(&mut world, nightly(true, "main", "0 3 * * *"));
    assert_eq!(upcoming(&mut world), ["nightly 1970-01-01T03:00:00Z"]);
    world.wait(3 * 3600 - 1);
    assert_eq!(world.written.new_builds.len(), 1);
    world.wait(1);
    let build = world.written.new_builds[1].clone();
    assert_eq!(build.spec.trigger, Trigger::Cron);
    assert_eq!(build.spec.cron.as_deref(), Some("nightly"));
    assert_eq!(build.spec.source.reference, Reference::Branch("main".to_owned()));
    assert_eq!(upcoming(&mut world), ["nightly 1970-01-02T03:00:00Z"]);
}

#[test]
fn what_came_due_while_nobody_was_there_is_started_once() {
    let mut world = World::new();
    planned_with(&mut world, nightly(true, "main", "*/5 * * * *"));
    let timetables = world.written.timetables.values().cloned().collect();
    world.state = State::new(Limits::default(), 2);
    world.state.restore_farm(BTreeMap::new(), timetables);
    world.wait(10 * 24 * 3600);
    world.wait(1);
    assert_eq!(world.written.new_builds.len(), 2);
}

#[test]
fn only_the_default_branch_decides_what_is_scheduled() {
    let mut world = World::new();
    planned_with(&mut world, nightly(false, "feature", "* * * * *"));
    assert!(upcoming(&mut world).is_empty());
    planned_with(&mut world, nightly(true, "main", "0 3 * * *"));
    planned_with(&mut world, nightly(false, "feature", "* * * * *"));
    assert_eq!(upcoming(&mut world), ["nightly 1970-01-01T03:00:00Z"]);
    // By its name, too, once that is known.
    planned_with(&mut world, nightly(false, "main", "0 4 * * *"));
    assert_eq!(upcoming(&mut world), ["nightly 1970-01-01T04:00:00Z"]);
}

#[test]
fn what_was_stored_of_a_matrix_is_taken_up_after_a_restart() {
    let (world, ..) = two_in_a_group(CancelOlder::None);
    let terms = world.written.builds[&number(1)].terms.clone();
    assert_eq!(terms, Some(Terms::default()));
    let group = |build: u64| world.written.jobs[&(number(build), 1)].face.group.clone();
    assert_eq!(group(1), group(2));
}
