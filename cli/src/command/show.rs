//! `buildr show`.

use std::fmt::Write;

use buildr_proto::build::{Build, BuildState, Job, Reference, Stage, StageProgress};
use jiff::{Timestamp, tz::TimeZone};

use super::{
    Globals,
    list::{state_style, state_word, took, when},
};
use crate::{
    Error, Exit,
    client::Which,
    render::{
        Ended, Palette,
        account::Account,
        escape::{sanitize, sanitize_lines},
        text,
    },
    screen::Screen,
};

/// The columns of a table where there is no terminal.
const COLUMNS: usize = 100;

/// Show all that is known of a build
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr show                         the newest build
  buildr show 42
  buildr show latest --json | jq .outcome")]
pub(super) struct Args {
    /// The build's number, or `latest`
    #[arg(value_name = "ID", default_value = "latest")]
    build: Which,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the build.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let build = client.get(args.build).await?;
    if args.json {
        screen.print_json(&build)?;
    } else {
        let columns = screen.columns().unwrap_or(COLUMNS);
        let text = describe(&build, Timestamp::now(), &TimeZone::system(), columns, &screen.palette());
        screen.print(text.trim_end())?;
    }
    Ok(Exit::OK)
}

/// The build in words. Writing to a `String` cannot fail.
fn describe(build: &Build, now: Timestamp, zone: &TimeZone, columns: usize, palette: &Palette) -> String {
    let mut out = String::new();
    let (style, strong) = (state_style(&build.state, palette), palette.strong);
    let state = match &build.state {
        BuildState::Finished(outcome) => sanitize_lines(&outcome.to_string()),
        state => state_word(state).to_owned(),
    };
    let _ = writeln!(out, "{strong}build {}{strong:#}  {style}{state}{style:#}", build.number);
    for (label, value) in facts(build, now, zone) {
        let dim = palette.dim;
        let _ = writeln!(out, "  {dim}{label:<10}{dim:#}  {value}");
    }
    for job in &build.jobs {
        job_lines(&mut out, job, build.jobs.len() > 1, palette);
        account_lines(&mut out, job, columns, palette);
    }
    out
}

fn facts(build: &Build, now: Timestamp, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let source = &build.spec.source;
    let mut facts = vec![("repository", sanitize(&source.repository))];
    match &source.reference {
        Reference::Default => facts.push(("branch", "the repository's default".to_owned())),
        Reference::Branch(name) => facts.push(("branch", sanitize(name))),
        Reference::Tag(name) => facts.push(("tag", sanitize(name))),
    }
    if let Some(commit) = build.commit.as_ref().or(source.commit.as_ref()) {
        facts.push(("commit", sanitize(commit)));
    }
    if let Some(path) = &build.spec.manifest_path {
        facts.push(("manifest", sanitize(path)));
    }
    let variables = build.spec.variables.iter().map(|(name, value)| format!("{name}={value}"));
    facts.extend(variables.map(|variable| ("variable", sanitize(&variable))));
    let labels = build.spec.labels.iter().map(|(name, value)| format!("{name}={value}"));
    facts.extend(labels.map(|label| ("label", sanitize(&label))));
    if build.spec.priority != 0 {
        facts.push(("priority", build.spec.priority.to_string()));
    }
    let moment = at(build.submitted_at, now, zone);
    facts.push(("submitted", format!("{moment} by {}", sanitize(&build.submitted_by))));
    if let Some(started) = build.started_at {
        facts.push(("started", at(started, now, zone)));
    }
    if let Some(finished) = build.finished_at {
        facts.push(("finished", at(finished, now, zone)));
    }
    facts.extend(took(build, now).map(|took| ("took", text::duration(took))));
    if let Some(by) = &build.cancel_requested_by {
        facts.push(("canceled", format!("by {}", sanitize(by))));
    }
    facts
}

fn at(moment: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let local = moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S");
    format!("{local} ({})", when(moment, now, zone))
}

