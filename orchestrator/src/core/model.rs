//! Random inputs in any order: the invariants hold after each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::Duration,
};

use buildr_manifest::{CancelOlder, Event, EventKind, Fault, Outcome};
use buildr_proto::{
    AgentId, AttemptId, BuildId, InstanceId,
    build::BuildState,
    plan::{BuildPlan, Group, Retry, Terms},
};
use jiff::Timestamp;
use proptest::prelude::*;

use super::{
    JobState,
    input::{Claim, Effects, Heartbeat, Input, Report, SessionId},
    record::{AgentOrder, Batch},
    tests::{World, agent, number, plan, spec, story},
};

#[derive(Clone, Debug)]
enum Op {
    Submit {
        key: u8,
        repository: bool,
        priority: bool,
    },
    Cancel {
        build: u8,
    },
    Hello {
        agent: u8,
        restarted: bool,
        forgets: bool,
    },
    Gone {
        agent: u8,
    },
    Heartbeat {
        agent: u8,
        forgets: bool,
    },
    Dispatch,
    Accept {
        attempt: u8,
    },
    Decline {
        attempt: u8,
    },
    Plan {
        attempt: u8,
        jobs: u8,
        wish: Wish,
    },
    /// An agent's job ends badly.
    Fault {
        attempt: u8,
    },
    Order {
        agent: u8,
        what: u8,
    },
    Report {
        attempt: u8,
        events: u8,
        last: bool,
    },
    Wait {
        seconds: u16,
    },
    /// The same as another agent or process.
    Steal {
        attempt: u8,
        agent: u8,
        accept: bool,
    },
}

/// What a manifest asks for.
#[derive(Clone, Debug)]
struct Wish {
    group: Option<u8>,
    cancel: u8,
    retries: u32,
    max_parallel: u32,
    fail_fast: bool,
    allow_failure: bool,
}

fn wish() -> impl Strategy<Value = Wish> {
    (proptest::option::of(0..2u8), 0..3u8, 0..3u32, 0..3u32, any::<bool>(), any::<bool>()).prop_map(
        |(group, cancel, retries, max_parallel, fail_fast, allow_failure)| Wish {
            group,
            cancel,
            retries,
            max_parallel,
            fail_fast,
            allow_failure,
        },
    )
}

impl Wish {
    fn plan(&self, jobs: u8) -> BuildPlan {
        let mut plan = plan(&["a", "b", "c"][..jobs.into()]);
        let cancel = [CancelOlder::None, CancelOlder::Queued, CancelOlder::Running][usize::from(self.cancel)];
        for job in &mut plan.jobs {
            job.face.group = self.group.map(|name| Group { name: name.to_string(), cancel });
            job.face.allow_failure = self.allow_failure;
        }
        plan.terms = Terms {
            retry: (self.retries > 0).then(|| Retry { times: self.retries, when: Fault::ALL.to_vec() }),
            max_parallel: NonZeroU32::new(self.max_parallel),
            fail_fast: self.fail_fast,
        };
        plan
    }
}

