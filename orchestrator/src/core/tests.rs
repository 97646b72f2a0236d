//! One behaviour of the state machine per test.

mod jobs;

use std::{collections::BTreeMap, time::Duration};

use buildr_manifest::{Event, EventKind, Outcome, StageName, StageState, Trigger, Usage};
use buildr_proto::{
    AgentId, AttemptId, BuildId, InstanceId, JobId,
    build::{BuildEventKind, BuildSpec, BuildState, Reference, Source},
    plan::{BuildPlan, Face, PlannedJob},
};
use jiff::Timestamp;

use super::{
    Limits, State,
    input::{
        Accepted, Claim, Effects, Heartbeat, Hello, Input, Planned, Refusal, Reply, Report, SessionId,
        Signal, Submit,
    },
    record::{AttemptState, Batch},
};

pub(crate) fn spec(repository: &str, priority: i32) -> BuildSpec {
    BuildSpec {
        source: Source { repository: repository.to_owned(), reference: Reference::Default, commit: None },
        trigger: Trigger::Manual,
        manifest_path: None,
        variables: Vec::new(),
        labels: BTreeMap::new(),
        priority,
        cron: None,
    }
}

pub(crate) fn agent(name: u8) -> AgentId {
    AgentId::from_digest(&[name; 32])
}

pub(crate) fn number(build: u64) -> BuildId {
    BuildId::new(build).unwrap()
}

/// What an agent reports of a job with one stage, from its start to its end.
pub(crate) fn story() -> Vec<Event> {
    let stage = StageName::new("test").unwrap();
    let kinds = [
        EventKind::JobStarted,
        EventKind::StageStarted { stage: stage.clone() },
        EventKind::StageFinished {
            stage,
            state: StageState::Passed,
            allowed: false,
            log_bytes: 0,
            duration: Duration::ZERO,
            usage: Usage::default(),
        },
        EventKind::JobFinished { outcome: Outcome::Passed, duration: Duration::ZERO, containers_removed: 0 },
    ];
    kinds.map(|kind| Event { at: Timestamp::UNIX_EPOCH, kind }).to_vec()
}

/// A plan with jobs of these names.
pub(crate) fn plan(names: &[&str]) -> BuildPlan {
    let job = |name: &&str| PlannedJob {
        face: Face {
            name: (*name).to_owned(),
            axes: BTreeMap::from([("N".to_owned(), (*name).to_owned())]),
            ..Face::default()
        },
        ..PlannedJob::default()
    };
    BuildPlan { commit: Some("c".to_owned()), jobs: names.iter().map(job).collect(), ..BuildPlan::default() }
}

pub(crate) const GO: Reply = Reply::Planned(Planned::Go { fence_after: None });

/// A farm without anything around it.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) written: Batch,
}

impl World {
    pub(crate) fn new() -> Self {
        let state = State::new(Limits::default(), 1);
        Self { state, now: Timestamp::UNIX_EPOCH, written: Batch::default() }
    }

    pub(crate) fn step(&mut self, input: Input) -> Effects {
        let mut effects = self.state.step(input, self.now);
        self.written.absorb(std::mem::take(&mut effects.writes));
        effects
    }

    pub(crate) fn reply(&mut self, input: Input) -> Result<Reply, Refusal> {
        self.step(input).reply
    }

