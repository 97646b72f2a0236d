//! `buildr list`.

use std::time::Duration;

use buildr_proto::{
    BuildId,
    build::{Build, BuildState, Reference},
};
use jiff::{Timestamp, tz::TimeZone};

use super::Globals;
use crate::{
    Error, Exit,
    client::{ListFilter, ListState},
    render::{Palette, escape::sanitize, text},
    screen::Screen,
};

/// List builds, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr list
  buildr list --state running
  buildr list --json | jq .number")]
pub(super) struct Args {
    /// At most this many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Only builds older than this one
    #[arg(long, value_name = "ID")]
    before: Option<BuildId>,
    /// Only builds of this repository
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// Only builds in this state
    #[arg(long, value_enum)]
    state: Option<ListState>,
    /// Print one JSON object per build
    #[arg(long)]
    json: bool,
}

/// Prints the builds.
pub(super) async fn run(args: Args, globals: &Globals, screen: &Screen) -> Result<Exit, Error> {
    let client = globals.connect().await?;
    let filter =
        ListFilter { limit: args.limit, before: args.before, repository: args.repo, state: args.state };
    let builds = client.list(filter).await?;
    if args.json {
        builds.iter().try_for_each(|build| screen.print_json(build))?;
        return Ok(Exit::OK);
    }
    if builds.is_empty() {
        screen.say("no builds; start one with `buildr submit`");
        return Ok(Exit::OK);
    }
    let table = table(&builds, Timestamp::now(), &TimeZone::system(), screen.columns(), &screen.palette());
    screen.print(table.trim_end())?;
    Ok(Exit::OK)
}

const HEADS: [&str; 7] = ["BUILD", "STATE", "REPOSITORY", "REF", "COMMIT", "WHEN", "TOOK"];
/// The columns that give way where the terminal is narrow, the widest one first, and how far.
const ELASTIC: [(usize, usize); 2] = [(2, 8), (3, 6)];
/// The columns that go where even that is not enough, the first one first.
const DISPENSABLE: [usize; 4] = [4, 6, 3, 5];
const GAP: usize = 2;

/// The table, as wide as the terminal at most.
fn table(
    builds: &[Build],
    now: Timestamp,
    zone: &TimeZone,
    columns: Option<usize>,
    palette: &Palette,
) -> String {
    let rows: Vec<[String; 7]> = builds.iter().map(|build| row(build, now, zone)).collect();
    let mut widths = HEADS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let layout = layout(widths, columns);
    let mut out = String::new();
    let dim = palette.dim;
    line(&mut out, &HEADS.map(str::to_owned), &layout, |_, cell| format!("{dim}{cell}{dim:#}"));
    for (build, row) in builds.iter().zip(&rows) {
        let style = state_style(&build.state, palette);
        line(&mut out, row, &layout, |column, cell| match column {
            1 => format!("{style}{cell}{style:#}"),
            _ => cell,
        });
    }
    out
}

/// The columns that are shown, each with its width, so that a line fits the terminal.
fn layout(widths: [usize; 7], columns: Option<usize>) -> Vec<(usize, usize)> {
    let mut layout: Vec<_> = widths.into_iter().enumerate().collect();
    let Some(room) = columns else { return layout };
    let least = |&(column, width): &(usize, usize)| {
        let elastic = ELASTIC.iter().find(|(elastic, _)| *elastic == column);
        elastic.map_or(width, |(_, least)| width.min(*least))
    };
    let gaps = |layout: &[_]| GAP * (layout.len() - 1);
    for dropped in DISPENSABLE {
        if layout.iter().map(least).sum::<usize>() + gaps(&layout) <= room {
            break;
        }
        layout.retain(|(column, _)| *column != dropped);
    }
    while layout.iter().map(|(_, width)| width).sum::<usize>() + gaps(&layout) > room {
        let shrinkable = layout.iter_mut().filter(|column| column.1 > least(column));
        let Some(widest) = shrinkable.max_by_key(|column| column.1) else { break };
        widest.1 -= 1;
    }
    layout
}

