//! `buildr run`.

mod dry;
mod kept;

use std::{
    collections::{BTreeMap, HashSet},
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Duration,
};

use buildr_engine::{
    Config, Engine, Finished,
    job::{
        Afterwards, EventFacts, GitReference, GitSource, Identity, Item, JobRequest, RunId, SourceSpec, Stop,
    },
};
use buildr_manifest::{Cause, FILE_NAMES, Outcome, Part, Pick, ServiceName, StageName, Trigger};
use clap::ValueEnum;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, timeout},
};
use ulid::Ulid;

use super::{Variable, current_folder};
use crate::{
    Error, Exit,
    client::follow::Entry,
    render::{Headline, Renderer, text::quote},
    repository::Checkout,
    screen::{Screen, View},
    show::{TICK, written},
    signals::{Signal, Signals},
};
use dry::{AxisValue, Form};

/// So many items may wait between the engine and the screen.
const QUEUE: usize = 16;

/// How long what a killed run has left may take to go after the end of a quick job.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Build a project on this machine, in a container, as the farm would
///
/// The folder is mounted read-write at /workspace. The first Ctrl-C ends the build gently, the
/// second at once; either way nothing of it stays behind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr run                          the current folder
  buildr run ../app -f ci/nightly.yml
  buildr run --clean                  a fresh clone of HEAD, without what is not committed
  buildr run --var DEBUG=1 --event push
  buildr run --stage test             that stage alone, after `prepare`
  buildr run --matrix DB=sqlite       one job of a matrix
  buildr run --keep                   leave the container for a look around
  buildr run --shell-on-failure       look around at once
  buildr run --dry-run --event tag --tag v1.0   what a build of a tag would do")]
pub(super) struct Args {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The manifest, as a path in the project [default: the first of .buildr.yml, .buildr.yaml, .buildr]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A variable for all stages; it wins over the manifest's. May be given again
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<Variable>,
    /// The event that the build is to see as its cause
    #[arg(long, value_enum, default_value_t = Event::Local)]
    event: Event,
    /// The branch that the build is to see [default: the one that is checked out]
    #[arg(long, value_name = "BRANCH", conflicts_with = "tag")]
    branch: Option<String>,
    /// The tag that the build is to see [default with --event tag: that of HEAD]
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// The branch that a pull request is to be merged into, with --event pull_request
    #[arg(long, value_name = "BRANCH")]
    target: Option<String>,
    /// Run this stage alone, after `prepare`: what it waits for is taken as met
    #[arg(long, value_name = "NAME", value_parser = super::tail::parse_stage)]
    stage: Option<StageName>,
    /// Run this stage and all that are listed after it, after `prepare`
    #[arg(long, value_name = "NAME", value_parser = super::tail::parse_stage, conflicts_with = "stage")]
    from: Option<StageName>,
    /// The job of the matrix with this value of an axis; with --dry-run all such jobs. May be given again
    #[arg(long, value_name = "AXIS=VALUE")]
    matrix: Vec<AxisValue>,
    /// Leave the build container as it is at the end, and say how to enter and how to remove it
    #[arg(long, conflicts_with = "dry_run")]
    keep: bool,
    /// After a failure, open a shell where the stage ran, before all is removed; on a terminal only
    #[arg(long, conflicts_with_all = ["dry_run", "keep", "json"])]
    shell_on_failure: bool,
    /// Build a fresh clone of HEAD instead of the folder as it is
    #[arg(long)]
    clean: bool,
    /// When images come from their registries: where they are not here, in any case, or never
    #[arg(long, env = "BUILDR_RUN_PULL", hide_env_values = true, value_enum, default_value_t = Pull::Missing)]
    pull: Pull,
    /// The most that a stage may write, as 200MiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1GiB")]
    log_limit: u64,
    /// Show what this service prints, too. May be given again
    #[arg(long = "service", value_name = "NAME", value_parser = super::tail::parse_service)]
    services: Vec<ServiceName>,
    /// Exit with the exit code of the command that failed
    #[arg(long)]
    propagate: bool,
    /// Print one JSON object per line; with --dry-run one document
    #[arg(long)]
    json: bool,
    /// Print the plan and run nothing; needs no Docker
    #[arg(long, conflicts_with = "clean")]
    dry_run: bool,
}

/// When images come from their registries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Pull {
    Missing,
    Always,
    Never,
}