    pub(crate) fn submit(&mut self, key: &str, spec: BuildSpec) -> BuildId {
        let submit = Submit { key: key.to_owned(), spec, submitted_by: "eve".to_owned() };
        match self.reply(Input::Submit(submit)) {
            Ok(Reply::Submitted(build)) => build,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn hello(
        &mut self,
        name: u8,
        instance: InstanceId,
        session: u64,
        held: &[AttemptId],
    ) -> Effects {
        self.step(Input::Hello(Hello {
            agent: agent(name),
            session: SessionId(session),
            name: format!("agent {name}"),
            instance,
            version: String::new(),
            slots: 2,
            labels: BTreeMap::new(),
            held: held.to_vec(),
            working: held.to_vec(),
            draining: false,
        }))
    }

    pub(crate) fn offers(&mut self, most: usize) -> Vec<(AttemptId, BuildId)> {
        let ids = (0..most).map(|_| AttemptId::new()).collect();
        let signals = self.step(Input::Dispatch { ids }).signals;
        let offers = signals.into_iter().filter_map(|signal| match signal {
            Signal::Offer(_, offer) => Some((offer.attempt, offer.job.build)),
            _ => None,
        });
        offers.collect()
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.step(Input::Tick);
    }

    fn state_of(&self, build: u64) -> BuildState {
        self.written.builds[&number(build)].state.clone()
    }

    fn losses(&self) -> Vec<bool> {
        let lost = |kind: &BuildEventKind| match kind {
            BuildEventKind::AttemptLost { requeued, .. } => Some(*requeued),
            _ => None,
        };
        self.written.events.iter().filter_map(|event| lost(&event.kind)).collect()
    }
}

/// A world with one agent that has accepted one attempt.
fn accepted() -> (World, Claim) {
    let mut world = World::new();
    let instance = InstanceId::new();
    world.submit("one", spec("a", 0));
    world.hello(1, instance, 1, &[]).reply.unwrap();
    let (attempt, _) = world.offers(1)[0];
    let claim = Claim { attempt, agent: agent(1), instance };
    assert_eq!(world.reply(Input::Accept(claim.clone())), Ok(Reply::Accepted(Accepted::Go)));
    (world, claim)
}

fn report(claim: &Claim, first_seq: u64, events: &[Event]) -> Input {
    Input::Report(Report { claim: claim.clone(), first_seq, events: events.to_vec(), last: None })
}

#[test]
fn an_offer_that_nobody_takes_goes_back_after_its_time() {
    let mut world = World::new();
    let instance = InstanceId::new();
    world.submit("one", spec("a", 0));
    world.hello(1, instance, 1, &[]).reply.unwrap();
    let (attempt, _) = world.offers(1)[0];
    world.wait(10);
    let late = world.reply(Input::Accept(Claim { attempt, agent: agent(1), instance }));
    assert_eq!(late, Err(Refusal::NotCurrent(attempt)));
    assert!(world.offers(1).is_empty(), "the agent is given a pause");
    world.hello(2, InstanceId::new(), 2, &[]).reply.unwrap();
    assert_eq!(world.offers(1)[0].1, number(1));
    assert_eq!(world.state_of(1), BuildState::Queued);
}

#[test]
fn an_agent_that_is_silent_gets_nothing_new() {
    let mut world = World::new();
    world.hello(1, InstanceId::new(), 1, &[]).reply.unwrap();
    world.wait(15);
    world.submit("one", spec("a", 0));
    assert!(world.offers(1).is_empty());
    let beat = Heartbeat {
        agent: agent(1),
        session: SessionId(1),
        held: Vec::new(),
        working: Vec::new(),
        draining: false,
    };
    world.reply(Input::Heartbeat(beat)).unwrap();
    assert_eq!(world.offers(1).len(), 1);
}

#[test]
fn a_lease_that_runs_out_queues_what_had_not_begun_and_loses_the_rest() {
    let (mut world, _) = accepted();
    world.wait(609);
    assert!(world.losses().is_empty());
    world.wait(1);
    assert_eq!(world.losses(), [true]);

    let (mut world, claim) = accepted();
    world.reply(report(&claim, 1, &story()[..2])).unwrap();
    world.wait(610);
    assert_eq!(world.losses(), [false]);
    let lost = Outcome::AgentLost { agent: "agent 1".to_owned() };
    assert_eq!(world.state_of(1), BuildState::Finished(lost));
    assert_eq!(world.written.attempts[&claim.attempt].state, AttemptState::Lost);
}

#[test]
fn an_attempt_whose_job_had_ended_keeps_its_outcome_when_the_agent_is_lost() {
    let (mut world, claim) = accepted();
    world.reply(report(&claim, 1, &story())).unwrap();
    world.wait(610);
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Passed));
}

#[test]
fn a_job_that_agents_keep_losing_is_given_up() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    for session in 1..=5 {
        let instance = InstanceId::new();
        world.hello(1, instance, session, &[]).reply.unwrap();
        let (attempt, _) = world.offers(1)[0];
        world.reply(Input::Accept(Claim { attempt, agent: agent(1), instance })).unwrap();
        world.reply(Input::Gone { agent: agent(1), session: SessionId(session) }).unwrap();
    }
    world.hello(1, InstanceId::new(), 6, &[]).reply.unwrap();
    assert_eq!(world.losses(), [true, true, true, true, false]);
}

#[test]
fn a_build_that_waits_too_long_expires() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    world.wait(24 * 3600 - 1);
    assert_eq!(world.state_of(1), BuildState::Queued);
    world.wait(1);
    let limit = Duration::from_secs(24 * 3600);
    assert_eq!(world.state_of(1), BuildState::Finished(Outcome::Expired { limit }));
}

#[test]
fn an_attempt_that_its_agent_does_not_name_any_more_is_lost() {
    let (mut world, _) = accepted();
    for beat in 1..=3 {
        assert!(world.losses().is_empty(), "before heartbeat {beat}");
        let beat = Heartbeat {
            agent: agent(1),
            session: SessionId(1),
            held: Vec::new(),
            working: Vec::new(),
            draining: false,
        };
        world.reply(Input::Heartbeat(beat)).unwrap();
    }
    assert_eq!(world.losses(), [true]);
}

