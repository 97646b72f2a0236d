//! What agents say of their attempts. Every write is checked against the attempt's owner first.

use std::collections::BTreeMap;

use buildr_manifest::{Event, EventKind, Outcome};
use buildr_proto::{AttemptId, JobId, build::BuildEvent, build::BuildEventKind, limits::MAX_JOBS};
use jiff::Timestamp;

use super::{
    Answer, State,
    build::{Job, JobState, Phase, Progress},
    input::{
        Accepted, Claim, Desired, Effects, LogVerdict, Planned, PlannedJob, Refusal, Reply, Report, Signal,
        Want,
    },
    record::AttemptState,
};

impl State {
    /// The job of a current attempt, if the claim on it is good.
    fn claimed(&mut self, claim: &Claim, now: Timestamp) -> Result<JobId, Refusal> {
        let (job, attempt) = self.attempt(claim.attempt).ok_or(Refusal::NotCurrent(claim.attempt))?;
        if attempt.agent != claim.agent {
            return Err(Refusal::NotYours(claim.attempt));
        }
        if attempt.instance != claim.instance {
            return Err(Refusal::OtherInstance { attempt: claim.attempt, current: attempt.instance });
        }
        if let Some(agent) = self.agents.get_mut(&claim.agent) {
            agent.heard = now;
        }
        Ok(job)
    }

    /// As [`State::claimed`], for an attempt that was accepted.
    fn claimed_accepted(&mut self, claim: &Claim, now: Timestamp) -> Result<JobId, Refusal> {
        let job = self.claimed(claim, now)?;
        match self.attempt(claim.attempt) {
            Some((_, attempt)) if attempt.progress().is_some() => Ok(job),
            _ => Err(Refusal::NotCurrent(claim.attempt)),
        }
    }

    pub(super) fn accept(&mut self, claim: &Claim, now: Timestamp, out: &mut Effects) -> Answer {
        if let Some((agent, _)) = self.canceled_offers.get(&claim.attempt)
            && *agent == claim.agent
        {
            return Ok(Reply::Accepted(Accepted::Canceled));
        }
        let id = self.claimed(claim, now)?;
        let Some((build, place)) = self.job_mut(id) else {
            return Err(Refusal::NotCurrent(claim.attempt));
        };
        let canceled = build.row.cancel.clone();
        let JobState::Held(attempt) = &mut build.jobs[place].state else {
            return Err(Refusal::NotCurrent(claim.attempt));
        };
        if let Some(progress) = attempt.progress() {
            return match canceled {
                Some(by) if progress.events == 0 => {
                    self.detach(id, AttemptState::Void, now, out);
                    self.end_job(id, Outcome::Canceled { by }, now, out);
                    Ok(Reply::Accepted(Accepted::Canceled))
                }
                _ => Ok(Reply::Accepted(Accepted::Go)),
            };
        }
        attempt.phase = Phase::Accepted(Progress::new(now));
        let agent_name = attempt.agent_name.clone();
        build.jobs[place].last_attempt = Some(claim.attempt);
        build.row.started_at.get_or_insert(now);
        self.offers.remove(&claim.attempt);
        let accepted = BuildEventKind::AttemptAccepted { agent_name };
        self.note(id, Some(claim.attempt), accepted, now, out);
        self.save_job(id, out);
        self.save_build(id.build, out);
        out.signals.push(Signal::Current(claim.clone(), id));
        Ok(Reply::Accepted(Accepted::Go))
    }

    pub(super) fn decline(
        &mut self,
        claim: &Claim,
        reason: &str,
        now: Timestamp,
        out: &mut Effects,
    ) -> Answer {
        let job = self.claimed(claim, now)?;
        match self.attempt(claim.attempt) {
            Some((_, attempt)) if matches!(attempt.phase, Phase::Offered) => {}
            _ => return Err(Refusal::NotCurrent(claim.attempt)),
        }
        tracing::info!(attempt = %claim.attempt, %job, reason, "offer declined");
        let pause = now + self.limits.pause;
        if let Some(agent) = self.agents.get_mut(&claim.agent) {
            agent.paused_until = pause;
        }
        self.withdraw(job, now, out);
        Ok(Reply::Done)
    }

    pub(super) fn plan(
        &mut self,
        claim: &Claim,
        commit: Option<String>,
        jobs: Vec<PlannedJob>,
        now: Timestamp,
        out: &mut Effects,
    ) -> Answer {
        let id = self.claimed_accepted(claim, now)?;
        let agent_labels =
            self.agents.get(&claim.agent).map(|agent| agent.labels.clone()).unwrap_or_default();
        let Some((build, place)) = self.job_mut(id) else {
            return Err(Refusal::NotCurrent(claim.attempt));
        };
        if build.row.cancel.is_some() {
            return Ok(Reply::Planned(Planned::Canceled));
        }
        if build.row.planned {
            return Ok(Reply::Planned(Planned::Go));
        }
        build.row.planned = true;
        if build.row.commit.is_none() {
            build.row.commit = commit;
        }
        let mut planned = jobs.into_iter().take(MAX_JOBS);
        let own = planned.next().unwrap_or_default();
        build.jobs[place].labels.extend(own.labels);
        let more: Vec<PlannedJob> = planned.collect();
        let goes_on = more.is_empty() && has_all(&agent_labels, &build.jobs[place].labels);
        let first_new = build.jobs.len() as u32 + 1;
        for (job, index) in more.into_iter().zip(first_new..) {
            let mut labels = build.spec.labels.clone();
            labels.extend(job.labels);
            let state = JobState::Queued { since: now };
            build.jobs.push(Job { index, labels, losses: 0, queued_at: now, last_attempt: None, state });
        }
        let last = build.jobs.len() as u32;
        self.save_build(id.build, out);
        if goes_on {
            self.save_job(id, out);
            return Ok(Reply::Planned(Planned::Go));
        }
        for index in first_new..=last {
            self.enqueue(JobId { build: id.build, index }, now, out);
        }
        self.hand_back(id, claim.attempt, now, out);
        Ok(Reply::Planned(Planned::HandBack))
    }