impl From<Pull> for buildr_engine::Pull {
    fn from(pull: Pull) -> Self {
        match pull {
            Pull::Missing => Self::Missing,
            Pull::Always => Self::Always,
            Pull::Never => Self::Never,
        }
    }
}

/// What starts a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Event {
    Local,
    Manual,
    Push,
    Tag,
    #[value(name = "pull_request", alias = "pull-request")]
    PullRequest,
    Cron,
}

impl From<Event> for Trigger {
    fn from(event: Event) -> Self {
        match event {
            Event::Local => Self::Local,
            Event::Manual => Self::Manual,
            Event::Push => Self::Push,
            Event::Tag => Self::Tag,
            Event::PullRequest => Self::PullRequest,
            Event::Cron => Self::Cron,
        }
    }
}

/// Runs the build and shows it.
pub(super) async fn run(args: Args, screen: &Screen) -> Result<Exit, Error> {
    let mut signals = Signals::listen()?;
    let request = request(&args)?;
    if args.shell_on_failure && !(screen.is_terminal() && std::io::stdin().is_terminal()) {
        return Err(Error::usage_with(
            "--shell-on-failure needs a terminal",
            "--keep leaves the container, to be entered later",
        ));
    }
    if args.dry_run {
        let form = if args.json { Form::Json } else { Form::Tree };
        return dry::run(&request, &args.matrix, form, screen);
    }
    let engine = Engine::connect(config(&args)?).await?;
    let headline = Headline { build: None, reproduce: Some(command_line(&args)) };
    let view = if args.json { View::Json } else { View::Fitting };
    let mut renderer = screen.renderer(view, headline)?;

    // What a killed run left behind goes while this one works; nobody waits for it.
    let sweeping = tokio::spawn({
        let (engine, live) = (engine.clone(), HashSet::from([request.run.clone()]));
        async move { engine.reap(&live).await.map(drop) }
    });
    let (keeper, run) = (engine.clone(), request.run.clone());
    let (stop, wish) = watch::channel(Stop::No);
    let (sender, items) = mpsc::channel(QUEUE);
    let job = tokio::spawn(async move {
        match engine.prepare(request, &sender, &wish).await {
            Ok(prepared) => engine.run(prepared, &sender, &wish).await,
            Err(finished) => finished,
        }
    });
    let shown = watch_job(items, &args.services, renderer.as_mut(), &mut signals, &stop).await;
    if shown.is_err() {
        // Nobody sees the rest: it ends, and is cleaned up, all the same.
        stop.send_replace(Stop::Kill { by: "a closed output".to_owned() });
    }
    let finished = job
        .await
        .map_err(|error| Error::Engine { what: format!("the engine broke down: {error}"), hint: None })?;
    // Where the job was quicker than that, it may still end what it has begun.
    let mut sweeping = sweeping;
    if timeout(SWEEP_LIMIT, &mut sweeping).await.is_err() {
        sweeping.abort();
    }
    shown?;
    drop(renderer);
    if let Some(kept) = keeper.kept(&run) {
        match args.shell_on_failure {
            true => kept::look_around(&keeper, &run, kept, screen).await?,
            false => kept::tell(&kept, screen),
        }
    }
    Ok(Exit(exit_code(&finished, args.propagate)))
}

/// Shows items until the job has no more, and passes on what the user wants.
async fn watch_job(
    mut items: mpsc::Receiver<Item>,
    services: &[ServiceName],
    renderer: &mut dyn Renderer,
    signals: &mut Signals,
    stop: &watch::Sender<Stop>,
) -> Result<(), Error> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                let notice = ask_to_stop(signal, stop);
                written(renderer.notice(notice))?;
            }
            item = items.recv() => {
                let Some(item) = item else { return written(renderer.settle()) };
                if is_wanted(&item, services) {
                    written(renderer.entry(&Entry::Item(item)))?;
                }
                if items.is_empty() {
                    written(renderer.settle())?;
                }
            }
            _ = ticks.tick() => written(renderer.tick())?,
        }
    }
}

/// What a service prints is shown where it was asked for.
fn is_wanted(item: &Item, services: &[ServiceName]) -> bool {
    match item {
        Item::Output(output) => output.log.service().is_none_or(|name| services.contains(name)),
        Item::Event(_) => true,
    }
}

