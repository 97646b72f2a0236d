//! Agents: who is there, and that both sides agree on what each of them has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use buildr_proto::{AgentId, AttemptId, InstanceId, JobId, build::BuildEventKind};
use jiff::Timestamp;

use super::{
    Answer, State,
    build::{Attempt, Phase},
    ending::Wanted,
    input::{Claim, Desired, Effects, Heartbeat, Hello, Refusal, Reply, SessionId, Signal, Want},
    record::AgentRow,
};

/// An accepted attempt that its agent did not name in this many heartbeats in a row is lost. One
/// miss is normal: the heartbeat may have been sent before the acceptance was answered.
const MAX_UNNAMED: u32 = 3;

/// An agent that is connected or holds an attempt.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) name: String,
    pub(super) instance: InstanceId,
    pub(super) slots: u32,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) draining: bool,
    pub(super) link: Link,
    pub(super) heard: Timestamp,
    /// Since it did not take an offer.
    pub(super) pause: Option<Pause>,
    /// Whoever watches its attempts was told that it is silent.
    pub(super) silence_noted: bool,
    /// Current attempts, offers too.
    pub(super) attempts: BTreeSet<AttemptId>,
    /// Attempts that it still works on and that are not current; they take slots until they are gone.
    pub(super) leftovers: BTreeSet<AttemptId>,
}

/// Why an agent gets no offers for a while.
#[derive(Clone, Debug)]
pub(super) struct Pause {
    /// Until when.
    pub(super) until: Timestamp,
    /// Why.
    pub(super) why: String,
}

/// Whether an agent has a connection.
#[derive(Debug)]
pub(super) enum Link {
    Connected(SessionId),
    Gone,
}

impl Agent {
    /// The agent of an attempt that was loaded; it has not connected since the start.
    pub(super) fn unseen(attempt: &Attempt, now: Timestamp) -> Self {
        Self {
            name: attempt.agent_name.clone(),
            instance: attempt.instance,
            slots: 0,
            labels: BTreeMap::new(),
            draining: false,
            link: Link::Gone,
            heard: now,
            pause: None,
            silence_noted: false,
            attempts: BTreeSet::new(),
            leftovers: BTreeSet::new(),
        }
    }

    pub(super) fn session(&self) -> Option<SessionId> {
        match self.link {
            Link::Connected(session) => Some(session),
            Link::Gone => None,
        }
    }

    /// How many more jobs it can be offered.
    pub(super) fn free(&self) -> usize {
        (self.slots as usize).saturating_sub(self.attempts.len() + self.leftovers.len())
    }
}

impl State {
    pub(super) fn hello(&mut self, hello: Hello, now: Timestamp, out: &mut Effects) -> Answer {
        self.admit(&hello, now, out)?;
        let pause = self.agents.get(&hello.agent).and_then(|agent| agent.pause.clone());
        self.reconcile(&hello, now, out);
        self.hear(&hello.agent, now, out);
        let attempts = self.agents.remove(&hello.agent).map(|agent| agent.attempts).unwrap_or_default();
        out.writes.agents.insert(
            hello.agent.clone(),
            AgentRow {
                id: hello.agent.clone(),
                name: hello.name.clone(),
                instance: hello.instance,
                version: hello.version,
                slots: hello.slots,
                labels: hello.labels.clone(),
                connected_at: now,
            },
        );
        let leftovers = hello.working.iter().filter(|id| !attempts.contains(id)).copied().collect();
        let agent = Agent {
            name: hello.name,
            instance: hello.instance,
            slots: hello.slots,
            labels: hello.labels,
            draining: hello.draining,
            link: Link::Connected(hello.session),
            heard: now,
            pause,
            silence_noted: false,
            attempts,
            leftovers,
        };
        self.agents.insert(hello.agent.clone(), agent);
        Ok(Reply::Desired(self.desired_of(&hello.agent, &hello.held)))
    }

