//! `buildr agents`.

use super::{Globals, user};
use crate::{
    Error, Exit,
    client::farm::{Agent, Resume},
    render::escape::sanitize,
    screen::Screen,
};

/// Look after the agents of the farm
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr agents list
  buildr agents drain ant
  buildr agents remove 3f9a")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List all agents
    List,
    /// Show one agent
    Show(Named),
    /// Give an agent no new work; what runs there is finished
    Drain(Named),
    /// Give an agent work again
    Resume(Named),
    /// Forget an agent that is not connected; what it had counts as lost
    Remove(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// The agent's name, its id, or the beginning of its id
    #[arg(value_name = "AGENT")]
    agent: String,
}

/// Asks, and prints the agents as they stand then.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let agents = match &args.what {
        What::List => client.agents().await?,
        What::Show(Named { agent }) => vec![find(client.agents().await?, agent)?],
        What::Drain(Named { agent }) => vec![client.drain(agent, &user(), Resume::No).await?],
        What::Resume(Named { agent }) => vec![client.drain(agent, &user(), Resume::Yes).await?],
        What::Remove(Named { agent }) => vec![client.remove_agent(agent).await?],
    };
    if args.json {
        match (&args.what, agents.as_slice()) {
            (What::List, all) => screen.print_json(&all)?,
            (_, one) => one.iter().try_for_each(|agent| screen.print_json(agent))?,
        }
        return Ok(Exit::OK);
    }
    match &args.what {
        What::List if agents.is_empty() => {
            screen.say("no agent has connected yet; start one with `buildr-agent`");
        }
        What::Remove(_) => {
            agents.iter().try_for_each(|agent| screen.print(&format!("{} is forgotten", line(agent))))?;
        }
        _ => agents.iter().try_for_each(|agent| screen.print(&line(agent)))?,
    }
    if let What::Show(_) = &args.what {
        agents.iter().flat_map(details).try_for_each(|line| screen.print(&line))?;
    }
    Ok(Exit::OK)
}

fn find(agents: Vec<Agent>, wanted: &str) -> Result<Agent, Error> {
    let named = |agent: &Agent| agent.name == wanted || agent.id == wanted;
    let mut found: Vec<Agent> = agents.iter().filter(|agent| named(agent)).cloned().collect();
    if found.is_empty() {
        found = agents.into_iter().filter(|agent| agent.id.starts_with(wanted)).collect();
    }
    match (found.pop(), found.is_empty()) {
        (Some(agent), true) => Ok(agent),
        (None, _) => Err(Error::Refused(format!("there is no agent `{wanted}`"))),
        (Some(_), false) => {
            Err(Error::usage_with(format!("several agents are meant by `{wanted}`"), "name one by its id"))
        }
    }
}

/// One agent in one line.
fn line(agent: &Agent) -> String {
    let busy = format!("{} of {} slots busy", agent.jobs.len(), agent.slots);
    let id: String = agent.id.chars().take(8).collect();
    format!("{} ({id}): {}, {busy}", sanitize(&agent.name), state(agent))
}

fn state(agent: &Agent) -> String {
    match agent {
        Agent { silent_since: Some(since), .. } => format!("not heard of since {since:.0}"),
        Agent { connected: false, .. } => "away".to_owned(),
        Agent { drained_by: Some(by), .. } => format!("drained by {}", sanitize(by)),
        Agent { leaving: true, .. } => "leaving".to_owned(),
        _ => "ready".to_owned(),
    }
}

fn details(agent: &Agent) -> Vec<String> {
    let labels: Vec<String> = agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    vec![
        format!("  id         {}", agent.id),
        format!("  version    {}", sanitize(&agent.version)),
        format!("  labels     {}", sanitize(&labels.join(", "))),
        format!("  connected  {:.0}", agent.connected_at),
        format!("  jobs       {}", agent.jobs.join(", ")),
    ]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn agent(name: &str, id: &str) -> Agent {
        Agent {
            id: id.to_owned(),
            name: name.to_owned(),
            version: "1".to_owned(),
            slots: 2,
            labels: [("os".to_owned(), "linux".to_owned())].into(),
            connected: true,
            connected_at: Timestamp::UNIX_EPOCH,
            silent_since: None,
            leaving: false,
            drained_by: None,
            jobs: vec!["42.1".to_owned()],
        }
    }

    #[test]
    fn an_agent_is_one_line_that_says_the_most_important_first() {
        assert_eq!(line(&agent("ant", "0123456789")), "ant (01234567): ready, 1 of 2 slots busy");
        let drained = Agent { drained_by: Some("eve".to_owned()), ..agent("ant", "0123456789") };
        assert_eq!(line(&drained), "ant (01234567): drained by eve, 1 of 2 slots busy");
        let silent = Agent { silent_since: Some(Timestamp::UNIX_EPOCH), ..drained };
        assert!(line(&silent).contains("not heard of since 1970-01-01T00:00:00Z"));
    }

    #[test]
    fn an_agent_is_found_by_its_name_and_by_the_beginning_of_its_id_alone() {
        let all = || vec![agent("ant", "aa11"), agent("bee", "aa22"), agent("bee", "bb33")];
        assert_eq!(find(all(), "ant").unwrap().id, "aa11");
        assert_eq!(find(all(), "bb").unwrap().id, "bb33");
        assert!(find(all(), "bee").is_err() && find(all(), "aa").is_err() && find(all(), "x").is_err());
    }
}