fn ask_to_stop(signal: Signal, stop: &watch::Sender<Stop>) -> &'static str {
    let by = super::user();
    if signal == Signal::HangUp || *stop.borrow() != Stop::No {
        stop.send_replace(Stop::Kill { by });
        return "ending the build at once, and cleaning up";
    }
    stop.send_replace(Stop::Cancel { by });
    "ending the build and cleaning up; Ctrl-C again ends it at once"
}

fn exit_code(finished: &Finished, propagate: bool) -> u8 {
    let outcome = &finished.outcome;
    match outcome {
        Outcome::Failed { cause: Cause::Exit { code }, .. } if propagate => {
            u8::try_from(*code).unwrap_or(outcome.exit_code())
        }
        Outcome::Failed { cause: Cause::Signal { signal }, .. } if propagate => {
            u8::try_from(128 + signal).unwrap_or(outcome.exit_code())
        }
        _ => outcome.exit_code(),
    }
}

fn request(args: &Args) -> Result<JobRequest, Error> {
    let folder = args.folder.canonicalize().map_err(|error| {
        Error::usage(format!("cannot open the folder {}: {error}", args.folder.display()))
    })?;
    if !folder.is_dir() {
        return Err(Error::usage_with(
            format!("{} is not a folder", args.folder.display()),
            "give the project's folder, and the manifest with -f",
        ));
    }
    let file = args.file.as_deref().map(|file| in_project(file, &folder)).transpose()?;
    let source = if args.clean { head_of(&folder)? } else { SourceSpec::Folder(folder.clone()) };
    if file.is_none() && !args.clean {
        require_manifest(&folder)?;
    }
    let run = RunId::new(format!("run-{}", Ulid::new()).to_lowercase()).expect("a ULID is a fit name");
    Ok(JobRequest {
        run,
        source,
        manifest_path: file,
        trigger: args.event.into(),
        facts: EventFacts {
            branch: args.branch.clone(),
            tag: args.tag.clone(),
            target: args.target.clone(),
            cron: None,
        },
        pick: pick(&args.matrix)?,
        part: match (&args.stage, &args.from) {
            (Some(stage), _) => Part::Stage(stage.clone()),
            (None, Some(stage)) => Part::From(stage.clone()),
            (None, None) => Part::Whole,
        },
        afterwards: if args.keep || args.shell_on_failure { Afterwards::Keep } else { Afterwards::Remove },
        vars: args.vars.iter().map(|Variable(name, value)| (name.clone(), value.clone())).collect(),
        process_environment: environment(),
        identity: Identity::default(),
        timeout: None,
    })
}

/// The one job that is wanted.
fn pick(matrix: &[AxisValue]) -> Result<Pick, Error> {
    let mut values = BTreeMap::new();
    for (axis, value) in matrix.iter().map(AxisValue::pair) {
        if values.insert(axis.to_owned(), value.to_owned()).is_some_and(|before| before != value) {
            return Err(Error::usage(format!("--matrix gives {axis} two values, and a job has one")));
        }
    }
    Ok(if values.is_empty() { Pick::Only } else { Pick::With(values) })
}

/// The variables of this process that are text.
fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The path of a manifest in the project, whether it was given from there or from here.
fn in_project(file: &Path, folder: &Path) -> Result<PathBuf, Error> {
    let candidates = [folder.join(file), current_folder()?.join(file)];
    for candidate in candidates {
        let Ok(path) = candidate.canonicalize() else { continue };
        if let Ok(inside) = path.strip_prefix(folder) {
            return Ok(inside.to_owned());
        }
    }
    Err(Error::usage_with(
        format!("there is no manifest {} in {}", file.display(), folder.display()),
        "-f takes a path in the project",
    ))
}

fn require_manifest(folder: &Path) -> Result<(), Error> {
    let has_one = |folder: &Path| FILE_NAMES.iter().any(|name| folder.join(name).is_file());
    if has_one(folder) {
        return Ok(());
    }
    let elsewhere = folder.ancestors().skip(1).find(|above| has_one(above)).map(Path::to_owned);
    Err(Error::NoManifest { folder: folder.to_owned(), names: &FILE_NAMES, elsewhere })
}

