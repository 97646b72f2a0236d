//! Why a build stands where it stands, and what is to be expected of it.

use std::time::Duration;

use buildr_proto::{
    build::Build,
    convert::{duration_to_pb, timestamp_to_pb},
    pb::{self, job_explanation as standing, obstacle},
};

use crate::{
    core::{
        explain::{Explanation, HeldBack, Obstacle, Standing, Unfit},
        input::Refusal,
    },
    error::Error,
    hub::Hub,
};

/// How many builds of a repository are looked at for an estimate.
const PAST: u32 = 50;

/// An estimate from fewer builds of the same branch than this is made from all branches instead.
const ENOUGH: usize = 3;

/// Explains a build that was found in the store.
pub(super) async fn explain(hub: &Hub, build: Build) -> Result<pb::ExplainResponse, Error> {
    let jobs = match hub.explain(build.number).await {
        Ok(jobs) => jobs,
        // It has ended since.
        Err(Error::Refused(Refusal::NoSuchBuild(_))) => Vec::new(),
        Err(error) => return Err(error),
    };
    let past = hub.store().past(build.spec.source.repository.clone(), PAST).await?;
    Ok(pb::ExplainResponse {
        build: build.number.get(),
        jobs: jobs.into_iter().map(job).collect(),
        estimate: estimate(&build, &past),
    })
}

/// What earlier builds took: those of the same branch or tag, where there are enough of them.
fn estimate(build: &Build, past: &[Build]) -> Option<pb::Estimate> {
    let others: Vec<&Build> = past.iter().filter(|old| old.number != build.number).collect();
    let same = |old: &&&Build| old.spec.source.reference == build.spec.source.reference;
    let same: Vec<&Build> = others.iter().filter(same).copied().collect();
    let same_branch = same.len() >= ENOUGH || same.len() == others.len();
    let chosen = if same_branch { same } else { others };
    let wait = median(chosen.iter().filter_map(|old| since(old.submitted_at, old.started_at?)).collect())?;
    let run = median(chosen.iter().filter_map(|old| since(old.started_at?, old.finished_at?)).collect())?;
    Some(pb::Estimate {
        wait: Some(duration_to_pb(wait)),
        run: Some(duration_to_pb(run)),
        builds: chosen.len() as u32,
        same_branch,
    })
}

fn since(begin: jiff::Timestamp, end: jiff::Timestamp) -> Option<Duration> {
    Duration::try_from(end.duration_since(begin)).ok()
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

fn job(explanation: Explanation) -> pb::JobExplanation {
    let Explanation { job, name, standing } = explanation;
    let standing = match standing {
        Standing::Waiting { obstacles, ahead, since } => standing::Standing::Waiting(standing::Waiting {
            obstacles: obstacles.into_iter().map(obstacle).collect(),
            ahead: ahead as u32,
            since: Some(timestamp_to_pb(since)),
        }),
        Standing::Offered { agent } => standing::Standing::Offered(standing::Offered { agent_name: agent }),
        Standing::Running { agent, silent_since, ending } => standing::Standing::Running(standing::Running {
            agent_name: agent,
            silent_since: silent_since.map(timestamp_to_pb),
            ending: ending.unwrap_or_default(),
        }),
    };
    pb::JobExplanation { job: job.index, name, standing: Some(standing) }
}

fn obstacle(found: Obstacle) -> pb::Obstacle {
    let labels = |labels: Vec<(String, String)>| -> Vec<String> {
        labels.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    };
    let obstacle = match found {
        Obstacle::NoAgents => obstacle::Obstacle::NoAgents(obstacle::NoAgents {}),
        Obstacle::NoSuchAgent { missing, wanted } => {
            let (missing, wanted) = (labels(missing), labels(wanted));
            obstacle::Obstacle::NoSuchAgent(obstacle::NoSuchAgent { missing, wanted })
        }
        Obstacle::Agent { name, why } => {
            let why = unfit(&why);
            obstacle::Obstacle::AgentUnfit(obstacle::AgentUnfit { agent_name: name, why })
        }
        Obstacle::HeldBack(HeldBack::Group { group, holder }) => {
            let (build, job) = (holder.build.get(), holder.index);
            obstacle::Obstacle::GroupBusy(obstacle::GroupBusy { group, build, job })
        }
        Obstacle::HeldBack(HeldBack::MaxParallel { most }) => {
            obstacle::Obstacle::MaxParallel(obstacle::MaxParallel { most })
        }
    };
    pb::Obstacle { obstacle: Some(obstacle) }
}

fn unfit(why: &Unfit) -> String {
    match why {
        Unfit::Away => "it is not connected".to_owned(),
        Unfit::Leaving => "it is leaving and takes nothing new".to_owned(),
        Unfit::Drained { by } => format!("it was drained by {by}"),
        Unfit::Silent { since } => format!("it has not been heard of since {since:.0}"),
        Unfit::Paused { why } => format!("it did not take its last offer: {why}"),
        Unfit::Busy { slots: 1 } => "its only slot is busy".to_owned(),
        Unfit::Busy { slots } => format!("all of its {slots} slots are busy"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_none_is_none_and_of_many_is_in_the_middle() {
        let seconds = |times: &[u64]| times.iter().map(|time| Duration::from_secs(*time)).collect::<Vec<_>>();
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median(seconds(&[9, 1, 500])), Some(Duration::from_secs(9)));
    }
}
