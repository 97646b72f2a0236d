//! What clients want: builds, and their end.

use buildr_manifest::Outcome;
use buildr_proto::{
    BuildId, JobId,
    build::{BuildEventKind, BuildState},
};
use jiff::Timestamp;

use super::{
    Answer, State,
    build::{Build, Job},
    input::{Effects, Refusal, Reply, Submit},
    queue::Entry,
    record::{BuildRow, NewBuild},
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
            cancel_at: None,
            terms: None,
            events: 0,
        };
        let job = Job::new(1, spec.labels.clone(), now);
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
        build.row.cancel_at = Some(now);
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
            self.wind_up(JobId { build: number, index }, now, out);
        }
        let ended = BuildState::Finished(Outcome::Canceled { by });
        let state = self.builds.get(&number).map_or(ended, |build| build.state());
        Ok(Reply::Canceled(state))
    }
}
