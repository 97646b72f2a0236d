//! What clients want: builds, and their end.

use buildr_manifest::Outcome;
use buildr_proto::{
    BuildId, JobId,
    build::{BuildEventKind, BuildState},
};
use jiff::Timestamp;

use super::{
    Answer, State,
    build::{Build, Job, JobState, Phase},
    input::{Desired, Effects, Refusal, Reply, Signal, Submit, Want},
    queue::Entry,
    record::{AttemptState, BuildRow, NewBuild},
};

impl State {
    pub(super) fn submit(&mut self, submit: Submit, now: Timestamp, out: &mut Effects) -> Answer {
        let Submit { key, spec, submitted_by } = submit;
        if let Some(number) = self.keys.get(&key) {
            return Ok(Reply::Submitted(*number));
        }
        if self.queue.len() >= self.limits.max_queued {
            return Err(Refusal::QueueFull(self.queue.len()));
        }
        let number = BuildId::new(self.next_build).expect("numbers are counted from 1");
        self.next_build += 1;
        out.writes.new_builds.push(NewBuild {
            number,
            key: key.clone(),
            spec: spec.clone(),
            submitted_by,
            submitted_at: now,
        });
        let row = BuildRow {
            number,
            state: BuildState::Queued,
            started_at: None,
            finished_at: None,
            commit: spec.source.commit.clone(),
            cancel: None,
            planned: false,
            events: 0,
        };
        let job = Job {
            index: 1,
            labels: spec.labels.clone(),
            losses: 0,
            queued_at: now,
            last_attempt: None,
            state: JobState::Queued { since: now },
        };
        let build = Build { spec, row, key: key.clone(), jobs: vec![job] };
        self.queue.insert(Entry::of(&build, &build.jobs[0], now));
        self.keys.insert(key, number);
        self.builds.insert(number, build);
        self.note(JobId { build: number, index: 0 }, None, BuildEventKind::Queued, now, out);
        self.save_build(number, out);
        self.save_job(JobId { build: number, index: 1 }, out);
        Ok(Reply::Submitted(number))
    }

    pub(super) fn cancel(
        &mut self,
        number: BuildId,
        by: String,
        now: Timestamp,
        out: &mut Effects,
    ) -> Answer {
        let Some(build) = self.builds.get_mut(&number) else {
            return Err(Refusal::NoSuchBuild(number));
        };
        if build.row.cancel.is_some() {
            return Ok(Reply::Canceled(build.state()));
        }
        build.row.cancel = Some(by.clone());
        let jobs = build.jobs.len() as u32;
        self.note(
            JobId { build: number, index: 0 },
            None,
            BuildEventKind::CancelRequested { by: by.clone() },
            now,
            out,
        );
        self.save_build(number, out);
        for index in 1..=jobs {
            self.cancel_job(JobId { build: number, index }, &by, now, out);
        }
        let ended = BuildState::Finished(Outcome::Canceled { by });
        let state = self.builds.get(&number).map_or(ended, |build| build.state());
        Ok(Reply::Canceled(state))
    }

    /// Ends a job that no agent has; tells the agent that has it.
    fn cancel_job(&mut self, id: JobId, by: &str, now: Timestamp, out: &mut Effects) {
        let Some((_, job)) = self.job(id) else { return };
        match &job.state {
            JobState::Finished(_) => return,
            JobState::Queued { .. } => {}
            JobState::Held(attempt) => {
                let session = self.agents.get(&attempt.agent).and_then(|agent| agent.session());
                if let Some(session) = session {
                    let want = Want::Cancel { by: by.to_owned() };
                    out.signals.push(Signal::Desired(session, Desired { attempt: attempt.id, want }));
                }
                if !matches!(attempt.phase, Phase::Offered) {
                    return;
                }
                let void_at = now + self.limits.offer;
                self.canceled_offers.insert(attempt.id, (attempt.agent.clone(), void_at));
                self.detach(id, AttemptState::Void, now, out);
            }
        }
        self.end_job(id, Outcome::Canceled { by: by.to_owned() }, now, out);
    }
}
