//! Who is next: priorities, round robin over repositories inside a priority, first in first out
//! inside a repository. A job whose labels no free agent has does not hold up the ones behind it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use buildr_proto::JobId;
use jiff::Timestamp;

use super::build::{Build, Job};

/// What an agent must have.
pub type Labels = BTreeMap<String, String>;

/// A job that waits.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The job.
    pub job: JobId,
    /// Higher goes first.
    pub priority: i32,
    /// Among whom turns are taken.
    pub repository: String,
    /// What its agent must have.
    pub labels: Labels,
    /// Since when it waits.
    pub since: Timestamp,
}

impl Entry {
    /// That of a job which waits since then.
    pub fn of(build: &Build, job: &Job, since: Timestamp) -> Self {
        Self {
            job: JobId { build: build.row.number, index: job.index },
            priority: build.spec.priority,
            repository: build.spec.source.repository.clone(),
            labels: job.labels.clone(),
            since,
        }
    }
}

/// All jobs that wait.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: BTreeMap<Reverse<i32>, Lane>,
    by_age: BTreeSet<(Timestamp, JobId)>,
}

/// The jobs of one priority.
#[derive(Debug, Default)]
struct Lane {
    /// Every repository of `waiting` once, the next one first.
    turns: VecDeque<String>,
    waiting: BTreeMap<String, BTreeMap<Labels, BTreeSet<JobId>>>,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Puts a job in its place: one that comes back is where it was before.
    pub fn insert(&mut self, entry: Entry) {
        let lane = self.lanes.entry(Reverse(entry.priority)).or_default();
        if !lane.waiting.contains_key(&entry.repository) {
            lane.turns.push_back(entry.repository.clone());
        }
        lane.waiting.entry(entry.repository).or_default().entry(entry.labels).or_default().insert(entry.job);
        self.by_age.insert((entry.since, entry.job));
    }

    /// Takes a job out.
    pub fn remove(&mut self, entry: &Entry) {
        self.by_age.remove(&(entry.since, entry.job));
        let Some(lane) = self.lanes.get_mut(&Reverse(entry.priority)) else { return };
        lane.remove(&entry.repository, &entry.labels, entry.job);
        if lane.turns.is_empty() {
            self.lanes.remove(&Reverse(entry.priority));
        }
    }

    /// The next job for which `fits` finds somebody. Its repository's turn is over; the job stays
    /// until it is removed.
    pub fn next<T>(&mut self, mut fits: impl FnMut(&Labels) -> Option<T>) -> Option<(JobId, T)> {
        self.lanes.values_mut().find_map(|lane| lane.next(&mut fits))
    }

    /// Since when the job waits that waits longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(since, _)| *since)
    }

    /// The jobs that wait since then or longer.
    pub fn older_than(&self, then: Timestamp) -> Vec<JobId> {
        self.by_age.iter().take_while(|(since, _)| *since <= then).map(|(_, job)| *job).collect()
    }
}

impl Lane {
    fn next<T>(&mut self, fits: &mut impl FnMut(&Labels) -> Option<T>) -> Option<(JobId, T)> {
        for turn in 0..self.turns.len() {
            let classes = self.waiting.get(&self.turns[turn])?;
            let mut heads: Vec<(JobId, &Labels)> =
                classes.iter().filter_map(|(labels, jobs)| Some((*jobs.first()?, labels))).collect();
            heads.sort_unstable_by_key(|(job, _)| *job);
            if let Some(found) = heads.into_iter().find_map(|(job, labels)| Some((job, fits(labels)?))) {
                if let Some(repository) = self.turns.remove(turn) {
                    self.turns.push_back(repository);
                }
                return Some(found);
            }
        }
        None
    }

    fn remove(&mut self, repository: &str, labels: &Labels, job: JobId) {
        let Some(classes) = self.waiting.get_mut(repository) else { return };
        if let Some(jobs) = classes.get_mut(labels) {
            jobs.remove(&job);
            if jobs.is_empty() {
                classes.remove(labels);
            }
        }
        if classes.is_empty() {
            self.waiting.remove(repository);
            self.turns.retain(|turn| turn != repository);
        }
    }
}
