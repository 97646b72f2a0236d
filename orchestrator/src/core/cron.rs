//! Builds that a manifest wants at set times. The orchestrator never clones: it knows the schedules
//! from the last plan of the default branch that an agent reported.
//!
//! Times are UTC, in whole minutes. What came due while the orchestrator was down is started once,
//! however often that was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use buildr_manifest::{Minute, Schedule, Trigger};
use buildr_proto::{
    build::{BuildSpec, Reference, Source},
    plan::Schedules,
};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

use super::{
    State,
    input::{Effects, Submit},
};

/// A schedule is looked for at most so many days ahead: the 29th of February comes after eight
/// years at the latest.
const DAYS_AHEAD: i64 = 8 * 366 + 1;

/// The schedules of one repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timetable {
    /// The repository's URL.
    pub repository: String,
    /// Its default branch.
    pub branch: String,
    /// The manifest's path in the project; none: the usual names.
    pub manifest_path: Option<String>,
    /// The schedules.
    pub entries: Vec<TimetableEntry>,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimetableEntry {
    /// Its name.
    pub name: String,
    /// The five fields of cron.
    pub schedule: String,
    /// The branch to build; none: the default branch.
    pub branch: Option<String>,
    /// What came due until then was dealt with.
    pub done_until: Timestamp,
}

/// All timetables, and what is due next.
#[derive(Debug, Default)]
pub(super) struct Clockwork {
    timetables: BTreeMap<String, Timetable>,
    due: BTreeSet<(Timestamp, String, String)>,
}

impl Clockwork {
    /// Puts a timetable in the place of the repository's last one.
    pub(super) fn set(&mut self, timetable: Timetable) {
        let repository = timetable.repository.clone();
        self.due.retain(|(_, theirs, _)| *theirs != repository);
        for entry in &timetable.entries {
            if let Some(next) = next_after(&entry.schedule, entry.done_until) {
                self.due.insert((next, repository.clone(), entry.name.clone()));
            }
        }
        self.timetables.insert(repository, timetable);
    }

    /// What starts next, the soonest first: when, repository, name.
    pub(super) fn upcoming(&self) -> impl Iterator<Item = &(Timestamp, String, String)> {
        self.due.iter()
    }

    /// Takes out one that is due, and gives its timetable, brought up to now.
    fn take_due(&mut self, now: Timestamp) -> Option<(Timetable, usize, Timestamp)> {
        let (at, repository, name) = self.due.first().filter(|(at, ..)| *at <= now).cloned()?;
        self.due.pop_first();
        let mut timetable = self.timetables.get(&repository)?.clone();
        let place = timetable.entries.iter().position(|entry| entry.name == name)?;
        timetable.entries[place].done_until = now;
        self.set(timetable.clone());
        Some((timetable, place, at))
    }
}

impl State {
    /// Keeps the schedules of a repository's default branch. One that was there before keeps its time.
    pub(super) fn keep_schedules(
        &mut self,
        spec: &BuildSpec,
        schedules: Schedules,
        now: Timestamp,
        out: &mut Effects,
    ) {
        let Schedules { branch, of_default_branch, entries } = schedules;
        let repository = spec.source.repository.clone();
        let old = self.clockwork.timetables.get(&repository);
        if !of_default_branch && old.is_none_or(|old| old.branch != branch) {
            return;
        }
        let done_until = |name: &str, schedule: &str| {
            let same = |entry: &&TimetableEntry| entry.name == name && entry.schedule == schedule;
            old.and_then(|old| old.entries.iter().find(same)).map_or(now, |entry| entry.done_until)
        };
        let entries: Vec<_> = entries
            .into_iter()
            .map(|entry| TimetableEntry {
                done_until: done_until(&entry.name, &entry.schedule),
                name: entry.name,
                schedule: entry.schedule,
                branch: entry.branch,
            })
            .collect();
        let manifest_path = spec.manifest_path.clone();
        let timetable = Timetable { repository: repository.clone(), branch, manifest_path, entries };
        // Without entries too: the next build of the branch by its name is known to be the default's.
        if old != Some(&timetable) {
            self.clockwork.set(timetable.clone());
            out.writes.timetables.insert(repository, timetable);
        }
    }

    /// Starts what is due.
    pub(super) fn start_due(&mut self, now: Timestamp, out: &mut Effects) {
        while let Some((timetable, place, at)) = self.clockwork.take_due(now) {
            let Timetable { repository, branch, manifest_path, entries } = timetable.clone();
            let entry = &entries[place];
            let spec = BuildSpec {
                source: Source {
                    repository: repository.clone(),
                    reference: Reference::Branch(entry.branch.clone().unwrap_or(branch)),
                    commit: None,
                },
                trigger: Trigger::Cron,
                manifest_path,
                variables: Vec::new(),
                labels: BTreeMap::new(),
                priority: 0,
                cron: Some(entry.name.clone()),
            };
            let key = format!("cron {at} {} {repository}", entry.name);
            let submitted_by = format!("schedule {}", entry.name);
            out.writes.timetables.insert(repository, timetable);
            if let Err(refusal) = self.submit(Submit { key, spec, submitted_by }, now, out) {
                tracing::warn!(%refusal, schedule = entry.name, "a scheduled build is left out");
            }
        }
    }
}

/// When a schedule is due next. None where it is none, or never is.
pub fn next_after(schedule: &str, after: Timestamp) -> Option<Timestamp> {
    let schedule = Schedule::parse(schedule).ok()?;
    let utc = after.to_zoned(TimeZone::UTC);
    let first = after - Duration::from_nanos(after.subsec_nanosecond().unsigned_abs().into())
        + Duration::from_secs(60 - u64::from(utc.second().unsigned_abs()));
    let mut at = first;
    while (at - first).get_seconds() < DAYS_AHEAD * 24 * 3600 {
        let utc = at.to_zoned(TimeZone::UTC);
        let minute = Minute {
            minute: utc.minute().unsigned_abs(),
            hour: utc.hour().unsigned_abs(),
            day: utc.day().unsigned_abs(),
            month: utc.month().unsigned_abs(),
            weekday: utc.weekday().to_sunday_zero_offset().unsigned_abs(),
        };
        if schedule.is_due(minute) {
            return Some(at);
        }
        let minutes = if schedule.is_due_on(minute) {
            1
        } else {
            24 * 60 - u64::from(minute.hour) * 60 - u64::from(minute.minute)
        };
        at += Duration::from_secs(minutes * 60);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::next_after;

    #[test]
    fn the_next_time_of_a_schedule_is_found_in_utc() {
        for (schedule, after, next) in [
            ("0 3 * * *", "2026-03-01T02:59:59.5Z", "2026-03-01T03:00:00Z"),
            ("0 3 * * *", "2026-03-01T03:00:00Z", "2026-03-02T03:00:00Z"),
            ("*/15 * * * *", "2026-12-31T23:45:01Z", "2027-01-01T00:00:00Z"),
            ("30 12 * * mon", "2026-11-23T12:30:00Z", "2026-11-30T12:30:00Z"),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ] {
            let found = next_after(schedule, after.parse().unwrap());
            assert_eq!(found, Some(next.parse().unwrap()), "{schedule} after {after}");
        }
        assert_eq!(next_after("no schedule", jiff::Timestamp::UNIX_EPOCH), None);
    }
}
