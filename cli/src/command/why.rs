//! `buildr why`.

use buildr_proto::build::BuildState;
use serde::Serialize;

use super::Globals;
use crate::{
    Error, Exit,
    client::{
        Which,
        farm::{Estimate, Explanation, JobExplanation, Standing},
    },
    render::{escape::sanitize, escape::sanitize_lines, text},
    screen::Screen,
};

/// Say why a build stands where it stands
///
/// What a waiting job waits for is the scheduler's own reason. Of a build that has ended it says how
/// each job ended, and `buildr show` says more.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr why 42
  buildr why latest --json")]
pub(super) struct Args {
    /// The build's number, or `latest`
    #[arg(value_name = "ID")]
    build: Which,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    explanation: &'a Explanation,
    #[serde(flatten)]
    state: &'a BuildState,
}

/// Asks, and prints the answer.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let build = client.get(args.build).await?;
    let explanation = client.explain(Which::Number(build.number)).await?;
    if args.json {
        screen.print_json(&Document { explanation: &explanation, state: &build.state })?;
        return Ok(Exit::OK);
    }
    let mut lines = Vec::new();
    if let BuildState::Finished(outcome) = &build.state {
        lines.push(format!("build {}: {}", build.number, sanitize_lines(&outcome.to_string())));
    }
    for job in &build.jobs {
        if let (BuildState::Finished(outcome), true) = (&job.state, build.jobs.len() > 1) {
            let name = sanitize(job.name.as_deref().unwrap_or_default());
            let outcome = sanitize_lines(&outcome.to_string());
            lines.push(format!("job {}.{} {name}: {outcome}", build.number, job.index));
        }
    }
    explanation.jobs.iter().for_each(|job| lines.extend(job_lines(&explanation, job)));
    if !matches!(build.state, BuildState::Finished(_)) {
        lines.extend(explanation.estimate.as_ref().map(estimate_line));
    }
    lines.iter().try_for_each(|line| screen.print(line))?;
    Ok(Exit::OK)
}

fn job_lines(explanation: &Explanation, job: &JobExplanation) -> Vec<String> {
    let name = if job.name.is_empty() { String::new() } else { format!(" {}", sanitize(&job.name)) };
    let who = format!("job {}.{}{name}", explanation.build, job.job);
    match &job.standing {
        Standing::Waiting { reasons, ahead, since } => {
            let turn = match ahead {
                0 => "it is the next".to_owned(),
                1 => "1 job goes before it".to_owned(),
                ahead => format!("{ahead} jobs go before it"),
            };
            let mut lines = vec![format!("{who} waits since {since:.0}; {turn}")];
            lines.extend(reasons.iter().map(|reason| format!("  {}", sanitize(reason))));
            lines
        }
        Standing::Offered { agent } => vec![format!("{who} is offered to agent {}", sanitize(agent))],
        Standing::Running { agent, silent_since, ending } => {
            let mut line = format!("{who} runs on agent {}", sanitize(agent));
            if let Some(since) = silent_since {
                line.push_str(&format!(", which has not been heard of since {since:.0}"));
            }
            if let Some(by) = ending {
                line.push_str(&format!("; it is being ended for {}", sanitize(by)));
            }
            vec![line]
        }
    }
}

fn estimate_line(estimate: &Estimate) -> String {
    let of = if estimate.same_branch { "of the same branch" } else { "of the repository" };
    format!(
        "builds {of} usually wait {} and run {} (median of {})",
        text::duration(estimate.wait),
        text::duration(estimate.run),
        estimate.builds
    )
}
