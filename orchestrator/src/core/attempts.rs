//! What agents say of their attempts. Every write is checked against the attempt's owner first.

use std::{collections::BTreeMap, time::Duration};

use buildr_manifest::{Event, EventKind, Outcome};
use buildr_proto::{
    AttemptId, JobId,
    build::{BuildEvent, BuildEventKind, JobName},
    limits::MAX_JOBS,
    plan::{BuildPlan, PlannedJob},
};
use jiff::Timestamp;

use super::{
    Answer, State,
    agents::Pause,
    build::{Job, JobState, Phase, Progress},
    ending::Wanted,
    find,
    input::{Accepted, Claim, Desired, Effects, LogVerdict, Planned, Refusal, Reply, Report, Signal, Want},
    record::AttemptState,
};

impl State {
    /// The job of a current attempt, if the claim on it is good.
    fn claimed(&mut self, claim: &Claim, now: Timestamp, out: &mut Effects) -> Result<JobId, Refusal> {
        let (job, attempt) = self.attempt(claim.attempt).ok_or(Refusal::NotCurrent(claim.attempt))?;
        if attempt.agent != claim.agent {
            return Err(Refusal::NotYours(claim.attempt));
        }
        if attempt.instance != claim.instance {
            return Err(Refusal::OtherInstance { attempt: claim.attempt, current: attempt.instance });
        }
        self.hear(&claim.agent, now, out);
        Ok(job)
    }

    /// As [`State::claimed`], for an attempt that was accepted.
    fn claimed_accepted(
        &mut self,
        claim: &Claim,
        now: Timestamp,
        out: &mut Effects,
    ) -> Result<JobId, Refusal> {
        let is_accepted = |(_, attempt): (JobId, &super::Attempt)| attempt.progress().is_some();
        if !self.attempt(claim.attempt).is_some_and(is_accepted) {
            return Err(Refusal::NotCurrent(claim.attempt));
        }
        self.claimed(claim, now, out)
    }

