//! Who is next: priorities, round robin over repositories inside a priority, first in first out
//! inside a repository. A job that cannot go now (no free agent has its labels, its concurrency group
//! is busy, its matrix is at its most) does not hold up the ones behind it.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use buildr_proto::{BuildId, JobId};
use jiff::Timestamp;

use super::build::{Build, Job};

/// What an agent must have.
pub type Labels = BTreeMap<String, String>;

/// What jobs have in common that can go, or cannot, alike.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    /// What their agent must have.
    pub labels: Labels,
    /// Their concurrency group.
    pub group: Option<String>,
    /// Their build, where its matrix limits how many run.
    pub limited: Option<BuildId>,
}

/// A job that waits.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The job.
    pub job: JobId,
    /// Higher goes first.
    pub priority: i32,
    /// Among whom turns are taken.
    pub repository: String,
    /// What it needs to go.
    pub class: Class,
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
            class: Class {
                labels: job.labels.clone(),
                group: job.face.group.as_ref().map(|group| group.name.clone()),
                limited: limit_of(build).map(|_| build.row.number),
            },
            since,
        }
    }
}

/// How many jobs of a build may be with agents at the same time, where its matrix says so.
pub(super) fn limit_of(build: &Build) -> Option<u32> {
    build.row.terms.as_ref()?.max_parallel.map(std::num::NonZeroU32::get)
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
    waiting: BTreeMap<String, BTreeMap<Class, BTreeSet<JobId>>>,
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
        lane.waiting.entry(entry.repository).or_default().entry(entry.class).or_default().insert(entry.job);
        self.by_age.insert((entry.since, entry.job));
    }

    /// Takes a job out.
    pub fn remove(&mut self, entry: &Entry) {
        self.by_age.remove(&(entry.since, entry.job));
        let Some(lane) = self.lanes.get_mut(&Reverse(entry.priority)) else { return };
        lane.remove(&entry.repository, &entry.class, entry.job);
        if lane.turns.is_empty() {
            self.lanes.remove(&Reverse(entry.priority));
        }
    }

    /// The next job for which `fits` finds somebody. Its repository's turn is over; the job stays
    /// until it is removed.
    pub fn next<T>(&mut self, mut fits: impl FnMut(&str, &Class) -> Option<T>) -> Option<(JobId, T)> {
        self.lanes.values_mut().find_map(|lane| lane.next(&mut fits))
    }

    /// Since when the job waits that waits longest.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(since, _)| *since)
    }

    /// How many jobs have their turn before this one, if all can go alike.
    pub fn ahead_of(&self, entry: &Entry) -> usize {
        let sooner = self.lanes.range(..Reverse(entry.priority)).map(|(_, lane)| lane.len()).sum::<usize>();
        sooner + self.lanes.get(&Reverse(entry.priority)).map_or(0, |lane| lane.ahead_of(entry))
    }

    /// The jobs that wait since then or longer.
    pub fn older_than(&self, then: Timestamp) -> Vec<JobId> {
        self.by_age.iter().take_while(|(since, _)| *since <= then).map(|(_, job)| *job).collect()
    }
}

impl Lane {
    fn next<T>(&mut self, fits: &mut impl FnMut(&str, &Class) -> Option<T>) -> Option<(JobId, T)> {
        for turn in 0..self.turns.len() {
            let repository = self.turns[turn].as_str();
            let classes = self.waiting.get(repository)?;
            let mut heads: Vec<(JobId, &Class)> =
                classes.iter().filter_map(|(class, jobs)| Some((*jobs.first()?, class))).collect();
            heads.sort_unstable_by_key(|(job, _)| *job);
            let found = heads.into_iter().find_map(|(job, class)| Some((job, fits(repository, class)?)));
            if let Some(found) = found {
                if let Some(repository) = self.turns.remove(turn) {
                    self.turns.push_back(repository);
                }
                return Some(found);
            }
        }
        None
    }

    fn len(&self) -> usize {
        self.waiting.values().flat_map(BTreeMap::values).map(BTreeSet::len).sum()
    }

    /// A repository has its turns at places `turn`, `turn + repositories` and so on, as long as the
    /// others have something left.
    fn ahead_of(&self, entry: &Entry) -> usize {
        let before = |classes: &BTreeMap<Class, BTreeSet<JobId>>| -> usize {
            classes.values().map(|jobs| jobs.range(..entry.job).count()).sum()
        };
        let own = self.waiting.get(&entry.repository).map_or(0, before);
        let mut is_later = false;
        let mut ahead = own;
        for repository in &self.turns {
            if *repository == entry.repository {
                is_later = true;
                continue;
            }
            let theirs = self.waiting.get(repository);
            let theirs = theirs.map_or(0, |classes| classes.values().map(BTreeSet::len).sum());
            ahead += theirs.min(own + usize::from(!is_later));
        }
        ahead
    }

    fn remove(&mut self, repository: &str, class: &Class, job: JobId) {
        let Some(classes) = self.waiting.get_mut(repository) else { return };
        if let Some(jobs) = classes.get_mut(class) {
            jobs.remove(&job);
            if jobs.is_empty() {
                classes.remove(class);
            }
        }
        if classes.is_empty() {
            self.waiting.remove(repository);
            self.turns.retain(|turn| turn != repository);
        }
    }
}