/// A job that ends before any stage, by a fault of the machinery.
fn fault() -> Vec<Event> {
    let outcome = Outcome::ImageError { message: "no such image".to_owned() };
    let kind = EventKind::JobFinished { outcome, duration: Duration::ZERO, containers_removed: 0 };
    vec![story()[0].clone(), Event { at: Timestamp::UNIX_EPOCH, kind }]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..12u8, any::<bool>(), any::<bool>())
            .prop_map(|(key, repository, priority)| Op::Submit { key, repository, priority }),
        1 => (1..10u8).prop_map(|build| Op::Cancel { build }),
        3 => (1..4u8, any::<bool>(), any::<bool>())
            .prop_map(|(agent, restarted, forgets)| Op::Hello { agent, restarted, forgets }),
        1 => (1..4u8).prop_map(|agent| Op::Gone { agent }),
        2 => (1..4u8, any::<bool>()).prop_map(|(agent, forgets)| Op::Heartbeat { agent, forgets }),
        4 => Just(Op::Dispatch),
        5 => any::<u8>().prop_map(|attempt| Op::Accept { attempt }),
        1 => any::<u8>().prop_map(|attempt| Op::Decline { attempt }),
        4 => (any::<u8>(), 1..4u8, wish())
            .prop_map(|(attempt, jobs, wish)| Op::Plan { attempt, jobs, wish }),
        2 => any::<u8>().prop_map(|attempt| Op::Fault { attempt }),
        1 => (1..4u8, 0..3u8).prop_map(|(agent, what)| Op::Order { agent, what }),
        5 => (any::<u8>(), 0..5u8, any::<bool>())
            .prop_map(|(attempt, events, last)| Op::Report { attempt, events, last }),
        2 => (1..700u16).prop_map(|seconds| Op::Wait { seconds }),
        1 => (any::<u8>(), 1..4u8, any::<bool>())
            .prop_map(|(attempt, agent, accept)| Op::Steal { attempt, agent, accept }),
    ]
}

