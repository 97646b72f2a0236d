//! `buildr submit`.

use std::{collections::BTreeMap, path::Path};

use buildr_manifest::Trigger;
use buildr_proto::{
    BuildId,
    build::{BuildSpec, Reference, Source},
};
use serde::Serialize;

use super::{Globals, Variable, current_folder, tail, user};
use crate::{
    Error, Exit,
    client::{
        Client, Which,
        follow::{Follow, Options, Stages},
    },
    render::Headline,
    repository::{Checkout, as_url},
    screen::{Screen, View},
    show::{Interrupt, follow},
};

/// Build a commit on the farm
///
/// Without arguments: the commit that is checked out here, from the remote `origin`. Prints the
/// build's number at once. Ctrl-C leaves the build alone, twice cancels it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr submit
  buildr submit --repo https://example.com/team/app.git --branch main
  buildr submit --event tag --tag v1.2       as if the tag v1.2 had just been pushed
  buildr submit --var RELEASE=1 --label gpu=true
  build=$(buildr submit --no-follow)")]
pub(super) struct Args {
    /// The repository [default: the remote `origin` of the current one]
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// The branch [default: the current one; with --repo the remote's default]
    #[arg(long, value_name = "NAME", conflicts_with = "tag")]
    branch: Option<String>,
    /// The tag
    #[arg(long, value_name = "NAME")]
    tag: Option<String>,
    /// The commit, with all of its digits
    #[arg(long, value_name = "ID")]
    commit: Option<String>,
    /// What the build is to take for its cause; with anything but `manual`, the manifest's `on` decides
    #[arg(long, value_enum, default_value_t = Event::Manual)]
    event: Event,
    /// The manifest, as a path in the project [default: the first of .buildr.yml, .buildr.yaml, .buildr]
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// A variable for all stages; it wins over the manifest's. May be given again
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<Variable>,
    /// A label that the agent must have. May be given again
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Higher goes first
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Show the build as it runs, and exit with its result [default on a terminal]
    #[arg(long, overrides_with = "no_follow")]
    follow: bool,
    /// Print the number and end
    #[arg(long, overrides_with = "follow")]
    no_follow: bool,
    /// Exit with the build's result, without its log
    #[arg(long, conflicts_with = "follow")]
    wait: bool,
    /// Print JSON: one document, or one object per line where the build is followed or waited for
    #[arg(long)]
    json: bool,
}

/// What may start a build of the farm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Event {
    Manual,
    Push,
    Tag,
    Cron,
}

impl From<Event> for Trigger {
    fn from(event: Event) -> Self {
        match event {
            Event::Manual => Self::Manual,
            Event::Push => Self::Push,
            Event::Tag => Self::Tag,
            Event::Cron => Self::Cron,
        }
    }
}

#[derive(Serialize)]
struct Submitted {
    event: &'static str,
    build: BuildId,
}

/// What is to happen after the submit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Follow,
    Wait,
    End,
}

/// Submits, and shows the build if that is wanted.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let folder = current_folder()?;
    let (source, notes) = source(&args, &folder)?;
    let client = globals.connect().await?;
    notes.iter().for_each(|note| screen.say(&format!("note: {note}")));
    let spec = BuildSpec {
        source,
        trigger: args.event.into(),
        manifest_path: args.file.clone(),
        variables: args.vars.iter().map(|Variable(name, value)| (name.clone(), value.clone())).collect(),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        priority: args.priority,
        cron: None,
    };
    let then = match (args.follow, args.no_follow, args.wait) {
        (_, _, true) => Then::Wait,
        (true, ..) => Then::Follow,
        (_, true, _) => Then::End,
        _ if screen.is_terminal() && !args.json => Then::Follow,
        _ => Then::End,
    };
    let reproduce = tail::reproduce(&spec);
    let by = user();
    let build = client.submit(spec, &by).await?;
    if args.json {
        screen.print_json(&Submitted { event: "submitted", build })?;
    } else if then == Then::Follow && screen.is_terminal() {
        screen.print(&format!("build {build}"))?;
    } else {
        screen.print(&build.to_string())?;
    }
    let headline = Headline { build: Some(build), reproduce: Some(reproduce) };
    match then {
        Then::End => Ok(Exit::OK),
        Then::Wait => watch(&client, build, headline, Stages::Named([].into()), &args, &by, screen).await,
        Then::Follow => watch(&client, build, headline, Stages::All, &args, &by, screen).await,
    }
}

async fn watch(
    client: &Client,
    build: BuildId,
    headline: Headline,
    stages: Stages,
    args: &Args,
    by: &str,
    screen: &Screen,
) -> Result<Exit, Error> {
    let view = if args.json { View::Json } else { View::Fitting };
    let mut renderer = screen.renderer(view, headline)?;
    let state = client.get(Which::Number(build)).await?;
    let options = Options { stages, times: args.json, ..Options::default() };
    let mut entries = Follow::new(client.clone(), &state, options);
    follow(&mut entries, client, build, renderer.as_mut(), Interrupt::TwiceCancels(by)).await
}

/// What to build, and what the user should know about it.
fn source(args: &Args, folder: &Path) -> Result<(Source, Vec<String>), Error> {
    let named = match (&args.branch, &args.tag) {
        (Some(branch), _) => Some(Reference::Branch(branch.clone())),
        (_, Some(tag)) => Some(Reference::Tag(tag.clone())),
        _ => None,
    };
    if let Some(repository) = &args.repo {
        let source = Source {
            repository: as_url(repository, folder),
            reference: named.unwrap_or_default(),
            commit: args.commit.clone(),
        };
        return Ok((source, Vec::new()));
    }
    let checkout = Checkout::around(folder)?;
    let repository = checkout.origin.clone().ok_or_else(|| {
        Error::usage_with(
            format!("the repository {} has no remote `origin`", checkout.root.display()),
            "name what agents are to clone: `buildr submit --repo URL`, or `--repo .` where an agent on this \
             machine may read folders, as that of `buildr up` does",
        )
    })?;
    let current = || checkout.branch.clone().map_or(Reference::Default, Reference::Branch);
    if named.is_some() || args.commit.is_some() {
        let reference = named.unwrap_or_else(current);
        return Ok((Source { repository, reference, commit: args.commit.clone() }, Vec::new()));
    }
    let mut notes = Vec::new();
    if checkout.unpushed {
        notes
            .push("this commit is not on `origin` as far as is known here; agents need it pushed".to_owned());
    }
    if checkout.dirty {
        notes.push("changes that are not committed are not part of the build".to_owned());
    }
    let reference = current();
    Ok((Source { repository, reference, commit: checkout.commit }, notes))
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE".to_owned()),
    }
}