    fn hand_back(&mut self, id: JobId, attempt: AttemptId, now: Timestamp, out: &mut Effects) {
        self.detach(id, AttemptState::Void, now, out);
        let reason = "the manifest asks for other agents".to_owned();
        let lost = BuildEventKind::AttemptLost { reason, requeued: true };
        self.note(id, Some(attempt), lost, now, out);
        self.enqueue(id, now, out);
    }

    pub(super) fn report(&mut self, report: Report, now: Timestamp, out: &mut Effects) -> Answer {
        let Report { claim, first_seq, events, last } = report;
        let id = self.claimed_accepted(&claim, now)?;
        let stored = self.attempt(claim.attempt).and_then(|(_, attempt)| attempt.progress());
        let stored = stored.map_or(0, |progress| progress.events);
        let expected = stored + 1;
        if first_seq > expected {
            return Err(Refusal::Gap { attempt: claim.attempt, expected });
        }
        let seen = usize::try_from(expected - first_seq.max(1)).unwrap_or(usize::MAX);
        for event in events.into_iter().skip(seen) {
            self.take_event(id, claim.attempt, event, now, out);
        }
        self.save_job(id, out);
        let acked = self.attempt(claim.attempt).and_then(|(_, attempt)| attempt.progress());
        let acked = acked.map_or(stored, |progress| progress.events);
        let mut desired = self.desired(&claim.agent, claim.attempt);
        if let Some(verdicts) = last {
            self.finish(id, claim.attempt, &verdicts, now, out);
            desired = Desired { attempt: claim.attempt, want: Want::Run };
        }
        Ok(Reply::Reported { acked, desired })
    }

    /// Takes in one event that was not seen before.
    fn take_event(
        &mut self,
        id: JobId,
        attempt_id: AttemptId,
        event: Event,
        now: Timestamp,
        out: &mut Effects,
    ) {
        let Some((build, place)) = self.job_mut(id) else { return };
        let JobState::Held(attempt) = &mut build.jobs[place].state else { return };
        let Some(progress) = attempt.progress_mut() else { return };
        progress.events += 1;
        if event.kind.is_ephemeral() {
            let kind = BuildEventKind::Job(event);
            let (build, job, attempt) = (id.build, id.index, Some(attempt_id));
            out.signals.push(Signal::Live(BuildEvent { seq: 0, at: now, build, job, attempt, kind }));
            return;
        }
        if progress.outcome.is_some() {
            return;
        }
        for place in progress.apply(attempt_id, &event) {
            out.writes.stages.insert((attempt_id, place as u32), progress.stages[place].clone());
        }
        if let (EventKind::StageStarted { .. }, Phase::Accepted(progress)) = (&event.kind, &attempt.phase) {
            attempt.phase = Phase::Running(progress.clone());
        }
        if let EventKind::SourceResolved { commit: Some(commit), .. } = &event.kind {
            build.row.commit.get_or_insert_with(|| commit.clone());
        }
        self.note(id, Some(attempt_id), BuildEventKind::Job(event), now, out);
    }

    /// Ends an attempt with its final report.
    fn finish(
        &mut self,
        id: JobId,
        attempt_id: AttemptId,
        verdicts: &[LogVerdict],
        now: Timestamp,
        out: &mut Effects,
    ) {
        let Some(mut attempt) = self.detach(id, AttemptState::Finished, now, out) else { return };
        let Some(progress) = attempt.progress_mut() else { return };
        let mut changed = progress.give_up();
        for verdict in verdicts {
            changed.extend(progress.apply_verdict(attempt_id, verdict));
        }
        for place in changed {
            out.writes.stages.insert((attempt_id, place as u32), progress.stages[place].clone());
        }
        let outcome = reported_outcome(progress);
        for verdict in verdicts {
            let Some(what) = &verdict.trouble() else { continue };
            let message = format!("the log of {} {what}", verdict.log.owner());
            let warning = Event { at: now, kind: EventKind::Warning { message } };
            self.note(id, Some(attempt_id), BuildEventKind::Job(warning), now, out);
        }
        let cancel = self.builds.get(&id.build).and_then(|build| build.row.cancel.clone());
        let outcome = cancel.map_or(outcome, |by| Outcome::Canceled { by });
        self.end_job(id, outcome, now, out);
    }
}

/// The outcome as the agent reported it, if what else it reported does not contradict it.
fn reported_outcome(progress: &Progress) -> Outcome {
    let fault = |message: &str| Outcome::Internal { message: message.to_owned() };
    match &progress.outcome {
        None => fault("the agent's final report came without the end of the job"),
        Some(Outcome::Passed) if !progress.has_passed_stage() => {
            fault("the agent reported that the job passed, and no stage that passed")
        }
        Some(outcome) => outcome.clone(),
    }
}

/// True where an agent has all that is asked for.
pub(super) fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}