/// The commit that is checked out, as a source to be cloned.
fn head_of(folder: &Path) -> Result<SourceSpec, Error> {
    let checkout = Checkout::around(folder)?;
    let commit = checkout
        .commit
        .ok_or_else(|| Error::usage(format!("{} has no commit to build", checkout.root.display())))?;
    Ok(SourceSpec::Git(GitSource {
        url: crate::repository::as_url(".", &checkout.root),
        reference: checkout.branch.map_or(GitReference::Default, GitReference::Branch),
        commit: Some(commit),
    }))
}

fn config(args: &Args) -> Result<Config, Error> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .ok_or_else(|| Error::usage_with("there is no home folder", "set HOME or XDG_CACHE_HOME"))?;
    let data = cache.join("buildr/run");
    let owner = format!("run:{}", data.display());
    let pull = args.pull.into();
    Ok(Config { log_limit: args.log_limit, pull, allow_file_urls: true, ..Config::new(data, owner) })
}

/// The command that does this again.
fn command_line(args: &Args) -> String {
    let mut words = vec!["buildr run".to_owned()];
    if args.folder != Path::new(".") {
        words.push(quote(&args.folder.display().to_string()));
    }
    words.extend(args.file.iter().map(|file| format!("-f {}", quote(&file.display().to_string()))));
    words.extend(
        args.vars.iter().map(|Variable(name, value)| format!("--var {}", quote(&format!("{name}={value}")))),
    );
    if args.event != Event::Local {
        let event = args.event.to_possible_value();
        words.extend(event.map(|event| format!("--event {}", event.get_name())));
    }
    for (flag, value) in [("--branch", &args.branch), ("--tag", &args.tag), ("--target", &args.target)] {
        words.extend(value.iter().map(|value| format!("{flag} {}", quote(value))));
    }
    words.extend(
        args.matrix
            .iter()
            .map(AxisValue::pair)
            .map(|(axis, value)| format!("--matrix {}", quote(&format!("{axis}={value}")))),
    );
    for (flag, stage) in [("--stage", &args.stage), ("--from", &args.from)] {
        words.extend(stage.iter().map(|stage| format!("{flag} {}", quote(stage))));
    }
    if args.clean {
        words.push("--clean".to_owned());
    }
    words.join(" ")
}

/// `1000`, `64KiB`, `20MiB`, `1GiB`, `5MB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "KiB" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "G" => 1 << 30,
        _ => return Err("give a number with a unit, as 200MiB".to_owned()),
    };
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    size.filter(|size| *size > 0).ok_or_else(|| "give a number with a unit, as 200MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use buildr_manifest::StageName;

    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("20MiB"), Ok(20 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        for wrong in ["", "MiB", "1XB", "0", "-1", "99999999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_missing_manifest_is_looked_for_above() {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("src")).unwrap();
        std::fs::write(root.join(".buildr.yml"), "").unwrap();
        match require_manifest(&root.join("src")) {
            Err(Error::NoManifest { elsewhere, .. }) => assert_eq!(elsewhere, Some(root.clone())),
            other => panic!("{other:?}"),
        }
        assert!(require_manifest(&root).is_ok());
    }

    #[test]
    fn a_manifest_outside_the_project_is_refused() {
        let (project, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = project.path().canonicalize().unwrap();
        std::fs::write(root.join("ci.yml"), "").unwrap();
        std::fs::write(other.path().join("ci.yml"), "").unwrap();
        assert_eq!(in_project(Path::new("ci.yml"), &root).unwrap(), Path::new("ci.yml"));
        assert_eq!(in_project(&root.join("ci.yml"), &root).unwrap(), Path::new("ci.yml"));
        assert!(in_project(&other.path().join("ci.yml"), &root).is_err());
    }

    #[test]
    fn only_a_failure_of_the_build_itself_is_propagated() {
        let failed = |cause| Finished {
            outcome: Outcome::Failed { stage: StageName::new("a").unwrap(), step: None, cause },
        };
        assert_eq!(exit_code(&failed(Cause::Exit { code: 42 }), true), 42);
        assert_eq!(exit_code(&failed(Cause::Signal { signal: 9 }), true), 137);
        assert_eq!(exit_code(&failed(Cause::Exit { code: 42 }), false), 1);
        assert_eq!(exit_code(&failed(Cause::ContainerDied), true), 1);
        assert_eq!(exit_code(&Finished { outcome: Outcome::Canceled { by: String::new() } }, true), 3);
    }
}