fn job_lines(out: &mut String, job: &Job, several: bool, palette: &Palette) {
    let dim = palette.dim;
    if several {
        let _ = writeln!(out, "\njob {}  {}", job.index, state_word(&job.state));
    }
    if let Some(attempt) = &job.attempt {
        let _ = writeln!(out, "  {dim}{:<10}{dim:#}  {}", "agent", sanitize(&attempt.agent_name));
    }
    if !job.stages.is_empty() {
        out.push('\n');
    }
    let width = job.stages.iter().map(|stage| text::width(&sanitize(&stage.name))).max().unwrap_or(0);
    for stage in &job.stages {
        stage_lines(out, stage, width, palette);
    }
}

/// What its stages took, below them.
fn account_lines(out: &mut String, job: &Job, columns: usize, palette: &Palette) {
    let lines = Account::of(job).lines(columns.saturating_sub(2), palette);
    if !lines.is_empty() {
        out.push('\n');
    }
    for line in lines {
        let _ = writeln!(out, "  {line}");
    }
}

fn stage_lines(out: &mut String, stage: &Stage, width: usize, palette: &Palette) {
    let Palette { dim, warn, .. } = *palette;
    let name = sanitize(&stage.name);
    let padding = " ".repeat(width - text::width(&name));
    let (style, sign, state) = match &stage.progress {
        StageProgress::Waiting => (dim, '·', "waiting".to_owned()),
        StageProgress::Running => (warn, '▸', "running".to_owned()),
        StageProgress::Finished(state) => {
            let ended = Ended {
                state,
                allowed: stage.allowed,
                duration: stage.duration,
                peak_memory: stage.usage.peak_memory,
            };
            let (style, sign) = ended.mark(palette);
            (style, sign, ended.words())
        }
    };
    let log = match (&stage.progress, stage.log_bytes) {
        (StageProgress::Finished(_), _) | (_, 0) => String::new(),
        (_, bytes) => format!("  {dim}{} of log{dim:#}", text::bytes(bytes)),
    };
    let _ = writeln!(out, "  {style}{sign}{style:#} {name}{padding}  {state}{log}");
    if let Some(command) = &stage.failed_command {
        let _ = writeln!(out, "      {dim}command{dim:#} {}", sanitize(command));
    }
    if stage.log_missing > 0 {
        let missing = text::bytes(stage.log_missing);
        let _ = writeln!(
            out,
            "      {warn}its log is incomplete{warn:#}: the last {missing} were never delivered"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use buildr_manifest::{Cause, StageName, StageState, Usage};

    use super::*;

    #[test]
    fn a_stage_for_programs_is_flat() {
        let stage = |progress| Stage {
            name: StageName::new("test").unwrap(),
            progress,
            duration: Duration::from_millis(1500),
            log_bytes: 7,
            log_missing: 0,
            failed_command: None,
            usage: Usage::default(),
            allowed: false,
        };
        let failed = StageState::Failed { step: Some(1), cause: Cause::Exit { code: 3 } };
        for (progress, expected) in [
            (StageProgress::Waiting, r#""state":"waiting""#),
            (StageProgress::Finished(StageState::Passed), r#""state":"passed""#),
            (StageProgress::Finished(failed), r#""state":"failed","step":1,"cause":"exit","code":3"#),
        ] {
            let stage = stage(progress);
            let json = serde_json::to_string(&stage).unwrap();
            let rest = r#""duration":1.5,"log_bytes":7,"log_missing":0,"failed_command":null,"usage":{"user_cpu":0.0,"system_cpu":0.0,"max_rss":0,"peak_memory":null,"network_received":null,"network_sent":null},"allowed":false"#;
            assert_eq!(json, format!(r#"{{"name":"test",{expected},{rest}}}"#));
            assert_eq!(serde_json::from_str::<Stage>(&json).unwrap(), stage);
        }
    }
}