/// The world with what the agents know of it, and what was promised.
struct Model {
    world: World,
    instances: BTreeMap<u8, InstanceId>,
    sessions: BTreeMap<u8, u64>,
    /// Every attempt that was ever offered, in order.
    offered: Vec<(AttemptId, AgentId)>,
    committed: Batch,
    canceled: BTreeSet<BuildId>,
    next_session: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            world: World::new(),
            instances: (1..4).map(|name| (name, InstanceId::new())).collect(),
            sessions: BTreeMap::new(),
            offered: Vec::new(),
            committed: Batch::default(),
            canceled: BTreeSet::new(),
            next_session: 0,
        }
    }

    fn claim(&self, place: u8) -> Option<Claim> {
        let (attempt, owner) = self.offered.get(usize::from(place) % self.offered.len().max(1))?;
        let name = (1..4).find(|name| agent(*name) == *owner)?;
        Some(Claim { attempt: *attempt, agent: owner.clone(), instance: self.instances[&name] })
    }

    fn held(&self, name: u8, forgets: bool) -> Vec<AttemptId> {
        if forgets { Vec::new() } else { self.world.state.attempts_of(&agent(name)) }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Submit { key, repository, priority } => {
                let spec = spec(if repository { "a" } else { "b" }, priority.into());
                self.world.submit(&format!("key {key}"), spec);
                self.check_writes();
            }
            Op::Cancel { build } => {
                let build = number(build.into());
                if self.step(Input::Cancel { build, by: "eve".to_owned() }) {
                    self.canceled.insert(build);
                }
            }
            Op::Hello { agent: name, restarted, forgets } => {
                if restarted {
                    self.instances.insert(name, InstanceId::new());
                }
                self.next_session += 1;
                let held = self.held(name, forgets);
                let effects = self.world.hello(name, self.instances[&name], self.next_session, &held);
                if effects.reply.is_ok() {
                    self.sessions.insert(name, self.next_session);
                }
                self.check_writes();
            }
            Op::Gone { agent: name } => {
                let Some(session) = self.sessions.remove(&name) else { return };
                self.step(Input::Gone { agent: agent(name), session: SessionId(session) });
            }
            Op::Heartbeat { agent: name, forgets } => {
                let Some(session) = self.sessions.get(&name) else { return };
                let (session, held) = (SessionId(*session), self.held(name, forgets));
                let working = held.clone();
                self.step(Input::Heartbeat(Heartbeat {
                    agent: agent(name),
                    session,
                    held,
                    working,
                    draining: false,
                }));
            }
            Op::Dispatch => self.dispatch(),
            Op::Order { agent: name, what } => {
                let order = match what {
                    0 => AgentOrder::Resume,
                    1 => AgentOrder::Drain { by: "eve".to_owned() },
                    _ => AgentOrder::Remove,
                };
                self.step(Input::Order { agent: agent(name), order });
            }
            Op::Wait { seconds } => {
                self.world.now += Duration::from_secs(seconds.into());
                self.step(Input::Tick);
            }
            Op::Accept { .. }
            | Op::Decline { .. }
            | Op::Plan { .. }
            | Op::Fault { .. }
            | Op::Report { .. }
            | Op::Steal { .. } => {
                self.run_attempt(op);
            }
        }
    }

    fn run_attempt(&mut self, op: Op) {
        let (Op::Accept { attempt }
        | Op::Decline { attempt }
        | Op::Plan { attempt, .. }
        | Op::Fault { attempt }
        | Op::Report { attempt, .. }
        | Op::Steal { attempt, .. }) = op
        else {
            return;
        };
        let Some(claim) = self.claim(attempt) else { return };
        match op {
            Op::Decline { .. } => self.step(Input::Decline { claim, reason: String::new() }),
            Op::Plan { jobs, wish, .. } => self.step(Input::Plan { claim, plan: wish.plan(jobs) }),
            Op::Fault { .. } => self.step(Input::Report(Report {
                claim,
                first_seq: 1,
                events: fault(),
                last: Some(Vec::new()),
            })),
            Op::Report { events, last, .. } => {
                let events = story()[..events.into()].to_vec();
                let last = last.then(Vec::new);
                self.step(Input::Report(Report { claim, first_seq: 1, events, last }))
            }
            Op::Steal { agent: name, accept, .. } => {
                let instance = InstanceId::new();
                let thief = Claim { attempt: claim.attempt, agent: agent(name), instance };
                let input = if accept {
                    Input::Accept(thief)
                } else {
                    Input::Report(Report {
                        claim: thief,
                        first_seq: 1,
                        events: story(),
                        last: Some(Vec::new()),
                    })
                };
                let before = self.committed.clone();
                self.step(input);
                // I5: who is not the current process of the owner changes nothing.
                assert_eq!(before, self.committed);
                false
            }
            _ => self.step(Input::Accept(claim)),
        };
    }

    fn dispatch(&mut self) {
        let ids: Vec<AttemptId> = (0..4).map(|_| AttemptId::new()).collect();
        self.step(Input::Dispatch { ids: ids.clone() });
        for id in ids {
            if let Some((_, attempt)) = self.world.state.attempt(id) {
                self.offered.push((id, attempt.agent.clone()));
            }
        }
    }

    /// True where the input was taken.
    fn step(&mut self, input: Input) -> bool {
        let effects: Effects = self.world.step(input);
        if effects.reply.is_err() {
            // I5: what is refused changes nothing.
            assert!(self.world.written.is_empty(), "{:?} wrote {:?}", effects.reply, self.world.written);
        }
        self.check_writes();
        effects.reply.is_ok()
    }

    /// Commits what was written, and checks it against what was committed before.
    fn check_writes(&mut self) {
        let batch = std::mem::take(&mut self.world.written);
        for (id, row) in &batch.builds {
            // I1: an outcome never changes, and nothing follows it.
            if let Some(BuildState::Finished(_)) = self.committed.builds.get(id).map(|old| &old.state) {
                panic!("build {id} had ended, and is written again: {row:?}");
            }
            if let BuildState::Finished(outcome) = &row.state
                && self.canceled.contains(id)
            {
                // I9: a cancel that was acknowledged ends as canceled.
                assert!(matches!(outcome, Outcome::Canceled { .. }), "build {id}: {outcome:?}");
            }
        }
        for (key, row) in &batch.jobs {
            let old = self.committed.jobs.get(key).map(|old| &old.state);
            assert!(!matches!(old, Some(BuildState::Finished(_))), "job {key:?} had ended: {row:?}");
        }
        for (id, row) in &batch.attempts {
            // I3: one agent for life; and none that was not offered to it.
            assert!(self.offered.contains(&(*id, row.agent.clone())), "{row:?}");
        }
        for event in &batch.events {
            let last = self.committed.events.iter().rev().find(|old| old.build == event.build);
            let before = batch.events.iter().filter(|new| new.build == event.build && new.seq < event.seq);
            let expected = last.map_or(0, |last| last.seq) + before.count() as u64 + 1;
            assert_eq!(event.seq, expected, "events are numbered without a gap");
        }
        self.committed.absorb(batch);
        self.check_state();
    }

    fn check_state(&self) {
        let state = &self.world.state;
        for (id, agent) in &state.agents {
            // I10: never more than its slots, and no slot is taken by what is not there.
            assert!(agent.slots == 0 || agent.attempts.len() <= agent.slots as usize, "{id}: {agent:?}");
            for attempt in &agent.attempts {
                assert!(state.attempt(*attempt).is_some_and(|(_, found)| found.agent == *id));
            }
        }
        let mut waiting = 0;
        let mut held = 0;
        for (id, build) in &state.builds {
            assert!(!matches!(build.state(), BuildState::Finished(_)), "build {id} is kept after its end");
            for job in &build.jobs {
                waiting += usize::from(matches!(job.state, JobState::Queued { .. }));
                if let JobState::Held(attempt) = &job.state {
                    held += 1;
                    assert!(state.attempts.contains_key(&attempt.id));
                    assert!(state.agents[&attempt.agent].attempts.contains(&attempt.id));
                }
            }
        }
        self.check_groups();
        assert_eq!(waiting, state.queue.len());
        assert_eq!(held, state.attempts.len());
        assert!(state.offers.keys().all(|id| state.attempts.contains_key(id)));
    }

    /// Of a group one job is with an agent, and a matrix keeps to its most.
    fn check_groups(&self) {
        let state = &self.world.state;
        let mut grouped = 0;
        for (holder, jobs) in state.groups.all() {
            let held: Vec<_> = jobs
                .iter()
                .filter(|job| matches!(state.job(**job).unwrap().1.state, JobState::Held(_)))
                .collect();
            assert!(held.len() <= 1, "two jobs of a group are with agents: {held:?}");
            assert_eq!(held.first().copied().copied(), holder);
            grouped += jobs.len();
        }
        let mut expected = 0;
        for build in state.builds.values() {
            let open = build.jobs.iter().filter(|job| !matches!(job.state, JobState::Finished(_)));
            expected += open.filter(|job| job.face.group.is_some()).count();
            let most = build.row.terms.as_ref().and_then(|terms| terms.max_parallel);
            assert!(most.is_none_or(|most| build.held() <= most.get() as usize));
        }
        assert_eq!(grouped, expected);
    }

    /// Agents that do their work bring every build to its end.
    fn settle(&mut self) {
        for round in 0..200 {
            if self.world.state.builds.is_empty() {
                return;
            }
            // Longer than any lease, pause or offer, so that what hangs is given up.
            self.run(Op::Wait { seconds: 700 });
            for name in 1..4 {
                self.run(Op::Order { agent: name, what: 0 });
                self.run(Op::Gone { agent: name });
                self.run(Op::Hello { agent: name, restarted: false, forgets: round == 0 });
            }
            self.run(Op::Dispatch);
            for place in 0..self.offered.len() {
                let (attempt, owner) = self.offered[place].clone();
                let Some(name) = (1..4).find(|name| agent(*name) == owner) else { continue };
                let claim = Claim { attempt, agent: owner, instance: self.instances[&name] };
                self.step(Input::Accept(claim.clone()));
                let events = story();
                self.step(Input::Report(Report { claim, first_seq: 1, events, last: Some(Vec::new()) }));
            }
        }
        panic!("these never end: {:?}", self.world.state.builds);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_after_every_step_and_every_build_ends(ops in prop::collection::vec(op(), 1..120)) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.settle();
    }
}
