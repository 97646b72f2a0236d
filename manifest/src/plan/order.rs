//! Which stage waits for which.
//!
//! A stage without `needs` waits for all that are listed before it. Written out, that would be a
//! number of edges quadratic in the number of stages, so an edge is left out where others imply it:
//! a stage that runs only after a success vouches for all that it waits for. One that also runs
//! after a failure vouches for nothing but that they have ended.

use std::{collections::BTreeSet, sync::Arc};

use crate::Status;

/// The stages that each stage waits for, by their places in the list of stages. Has no cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order(Arc<[Vec<usize>]>);

/// What the order needs to know of a stage.
#[derive(Clone, Debug)]
pub(crate) struct Waits {
    /// The stages that it names; none: all before it.
    pub(crate) needs: Option<Vec<usize>>,
    /// When it runs.
    pub(crate) status: Status,
}

impl Order {
    /// Orders stages. `first` says whether the first of them comes before all others. The error is a
    /// cycle: each waits for the next, and the last for the first.
    pub(crate) fn new(stages: &[Waits], first: First) -> Result<Self, Vec<usize>> {
        let mut order: Vec<Vec<usize>> = Vec::with_capacity(stages.len());
        // The stages that no other has waited for yet; those whose success nobody has vouched for.
        let (mut not_ended, mut not_passed) = (BTreeSet::new(), BTreeSet::new());
        for (at, stage) in stages.iter().enumerate() {
            let only_after_success = stage.status == Status::SUCCESS;
            let needs: BTreeSet<usize> = match &stage.needs {
                Some(named) => {
                    let first = (first == First::BeforeAll && at > 0).then_some(0);
                    named.iter().copied().chain(first).collect()
                }
                None if only_after_success => not_passed.clone(),
                None => not_ended.clone(),
            };
            not_ended.retain(|before| !needs.contains(before));
            not_ended.insert(at);
            if only_after_success {
                not_passed.retain(|before| !needs.contains(before));
            }
            not_passed.insert(at);
            order.push(needs.into_iter().collect());
        }
        match cycle(&order) {
            Some(cycle) => Err(cycle),
            None => Ok(Self(order.into())),
        }
    }

    /// The stages that a stage waits for, in order. Waiting for them is waiting for all that it has
    /// to wait for.
    pub fn needs(&self, stage: usize) -> &[usize] {
        self.0.get(stage).map_or(&[], Vec::as_slice)
    }

    /// How many stages there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there is no stage.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All stages that a stage waits for, directly and through others.
    pub fn ancestors(&self, stage: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = self.needs(stage).to_vec();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend(self.needs(next));
            }
        }
        found
    }

    /// The stages by rounds: those of a round wait for stages of earlier rounds alone.
    pub fn rounds(&self) -> Vec<Vec<usize>> {
        let mut level = vec![None; self.len()];
        let mut rounds: Vec<Vec<usize>> = Vec::new();
        for stage in depth_first(&self.0).0 {
            let own = self.needs(stage).iter().filter_map(|need| level[*need]).map(|at: usize| at + 1).max();
            let own = own.unwrap_or(0);
            level[stage] = Some(own);
            if rounds.len() <= own {
                rounds.resize(own + 1, Vec::new());
            }
            rounds[own].push(stage);
        }
        rounds.iter_mut().for_each(|round| round.sort_unstable());
        rounds
    }
}

/// Whether the first stage of a list comes before all others, whatever they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// It does: it is `prepare`.
    BeforeAll,
    /// It is one as all others.
    Ordinary,
}

fn cycle(order: &[Vec<usize>]) -> Option<Vec<usize>> {
    depth_first(order).1
}

/// The stages so that each comes after all that it waits for, and the first cycle found.
fn depth_first(order: &[Vec<usize>]) -> (Vec<usize>, Option<Vec<usize>>) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; order.len()];
    let mut done = Vec::with_capacity(order.len());
    for start in 0..order.len() {
        // A stack of our own: a chain may be as long as the list.
        let mut path: Vec<(usize, usize)> = Vec::new();
        if marks[start] == Mark::New {
            marks[start] = Mark::Open;
            path.push((start, 0));
        }
        while let Some((stage, next)) = path.last_mut() {
            let Some(need) = order[*stage].get(*next).copied() else {
                marks[*stage] = Mark::Done;
                done.push(*stage);
                path.pop();
                continue;
            };
            *next += 1;
            match marks[need] {
                Mark::Done => {}
                Mark::New => {
                    marks[need] = Mark::Open;
                    path.push((need, 0));
                }
                Mark::Open => {
                    let from = path.iter().position(|(stage, _)| *stage == need).unwrap_or(0);
                    let cycle = path[from..].iter().map(|(stage, _)| *stage).collect();
                    return (done, Some(cycle));
                }
            }
        }
    }
    (done, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(needs: Option<&[usize]>, status: Status) -> Waits {
        Waits { needs: needs.map(<[usize]>::to_vec), status }
    }

    fn success(needs: Option<&[usize]>) -> Waits {
        after(needs, Status::SUCCESS)
    }

    fn order(stages: &[Waits]) -> Order {
        Order::new(stages, First::Ordinary).expect("no cycle")
    }

    #[test]
    fn without_needs_each_waits_for_the_one_before() {
        let order = order(&[success(None), success(None), success(None)]);
        assert_eq!((order.needs(0), order.needs(1), order.needs(2)), (&[][..], &[0][..], &[1][..]));
        assert_eq!(order.rounds(), [[0], [1], [2]]);
    }

    #[test]
    fn a_stage_without_needs_waits_for_all_that_run_side_by_side() {
        let order = order(&[success(None), success(Some(&[0])), success(Some(&[0])), success(None)]);
        assert_eq!(order.needs(3), [1, 2]);
        assert_eq!(order.rounds(), [vec![0], vec![1, 2], vec![3]]);
    }

    #[test]
    fn a_stage_that_always_runs_vouches_for_no_success() {
        let always = || after(None, Status::ALWAYS);
        let order = order(&[success(None), always(), always(), success(None), always()]);
        assert_eq!(order.needs(1), [0]);
        assert_eq!(order.needs(2), [1]);
        assert_eq!(order.needs(3), [0, 1, 2]);
        assert_eq!(order.needs(4), [3]);
    }

    #[test]
    fn no_needs_means_after_prepare() {
        let stages = [success(None), success(None), success(Some(&[])), success(Some(&[1]))];
        let order = Order::new(&stages, First::BeforeAll).expect("no cycle");
        assert_eq!((order.needs(2), order.needs(3)), (&[0][..], &[0, 1][..]));
        assert_eq!(order.ancestors(3), BTreeSet::from([0, 1]));
    }

    #[test]
    fn cycles_are_shown() {
        for (stages, expected) in [
            (vec![success(Some(&[0]))], vec![0]),
            (vec![success(Some(&[1])), success(None)], vec![0, 1]),
            (
                vec![success(Some(&[2])), success(Some(&[])), success(Some(&[3])), success(Some(&[0]))],
                vec![0, 2, 3],
            ),
        ] {
            assert_eq!(Order::new(&stages, First::Ordinary), Err(expected));
        }
    }
}