fn line(
    out: &mut String,
    cells: &[String; 7],
    layout: &[(usize, usize)],
    paint: impl Fn(usize, String) -> String,
) {
    for &(column, width) in layout {
        let cell = text::fit(&cells[column], width);
        let padding = width - text::width(&cell) + GAP;
        out.push_str(&paint(column, cell));
        out.push_str(&" ".repeat(padding));
    }
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

fn row(build: &Build, now: Timestamp, zone: &TimeZone) -> [String; 7] {
    let source = &build.spec.source;
    let reference = match &source.reference {
        Reference::Default => String::new(),
        Reference::Branch(name) | Reference::Tag(name) => sanitize(name),
    };
    let commit = build.commit.as_ref().or(source.commit.as_ref());
    [
        build.number.to_string(),
        state_word(&build.state).to_owned(),
        sanitize(short_repository(&source.repository)),
        reference,
        commit.map_or(String::new(), |commit| sanitize(text::short_commit(commit))),
        when(build.submitted_at, now, zone),
        took(build, now).map_or(String::new(), text::duration),
    ]
}

/// The word for where a build stands.
pub(super) fn state_word(state: &BuildState) -> &'static str {
    match state {
        BuildState::Queued => "queued",
        BuildState::Running => "running",
        BuildState::Finished(outcome) => outcome.word(),
    }
}

/// The colour for where a build stands.
pub(super) fn state_style(state: &BuildState, palette: &Palette) -> anstyle::Style {
    match state {
        BuildState::Queued => palette.dim,
        BuildState::Running => palette.warn,
        BuildState::Finished(outcome) if outcome.is_success() => palette.good,
        BuildState::Finished(_) => palette.bad,
    }
}

/// How long a build has run; none for one that never began.
pub(super) fn took(build: &Build, now: Timestamp) -> Option<Duration> {
    let end = build.finished_at.unwrap_or(now);
    build.started_at.map(|started| end.duration_since(started).try_into().unwrap_or_default())
}

/// A moment in words: how long ago, or the day.
pub(super) fn when(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        ..60 => "just now".to_owned(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => at.to_zoned(zone.clone()).strftime("%Y-%m-%d").to_string(),
    }
}

/// The end of a URL, which is what people call a repository.
fn short_repository(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    let url = url.strip_suffix(".git").unwrap_or(url);
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut slashes = path.rmatch_indices(['/', ':']).map(|(at, _)| at);
    let (_, second) = (slashes.next(), slashes.next());
    second.map_or(path, |at| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use buildr_manifest::{Cause, Outcome, StageName, Trigger};
    use buildr_proto::build::{BuildSpec, Source};

    use super::*;

    fn build(number: u64, repository: &str, reference: Reference, state: BuildState) -> Build {
        let submitted_at: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let source = Source { repository: repository.to_owned(), reference, commit: None };
        Build {
            number: BuildId::new(number).unwrap(),
            spec: BuildSpec {
                source,
                trigger: Trigger::Manual,
                manifest_path: None,
                variables: Vec::new(),
                labels: BTreeMap::new(),
                priority: 0,
                cron: None,
            },
            submitted_by: "ann".to_owned(),
            started_at: (state != BuildState::Queued).then(|| submitted_at + Duration::from_secs(2)),
            finished_at: matches!(state, BuildState::Finished(_))
                .then(|| submitted_at + Duration::from_secs(95)),
            state,
            submitted_at,
            commit: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
            cancel_requested_by: None,
            jobs: Vec::new(),
        }
    }

    fn builds() -> Vec<Build> {
        let failed = Outcome::Failed {
            stage: StageName::new("test").unwrap(),
            step: None,
            cause: Cause::Exit { code: 1 },
        };
        vec![
            build(12, "git@example.com:team/app.git", Reference::Branch("main".into()), BuildState::Queued),
            build(11, "https://example.com/team/app", Reference::Default, BuildState::Running),
            build(
                10,
                "file:///srv/git/a-repository-with-a-very-long-name",
                Reference::Branch("feature/a-branch-with-a-very-long-name-too".into()),
                BuildState::Finished(failed),
            ),
            build(
                9,
                "https://example.com/team/app",
                Reference::Tag("v1.0".into()),
                BuildState::Finished(Outcome::Passed),
            ),
        ]
    }

    #[test]
    fn the_table_is_complete_in_a_pipe_and_fits_a_terminal() {
        let now = "2026-03-01T12:05:00Z".parse().unwrap();
        let show = |columns| table(&builds(), now, &TimeZone::UTC, columns, &Palette::new(false));
        for columns in [24, 40, 60, 80, 100] {
            assert!(show(Some(columns)).lines().all(|line| text::width(line) <= columns));
        }
        insta::assert_snapshot!(format!("{}\n{}\n{}", show(None), show(Some(80)), show(Some(40))));
    }

    #[test]
    fn moments_are_told_as_people_do() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let ago = |seconds| when(now - Duration::from_secs(seconds), now, &TimeZone::UTC);
        assert_eq!(
            [ago(3), ago(600), ago(7300), ago(200_000)],
            ["just now", "10 min ago", "2 h ago", "2026-02-27"]
        );
    }
}