    /// Refuses a second process while the first one really lives; replaces what is left of it.
    fn admit(&mut self, hello: &Hello, now: Timestamp, out: &mut Effects) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get(&hello.agent) else { return Ok(()) };
        let Link::Connected(session) = agent.link else { return Ok(()) };
        let lives = now < agent.heard + self.limits.unreachable;
        if lives && agent.instance != hello.instance {
            return Err(Refusal::AlreadyConnected { name: agent.name.clone() });
        }
        out.signals.push(Signal::Close(session));
        Ok(())
    }

    /// Compares what the agent has with what it should have.
    fn reconcile(&mut self, hello: &Hello, now: Timestamp, out: &mut Effects) {
        for id in self.attempts_of(&hello.agent) {
            let Some((job, attempt)) = self.attempt(id) else { continue };
            let named = hello.held.contains(&id);
            let same = attempt.instance == hello.instance;
            match (&attempt.phase, named) {
                (Phase::Offered, true) if same => {}
                (Phase::Offered, _) => self.withdraw(job, now, out),
                (_, true) => self.adopt(job, hello.instance, out),
                (_, false) => {
                    let reason = format!("agent {} came back without it", hello.name);
                    self.lose(job, &reason, now, out);
                }
            }
        }
    }

    /// Binds an attempt to the process of its agent that has it now.
    fn adopt(&mut self, job: JobId, instance: InstanceId, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(job) else { return };
        let super::JobState::Held(attempt) = &mut build.jobs[place].state else { return };
        if let Some(progress) = attempt.progress_mut() {
            progress.unnamed = 0;
        }
        if attempt.instance != instance {
            attempt.instance = instance;
            let claim = Claim { attempt: attempt.id, agent: attempt.agent.clone(), instance };
            out.signals.push(Signal::Current(claim, job));
            self.save_job(job, out);
        }
    }

    pub(super) fn heartbeat(&mut self, beat: Heartbeat, now: Timestamp, out: &mut Effects) -> Answer {
        self.connected(&beat.agent, beat.session)?.draining = beat.draining;
        self.hear(&beat.agent, now, out);
        for id in self.attempts_of(&beat.agent) {
            let Some(job) = self.attempts.get(&id).copied() else { continue };
            let named = beat.held.contains(&id);
            let Some((build, place)) = self.job_mut(job) else { continue };
            let super::JobState::Held(attempt) = &mut build.jobs[place].state else { continue };
            let Some(progress) = attempt.progress_mut() else { continue };
            progress.unnamed = if named { 0 } else { progress.unnamed + 1 };
            if progress.unnamed >= MAX_UNNAMED {
                let reason = format!("agent {} does not have it any more", attempt.agent_name);
                self.lose(job, &reason, now, out);
            }
        }
        if let Some(agent) = self.agents.get_mut(&beat.agent) {
            agent.leftovers =
                beat.working.iter().filter(|id| !agent.attempts.contains(id)).copied().collect();
        }
        Ok(Reply::Desired(self.desired_of(&beat.agent, &beat.held)))
    }

    pub(super) fn gone(
        &mut self,
        id: &AgentId,
        session: SessionId,
        now: Timestamp,
        out: &mut Effects,
    ) -> Reply {
        let Ok(agent) = self.connected(id, session) else { return Reply::Done };
        agent.link = Link::Gone;
        for attempt in self.attempts_of(id) {
            match self.attempt(attempt) {
                Some((job, Attempt { phase: Phase::Offered, .. })) => self.withdraw(job, now, out),
                _ => continue,
            }
        }
        if self.agents.get(id).is_some_and(|agent| agent.attempts.is_empty()) {
            self.agents.remove(id);
        }
        Reply::Done
    }

    /// What is wanted of an attempt that an agent names.
    pub(super) fn desired(&self, agent: &AgentId, id: AttemptId) -> Desired {
        let want = match self.attempt(id) {
            Some((job, attempt)) if attempt.agent == *agent => {
                let wanted = self.job(job).and_then(|(build, job)| build.wanted_end(job));
                wanted.map_or(Want::Run, |Wanted { by, .. }| Want::Cancel { by })
            }
            _ => Want::Abandon,
        };
        Desired { attempt: id, want }
    }

    fn desired_of(&self, agent: &AgentId, held: &[AttemptId]) -> Vec<Desired> {
        held.iter().map(|id| self.desired(agent, *id)).collect()
    }

    /// An agent gives a sign of life.
    pub(super) fn hear(&mut self, id: &AgentId, now: Timestamp, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        let silent_for = since(agent.heard, now);
        agent.heard = now;
        if std::mem::take(&mut agent.silence_noted) {
            let agent_name = agent.name.clone();
            self.note_for_all(id, &BuildEventKind::AgentBack { agent_name, silent_for }, now, out);
        }
    }

    /// Tells once whoever watches an agent's attempts that nothing is heard of it.
    pub(super) fn note_silence(&mut self, id: &AgentId, now: Timestamp, out: &mut Effects) {
        let Some(agent) = self.agents.get_mut(id) else { return };
        if std::mem::replace(&mut agent.silence_noted, true) {
            return;
        }
        let (agent_name, silent_for) = (agent.name.clone(), since(agent.heard, now));
        for attempt in self.attempts_of(id) {
            let Some((job, _)) = self.attempt(attempt) else { continue };
            let lost_in = (self.lease_of(job) + self.limits.grace).saturating_sub(silent_for);
            let kind = BuildEventKind::AgentSilent { agent_name: agent_name.clone(), silent_for, lost_in };
            self.note(job, Some(attempt), kind, now, out);
        }
    }

    fn note_for_all(&mut self, id: &AgentId, kind: &BuildEventKind, now: Timestamp, out: &mut Effects) {
        for attempt in self.attempts_of(id) {
            let Some((job, _)) = self.attempt(attempt) else { continue };
            self.note(job, Some(attempt), kind.clone(), now, out);
        }
    }

    pub(super) fn attempts_of(&self, agent: &AgentId) -> Vec<AttemptId> {
        self.agents.get(agent).map(|agent| agent.attempts.iter().copied().collect()).unwrap_or_default()
    }

    /// The agent, if this is its connection.
    pub(super) fn connected(&mut self, id: &AgentId, session: SessionId) -> Result<&mut Agent, Refusal> {
        self.agents.get_mut(id).filter(|agent| agent.session() == Some(session)).ok_or(Refusal::Replaced)
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
