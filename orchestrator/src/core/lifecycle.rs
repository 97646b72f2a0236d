//! How jobs and builds move on, whatever the cause. The only place that ends or queues a job.

use buildr_manifest::Outcome;
use buildr_proto::{
    AttemptId, BuildId, JobId,
    build::{BuildEvent, BuildEventKind, BuildState},
};
use jiff::Timestamp;

use super::{
    State,
    agents::Link,
    build::{Attempt, JobState, Phase},
    ending::{Wanted, Why},
    find,
    input::{Effects, Signal},
    queue::Entry,
    record::AttemptState,
    verdict,
};

/// A job of which this many attempts were lost before anything had begun is not tried again.
const MAX_LOSSES: u32 = 5;

impl State {
    /// Stores an event of a build.
    pub(super) fn note(
        &mut self,
        job: JobId,
        attempt: Option<AttemptId>,
        kind: BuildEventKind,
        now: Timestamp,
        out: &mut Effects,
    ) {
        let Some(build) = self.builds.get_mut(&job.build) else { return };
        build.row.events += 1;
        let seq = build.row.events;
        out.writes.events.push(BuildEvent { seq, at: now, build: job.build, job: job.index, attempt, kind });
        out.writes.builds.insert(job.build, build.row.clone());
        changed(job.build, out);
    }

    /// Writes a build with its state as it follows from its jobs.
    pub(super) fn save_build(&mut self, id: BuildId, out: &mut Effects) {
        let Some(build) = self.builds.get_mut(&id) else { return };
        build.row.state = build.state();
        out.writes.builds.insert(id, build.row.clone());
        changed(id, out);
    }

    /// Writes a job, and its attempt where it has one that was accepted.
    pub(super) fn save_job(&mut self, id: JobId, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(id) else { return };
        out.writes.jobs.insert((id.build, id.index), build.job_row(place));
        if let JobState::Held(attempt) = &build.jobs[place].state
            && let Some(row) = attempt.row(&build.row, id.index)
        {
            out.writes.attempts.insert(row.id, row);
        }
    }

    /// Takes the current attempt from a job, which its caller must queue or end at once. An attempt
    /// that was accepted is written with this end; an offer leaves no trace.
    pub(super) fn detach(
        &mut self,
        id: JobId,
        end: AttemptState,
        now: Timestamp,
        out: &mut Effects,
    ) -> Option<Attempt> {
        let (build, place) = self.job_mut(id)?;
        if !matches!(build.jobs[place].state, JobState::Held(_)) {
            return None;
        }
        let state = std::mem::replace(&mut build.jobs[place].state, JobState::Queued { since: now });
        let JobState::Held(attempt) = state else { return None };
        if let Some(mut row) = attempt.row(&build.row, id.index) {
            row.state = end;
            row.ended_at = Some(now);
            out.writes.attempts.insert(row.id, row);
            out.signals.push(Signal::Over(attempt.id));
        }
        if let Some((build, job)) = find(&self.builds, id) {
            self.groups.release(build, job);
        }
        self.attempts.remove(&attempt.id);
        self.offers.remove(&attempt.id);
        if let Some(agent) = self.agents.get_mut(&attempt.agent) {
            agent.attempts.remove(&attempt.id);
            if agent.attempts.is_empty() && matches!(agent.link, Link::Gone) {
                self.agents.remove(&attempt.agent);
            }
        }
        Some(*attempt)
    }

    /// Puts a job into the queue. One that is put back keeps its place.
    pub(super) fn enqueue(&mut self, id: JobId, now: Timestamp, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(id) else { return };
        build.jobs[place].state = JobState::Queued { since: now };
        build.jobs[place].queued_at = now;
        let entry = Entry::of(build, &build.jobs[place], now);
        self.queue.insert(entry);
        self.save_job(id, out);
    }

    /// Puts the job of an offer that was not taken back into the queue, where it waits since before.
    pub(super) fn withdraw(&mut self, id: JobId, now: Timestamp, out: &mut Effects) {
        if self.detach(id, AttemptState::Void, now, out).is_none() {
            return;
        }
        let Some((build, place)) = self.job_mut(id) else { return };
        let since = build.jobs[place].queued_at;
        build.jobs[place].state = JobState::Queued { since };
        let entry = Entry::of(build, &build.jobs[place], since);
        self.queue.insert(entry);
    }