    pub(super) fn accept(&mut self, claim: &Claim, now: Timestamp, out: &mut Effects) -> Answer {
        if let Some((agent, _)) = self.canceled_offers.get(&claim.attempt)
            && *agent == claim.agent
        {
            return Ok(Reply::Accepted(Accepted::Canceled));
        }
        let id = self.claimed(claim, now, out)?;
        let Some((build, place)) = self.job_mut(id) else {
            return Err(Refusal::NotCurrent(claim.attempt));
        };
        let wanted = build.wanted_end(&build.jobs[place]);
        let JobState::Held(attempt) = &mut build.jobs[place].state else {
            return Err(Refusal::NotCurrent(claim.attempt));
        };
        if let Some(progress) = attempt.progress() {
            return match wanted {
                Some(Wanted { outcome, .. }) if progress.events == 0 => {
                    self.detach(id, AttemptState::Void, now, out);
                    self.end_job(id, outcome, now, out);
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
        let is_offer = |(_, attempt): (JobId, &super::Attempt)| matches!(attempt.phase, Phase::Offered);
        if !self.attempt(claim.attempt).is_some_and(is_offer) {
            return Err(Refusal::NotCurrent(claim.attempt));
        }
        let job = self.claimed(claim, now, out)?;
        tracing::info!(attempt = %claim.attempt, %job, reason, "offer declined");
        let until = now + self.limits.pause;
        if let Some(agent) = self.agents.get_mut(&claim.agent) {
            agent.pause = Some(Pause { until, why: reason.to_owned() });
        }
        self.withdraw(job, now, out);
        Ok(Reply::Done)
    }

    /// Takes in what a manifest wants. Only the first plan of a build counts: all later attempts read
    /// the same manifest at the same commit.
    pub(super) fn plan(
        &mut self,
        claim: &Claim,
        plan: BuildPlan,
        now: Timestamp,
        out: &mut Effects,
    ) -> Answer {
        let id = self.claimed_accepted(claim, now, out)?;
        if self.is_wanted_to_end(id) {
            return Ok(Reply::Planned(Planned::Canceled));
        }
        if self.builds.get(&id.build).is_some_and(|build| build.row.terms.is_none()) {
            self.fan_out(id, plan, now, out);
        }
        let wanted = self.job(id).and_then(|(build, job)| build.wanted_end(job));
        if let Some(Wanted { outcome, .. }) = wanted {
            // A newer build has its place, and nothing of it has run: there is nothing to wait for.
            self.detach(id, AttemptState::Void, now, out);
            self.end_job(id, outcome, now, out);
            return Ok(Reply::Planned(Planned::HandBack));
        }
        if let Some(reason) = self.must_wait(id, claim) {
            self.hand_back(id, claim.attempt, reason, now, out);
            return Ok(Reply::Planned(Planned::HandBack));
        }
        if let Some((build, job)) = find(&self.builds, id) {
            self.groups.hold(build, job);
        }
        self.save_job(id, out);
        Ok(Reply::Planned(Planned::Go { fence_after: self.fence_of(id) }))
    }

    /// Makes a build's jobs from its plan; all but the one that was planned are queued.
    fn fan_out(&mut self, id: JobId, plan: BuildPlan, now: Timestamp, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(id) else { return };
        let BuildPlan { commit, jobs, terms, schedules } = plan;
        build.row.commit = build.row.commit.take().or(commit);
        build.row.terms = Some(terms);
        let names = jobs
            .iter()
            .take(MAX_JOBS)
            .map(|job| JobName { name: job.face.name.clone(), allow_failure: job.face.allow_failure });
        let names: Vec<JobName> = names.collect();
        for (planned, index) in jobs.into_iter().take(MAX_JOBS).zip(1..) {
            let PlannedJob { face, labels, image: _, stages: _ } = planned;
            if index > 1 {
                build.jobs.push(Job::new(index, build.spec.labels.clone(), now));
            }
            let job = if index == 1 { &mut build.jobs[place] } else { &mut build.jobs[index as usize - 1] };
            job.face = face;
            job.labels.extend(labels);
        }
        let spec = build.spec.clone();
        let last = build.jobs.len() as u32;
        self.note(id, None, BuildEventKind::Planned { jobs: names }, now, out);
        self.save_build(id.build, out);
        for index in 1..=last {
            let job = JobId { build: id.build, index };
            if job != id {
                self.enqueue(job, now, out);
            }
        }
        for index in 1..=last {
            self.join_group(JobId { build: id.build, index }, now, out);
        }
        if let Some(schedules) = schedules {
            self.keep_schedules(&spec, schedules, now, out);
        }
    }

    fn is_wanted_to_end(&self, id: JobId) -> bool {
        self.job(id).is_some_and(|(build, job)| build.wanted_end(job).is_some())
    }

    /// Why an agent cannot go on with a job now that its plan is known.
    fn must_wait(&self, id: JobId, claim: &Claim) -> Option<String> {
        let (build, job) = self.job(id)?;
        let agent = self.agents.get(&claim.agent)?;
        if !has_all(&agent.labels, &job.labels) {
            return Some("the manifest asks for other agents".to_owned());
        }
        let group = job.face.group.as_ref()?;
        let holder = self.groups.holder(&build.spec.source.repository, &group.name)?;
        (holder != id)
            .then(|| format!("job {holder} of the concurrency group `{}` has not ended", group.name))
    }

    /// After what silence an agent has to end a job by itself, because another one may be given it.
    fn fence_of(&self, id: JobId) -> Option<Duration> {
        let survives = self.job(id).is_some_and(|(build, job)| build.survives_loss(job));
        survives.then(|| self.limits.short_lease.saturating_sub(self.limits.fence_margin))
    }

    fn hand_back(
        &mut self,
        id: JobId,
        attempt: AttemptId,
        reason: String,
        now: Timestamp,
        out: &mut Effects,
    ) {
        self.detach(id, AttemptState::Void, now, out);
        self.note(id, Some(attempt), BuildEventKind::HandedBack { reason }, now, out);
        self.enqueue(id, now, out);
    }

    pub(super) fn report(&mut self, report: Report, now: Timestamp, out: &mut Effects) -> Answer {
        let Report { claim, first_seq, events, last } = report;
        let id = self.claimed_accepted(&claim, now, out)?;
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
        let containers_removed = progress.removed;
        for verdict in verdicts {
            let Some(what) = &verdict.trouble() else { continue };
            let message = format!("the log of {} {what}", verdict.log.owner());
            let warning = Event { at: now, kind: EventKind::Warning { message } };
            self.note(id, Some(attempt_id), BuildEventKind::Job(warning), now, out);
        }
        let wanted = self.job(id).and_then(|(build, job)| build.wanted_end(job));
        match wanted {
            Some(Wanted { outcome, since, .. }) => {
                let took = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                let confirmed = BuildEventKind::CancelConfirmed { took, containers_removed };
                self.note(id, Some(attempt_id), confirmed, now, out);
                self.end_job(id, outcome, now, out);
            }
            None if self.try_again(id, &outcome, now, out) => {}
            None => self.end_job(id, outcome, now, out),
        }
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
