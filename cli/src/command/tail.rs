//! `buildr tail`.

use std::collections::{BTreeMap, BTreeSet};

use buildr_manifest::{LogName, ServiceName, StageName};
use buildr_proto::build::{Build, BuildSpec, BuildState};

use super::Globals;
use crate::{
    Error, Exit,
    client::{
        Client, Which,
        follow::{Follow, Options, Stages, Until},
    },
    render::{Headline, text::quote},
    screen::{Screen, View},
    show::{Interrupt, follow},
};

/// Show a build's log from its first byte, and go on as it grows
///
/// Ends with the build, and with its result as the exit code. Ctrl-C leaves the build alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr tail latest
  buildr tail 42 --failed -n 100      the last lines of what failed
  buildr tail 42 --stage test --raw > test.log")]
pub(super) struct Args {
    /// The build's number, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    build: Which,
    /// Begin with the last lines of what there is
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
    /// Only this stage. May be given again
    #[arg(long = "stage", value_name = "NAME", value_parser = parse_stage)]
    stages: Vec<StageName>,
    /// Only what this service prints. May be given again, and together with --stage
    #[arg(long = "service", value_name = "NAME", value_parser = parse_service)]
    services: Vec<ServiceName>,
    /// Only stages that failed
    #[arg(long, conflicts_with = "stages")]
    failed: bool,
    /// Put its time before each line
    #[arg(long, conflicts_with_all = ["raw", "json"])]
    timestamps: bool,
    /// Print the bytes of the log as they are, also those that act on a terminal
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Show what there is, and end
    #[arg(long)]
    no_follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Shows the build.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let build = client.get(args.build).await?;
    let stages = wanted(&args, &build)?;
    let begin = match args.lines {
        Some(lines) => last_lines(&client, &build, &stages, lines).await?,
        None => BTreeMap::new(),
    };
    let view = match (args.json, args.raw, args.timestamps) {
        (true, ..) => View::Json,
        (_, true, _) => View::Raw,
        (.., true) => View::Timed,
        _ => View::Fitting,
    };
    let options = Options {
        stages,
        services: args.services.iter().cloned().collect(),
        begin,
        times: args.timestamps || args.json,
        until: if args.no_follow { Until::Now } else { Until::End },
        ..Options::default()
    };
    let mut renderer = screen.renderer(view, headline(&build))?;
    let mut entries = Follow::new(client.clone(), &build, options);
    follow(&mut entries, &client, build.number, renderer.as_mut(), Interrupt::Detaches).await
}

/// What the renderer says of a build beside its events.
pub(super) fn headline(build: &Build) -> Headline {
    Headline { build: Some(build.number), reproduce: Some(reproduce(&build.spec)) }
}

/// The command that does on this machine what the farm did with a commit.
pub(super) fn reproduce(spec: &BuildSpec) -> String {
    let mut command = format!("buildr run --event {}", spec.trigger.word());
    if let Some(file) = &spec.manifest_path {
        command.push_str(&format!(" -f {}", quote(file)));
    }
    for (name, value) in &spec.variables {
        command.push_str(&format!(" --var {}", quote(&format!("{name}={value}"))));
    }
    command
}

/// Checks the name of a stage.
pub(super) fn parse_stage(text: &str) -> Result<StageName, String> {
    StageName::new(text).map_err(|invalid| invalid.to_string())
}

/// Checks the name of a service.
pub(super) fn parse_service(text: &str) -> Result<ServiceName, String> {
    ServiceName::new(text).map_err(|invalid| invalid.to_string())
}

fn wanted(args: &Args, build: &Build) -> Result<Stages, Error> {
    if args.failed {
        return Ok(Stages::Failed);
    }
    if args.stages.is_empty() {
        let none = Stages::Named(BTreeSet::new());
        return Ok(if args.services.is_empty() { Stages::All } else { none });
    }
    let known: Vec<_> = build.jobs.iter().flat_map(|job| &job.stages).map(|stage| &stage.name).collect();
    let ended = matches!(build.state, BuildState::Finished(_));
    if let Some(unknown) = args.stages.iter().find(|stage| !known.contains(stage))
        && (ended || !known.is_empty())
    {
        let names = known.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
        let hint = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {names}") };
        return Err(Error::usage_with(format!("build {} has no stage `{unknown}`", build.number), hint));
    }
    Ok(Stages::Named(args.stages.iter().cloned().collect::<BTreeSet<_>>()))
}

/// Where to begin in each log so that its end is seen from so many lines on, over all wanted stages.
async fn last_lines(
    client: &Client,
    build: &Build,
    wanted: &Stages,
    lines: usize,
) -> Result<BTreeMap<LogName, u64>, Error> {
    let mut begin = BTreeMap::new();
    let mut left = lines;
    for (job, stage) in
        build.jobs.iter().flat_map(|job| job.stages.iter().map(move |stage| (job, stage))).rev()
    {
        if !wanted.want(&stage.name, &stage.progress) || stage.log_bytes == 0 {
            continue;
        }
        let (offset, found) = if left == 0 {
            (stage.log_bytes, 0)
        } else {
            client.line_start(build.number, job, stage, left).await?
        };
        begin.insert(stage.name.clone().into(), offset);
        left -= found.min(left);
    }
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use buildr_manifest::{Trigger, VarName};
    use buildr_proto::build::{Reference, Source};

    use super::*;

    #[test]
    fn the_line_that_reproduces_a_build_is_ready_for_a_shell() {
        let source = Source {
            repository: "https://example.com/a".to_owned(),
            reference: Reference::Branch("main".to_owned()),
            commit: None,
        };
        let spec = BuildSpec {
            source,
            trigger: Trigger::Manual,
            manifest_path: Some("ci/a b.yml".to_owned()),
            variables: vec![(VarName::new("A").unwrap(), "it's".to_owned())],
            labels: BTreeMap::new(),
            priority: 0,
            cron: None,
        };
        let expected = r"buildr run --event manual -f 'ci/a b.yml' --var 'A=it'\''s'";
        assert_eq!(reproduce(&spec), expected);
    }
}
