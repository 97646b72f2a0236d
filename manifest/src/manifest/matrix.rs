//! `matrix`: one manifest, several jobs.

use std::collections::BTreeMap;

use crate::VarName;

/// Values of axes, and of variables beside them.
pub type Values = BTreeMap<VarName, String>;

/// The jobs of a manifest that has several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Matrix {
    /// The axes in order; each has a value at least.
    pub axes: Vec<Axis>,
    /// Combinations with all values of an entry are left out.
    pub exclude: Vec<Values>,
    /// An entry extends the combinations that it agrees with on all axes that it names; where there
    /// is none, it adds one.
    pub include: Vec<Values>,
    /// Jobs with all values of an entry may fail.
    pub allow_failure: Vec<Values>,
    /// One that fails ends the others.
    pub fail_fast: bool,
    /// How many run at the same time; none: as many as there are slots.
    pub max_parallel: Option<u32>,
}

/// One axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// The variable that it sets.
    pub name: VarName,
    /// Its values. Never empty, none twice.
    pub values: Vec<String>,
}

/// One job of a matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combination {
    /// Its variables: first the axes, in their order, then what `include` added.
    pub values: Vec<(VarName, String)>,
    /// How many of them, at most, are in its name.
    pub named: usize,
    /// True where its failure does not fail the build.
    pub allow_failure: bool,
}

/// The most jobs that a matrix may have.
pub const MAX_JOBS: usize = 256;

/// The most combinations that are looked at before `exclude`.
const MAX_PRODUCT: usize = 4096;

impl Matrix {
    /// How many combinations the axes have before `exclude`. None: too many to look at.
    pub(crate) fn product(&self) -> Option<usize> {
        let product = self.axes.iter().try_fold(1_usize, |all, axis| all.checked_mul(axis.values.len()));
        product.filter(|product| *product <= MAX_PRODUCT)
    }

    /// The jobs in order: the first axis varies slowest, what `include` adds comes last. Nothing where
    /// the axes have too many.
    pub fn combinations(&self) -> Vec<Combination> {
        let mut jobs: Vec<Values> = match (self.axes.is_empty(), self.product()) {
            (false, Some(_)) => self.axes.iter().fold(vec![Values::new()], |jobs, axis| vary(&jobs, axis)),
            _ => Vec::new(),
        };
        jobs.retain(|job| !self.exclude.iter().any(|entry| agrees(entry, job)));
        // What `include` has added is no combination of axes: a later entry leaves it alone.
        let of_axes = jobs.len();
        for entry in &self.include {
            let agreeing = |job: &&mut Values| {
                entry
                    .iter()
                    .filter(|(name, _)| self.is_axis(name))
                    .all(|(name, value)| job.get(name) == Some(value))
            };
            let mut extended = false;
            for job in jobs[..of_axes].iter_mut().filter(agreeing) {
                job.extend(entry.iter().map(|(name, value)| (name.clone(), value.clone())));
                extended = true;
            }
            if !extended {
                jobs.push(entry.clone());
            }
        }
        let named = |at: usize| if at < of_axes { self.axes.len() } else { usize::MAX };
        jobs.into_iter().enumerate().map(|(at, job)| self.combination(job, named(at))).collect()
    }

    /// True for the name of an axis.
    pub(crate) fn is_axis(&self, name: &str) -> bool {
        self.axes.iter().any(|axis| &*axis.name == name)
    }

    /// The names that it sets in a job, or in some.
    pub(crate) fn names(&self) -> impl Iterator<Item = &VarName> {
        self.axes.iter().map(|axis| &axis.name).chain(self.include.iter().flat_map(|entry| entry.keys()))
    }

    fn combination(&self, mut job: Values, named: usize) -> Combination {
        let allow_failure = self.allow_failure.iter().any(|entry| agrees(entry, &job));
        let axes = self.axes.iter().filter_map(|axis| job.remove_entry(&axis.name));
        let mut values: Vec<_> = axes.collect();
        values.extend(job);
        Combination { values, named, allow_failure }
    }
}

impl Combination {
    /// A short name: the values of the axes, `-` between them. Of a job that `include` added: all of
    /// its values. `main` without any.
    pub fn name(&self) -> String {
        if self.values.is_empty() {
            return "main".to_owned();
        }
        self.values.iter().take(self.named).map(|(_, value)| value.as_str()).collect::<Vec<_>>().join("-")
    }
}

/// Each job with each value of an axis.
fn vary(jobs: &[Values], axis: &Axis) -> Vec<Values> {
    let with = |job: &Values, value: &String| {
        let mut job = job.clone();
        job.insert(axis.name.clone(), value.clone());
        job
    };
    jobs.iter().flat_map(|job| axis.values.iter().map(move |value| with(job, value))).collect()
}

/// True where a job has all values of an entry.
pub(crate) fn agrees(entry: &Values, job: &Values) -> bool {
    entry.iter().all(|(name, value)| job.get(name) == Some(value))
}