    /// Ends a job that is queued or was detached, and its build with the last one.
    pub(super) fn end_job(&mut self, id: JobId, outcome: Outcome, now: Timestamp, out: &mut Effects) {
        let Some((build, place)) = self.job_mut(id) else { return };
        if let JobState::Queued { since } = build.jobs[place].state {
            let entry = Entry::of(build, &build.jobs[place], since);
            self.queue.remove(&entry);
        }
        if let Some((build, job)) = find(&self.builds, id) {
            self.groups.leave(build, job);
        }
        let Some((build, place)) = self.job_mut(id) else { return };
        let is_success = verdict::counts_as_success(&build.jobs[place], &outcome);
        let allowed = is_success && !outcome.is_success();
        let siblings = build.jobs.len() as u32;
        let is_wanted = build.wanted_end(&build.jobs[place]).is_some();
        let fails_fast = build.row.terms.as_ref().is_some_and(|terms| terms.fail_fast);
        build.jobs[place].state = JobState::Finished(outcome.clone());
        self.save_job(id, out);
        if siblings > 1 {
            self.note(id, None, BuildEventKind::JobEnded { outcome, allowed }, now, out);
        }
        if fails_fast && !is_success && !is_wanted {
            for index in (1..=siblings).filter(|index| *index != id.index) {
                let why = Why::FailFast { job: id.index };
                self.stop_job(JobId { build: id.build, index }, why, now, out);
            }
        }
        self.end_build(id.build, now, out);
    }

    /// Queues a job again whose try ended so, if its manifest wants that and nobody wants its end.
    /// The job was detached. False where it is to end.
    pub(super) fn try_again(
        &mut self,
        id: JobId,
        outcome: &Outcome,
        now: Timestamp,
        out: &mut Effects,
    ) -> bool {
        let Some((build, place)) = self.job_mut(id) else { return false };
        if build.wanted_end(&build.jobs[place]).is_some() {
            return false;
        }
        let retries = build.jobs[place].retries;
        let retry = build.row.terms.as_ref().and_then(|terms| terms.retry.as_ref());
        let Some(retry) = retry.filter(|retry| retry.wants_another(outcome, retries)) else { return false };
        let tries = retry.times + 1;
        build.jobs[place].retries += 1;
        let kind = BuildEventKind::JobRetried { outcome: outcome.clone(), next: retries + 2, tries };
        self.note(id, None, kind, now, out);
        self.enqueue(id, now, out);
        true
    }

    /// Ends a build whose jobs have all ended; then it is no longer in memory.
    fn end_build(&mut self, id: BuildId, now: Timestamp, out: &mut Effects) {
        let Some(BuildState::Finished(outcome)) = self.builds.get(&id).map(|build| build.state()) else {
            return;
        };
        self.note(JobId { build: id, index: 0 }, None, BuildEventKind::Finished(outcome), now, out);
        if let Some(build) = self.builds.get_mut(&id) {
            build.row.finished_at = Some(now);
        }
        self.save_build(id, out);
        if let Some(build) = self.builds.remove(&id) {
            self.keys.remove(&build.key);
        }
    }

    /// Gives up an attempt. Its job is queued again where nothing had begun; otherwise it ends.
    pub(super) fn lose(&mut self, id: JobId, reason: &str, now: Timestamp, out: &mut Effects) {
        let Some(mut attempt) = self.detach(id, AttemptState::Lost, now, out) else { return };
        let begun = matches!(attempt.phase, Phase::Running(_));
        let agent = attempt.agent_name.clone();
        let attempt_id = attempt.id;
        let (mut reported, mut has_passed) = (None, false);
        if let Some(progress) = attempt.progress_mut() {
            has_passed = progress.has_passed_stage();
            reported = progress.outcome.take();
            for place in progress.give_up() {
                out.writes.stages.insert((attempt_id, place as u32), progress.stages[place].clone());
            }
        }
        let Some((build, place)) = self.job_mut(id) else { return };
        build.jobs[place].losses += 1;
        let tries_left = build.jobs[place].losses < MAX_LOSSES;
        let wanted = build.wanted_end(&build.jobs[place]).map(|Wanted { outcome, .. }| outcome);
        let reported = reported.filter(|outcome| *outcome != Outcome::Passed || has_passed);
        let outcome = wanted.or(reported);
        let lost = Outcome::AgentLost { agent };
        let again = outcome.is_none() && begun && build.survives_loss(&build.jobs[place]);
        let requeued = outcome.is_none() && tries_left && (!begun || again);
        self.note(
            id,
            Some(attempt_id),
            BuildEventKind::AttemptLost { reason: reason.to_owned(), requeued },
            now,
            out,
        );
        // `detach` left the job as queued without an entry; `end_job` finds none to remove.
        match outcome {
            Some(outcome) if self.try_again(id, &outcome, now, out) => {}
            Some(outcome) => self.end_job(id, outcome, now, out),
            None if again && requeued && self.try_again(id, &lost, now, out) => {}
            None if requeued => self.enqueue(id, now, out),
            None => self.end_job(id, lost, now, out),
        }
    }
}

/// Says once that a build has changed.
fn changed(build: BuildId, out: &mut Effects) {
    let said = out.signals.iter().any(|signal| matches!(signal, Signal::Changed(id) if *id == build));
    if !said {
        out.signals.push(Signal::Changed(build));
    }
}