#[test]
fn a_new_process_takes_over_what_it_names_and_loses_what_it_does_not() {
    let (mut world, claim) = accepted();
    world.reply(Input::Gone { agent: agent(1), session: SessionId(1) }).unwrap();
    let next = InstanceId::new();
    world.hello(1, next, 2, &[claim.attempt]).reply.unwrap();
    assert_eq!(world.written.attempts[&claim.attempt].instance, next);
    let old = world.reply(report(&claim, 1, &story()));
    assert_eq!(old, Err(Refusal::OtherInstance { attempt: claim.attempt, current: next }));
    world.reply(Input::Gone { agent: agent(1), session: SessionId(2) }).unwrap();
    world.hello(1, InstanceId::new(), 3, &[]).reply.unwrap();
    assert_eq!(world.losses(), [true]);
}

#[test]
fn the_same_process_that_comes_back_without_an_attempt_has_lost_it() {
    let (mut world, claim) = accepted();
    world.hello(1, claim.instance, 2, &[]).reply.unwrap();
    assert_eq!(world.losses(), [true]);
}

#[test]
fn a_silent_process_can_be_replaced_while_its_connection_is_open() {
    let mut world = World::new();
    world.hello(1, InstanceId::new(), 1, &[]).reply.unwrap();
    let second = InstanceId::new();
    let refused = world.hello(1, second, 2, &[]).reply;
    assert!(matches!(refused, Err(Refusal::AlreadyConnected { .. })));
    world.wait(15);
    let effects = world.hello(1, second, 3, &[]);
    assert!(effects.reply.is_ok());
    assert!(effects.signals.iter().any(|signal| matches!(signal, Signal::Close(SessionId(1)))));
    let old = world.reply(Input::Gone { agent: agent(1), session: SessionId(1) });
    assert_eq!(old, Ok(Reply::Done), "the end of the old connection is not the agent's");
    world.submit("one", spec("a", 0));
    assert_eq!(world.offers(1).len(), 1);
}

#[test]
fn turns_go_round_the_repositories_and_priorities_go_first() {
    let mut world = World::new();
    for (key, repository, priority) in
        [("1", "a", 0), ("2", "a", 0), ("3", "a", 0), ("4", "b", 0), ("5", "c", 7), ("6", "b", 0)]
    {
        world.submit(key, spec(repository, priority));
    }
    for name in 1..=3 {
        world.hello(name, InstanceId::new(), name.into(), &[]).reply.unwrap();
    }
    let order: Vec<u64> = world.offers(10).iter().map(|(_, build)| build.get()).collect();
    assert_eq!(order, [5, 1, 4, 2, 6, 3]);
}

#[test]
fn a_draining_agent_gets_nothing() {
    let mut world = World::new();
    world.submit("one", spec("a", 0));
    world.hello(1, InstanceId::new(), 1, &[]).reply.unwrap();
    let beat = Heartbeat {
        agent: agent(1),
        session: SessionId(1),
        held: Vec::new(),
        working: Vec::new(),
        draining: true,
    };
    world.reply(Input::Heartbeat(beat)).unwrap();
    assert!(world.offers(1).is_empty());
}

#[test]
fn a_pass_without_any_stage_is_a_fault() {
    let (mut world, claim) = accepted();
    let events = [story()[0].clone(), story()[3].clone()];
    let last = Report { claim, first_seq: 1, events: events.to_vec(), last: Some(Vec::new()) };
    world.reply(Input::Report(last)).unwrap();
    assert!(matches!(world.state_of(1), BuildState::Finished(Outcome::Internal { .. })));
}

#[test]
fn a_plan_is_asked_for_once_and_answered_again() {
    let (mut world, claim) = accepted();
    for _ in 0..2 {
        let plan = Input::Plan { claim: claim.clone(), plan: plan(&["main"]) };
        assert_eq!(world.reply(plan), Ok(GO));
    }
}

#[test]
fn a_job_whose_only_stage_failed_as_it_may_has_passed() {
    let mut world = World::new();
    let build = world.submit("one", spec("a", 0));
    let instance = InstanceId::new();
    world.hello(1, instance, 1, &[]).reply.unwrap();
    let (attempt, _) = world.offers(1)[0];
    let claim = Claim { attempt, agent: agent(1), instance };
    world.reply(Input::Accept(claim.clone())).unwrap();
    let mut events = story();
    if let EventKind::StageFinished { state, allowed, .. } = &mut events[2].kind {
        *state = StageState::Oom;
        *allowed = true;
    }
    world.reply(Input::Report(Report { claim, first_seq: 1, events, last: Some(Vec::new()) })).unwrap();
    assert_eq!(world.written.builds[&build].state, BuildState::Finished(Outcome::Passed));
}
