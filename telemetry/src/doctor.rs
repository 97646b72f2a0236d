//! What a doctor finds: a list of checks, each with what to do about it. Gathering them is the
//! program's own business; how they are told is the same for all three.

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use jiff::Timestamp;
use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and something is to be known of it.
    Warning,
    /// Something will not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, as `disk`.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// What was found, in one line.
    pub found: String,
    /// What to do; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    /// As it should be.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), advice: None }
    }

    /// It works, and something is to be known of it.
    pub fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    /// Something will not work.
    pub fn problem(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Problem, found: found.into(), advice: Some(advice.into()) }
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The program that looked.
    program: &'static str,
    /// Its version.
    version: &'static str,
    /// What it looked at, in order.
    checks: Vec<Check>,
}

/// How a report is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Human,
    /// One JSON document.
    Json,
}

impl Report {
    /// What a program of this version found.
    pub fn new(program: &'static str, version: &'static str, checks: Vec<Check>) -> Self {
        Self { program, version, checks }
    }

    /// 0, or 4 where there is a problem: a warning is none.
    pub fn exit_code(&self) -> u8 {
        if self.checks.iter().any(|check| check.state == State::Problem) { 4 } else { 0 }
    }

    /// The whole report as text that ends with a newline.
    pub fn tell(&self, format: Format) -> String {
        match format {
            Format::Json => {
                let mut text = serde_json::to_string_pretty(self).expect("texts and names can be JSON");
                text.push('\n');
                text
            }
            Format::Human => self.lines(),
        }
    }

    fn lines(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut text = format!("{} {}\n", self.program, self.version);
        for Check { name, state, found, advice } in &self.checks {
            let word = match state {
                State::Ok => "ok",
                State::Warning => "warning",
                State::Problem => "problem",
            };
            // Writing into a text cannot fail.
            let _ = writeln!(text, "{word:<7}  {name:<width$}  {found}");
            if let Some(advice) = advice {
                let _ = writeln!(text, "{:7}  {:width$}  -> {advice}", "", "");
            }
        }
        let count = |wanted| self.checks.iter().filter(|check| check.state == wanted).count();
        let _ = match (count(State::Problem), count(State::Warning)) {
            (0, 0) => writeln!(text, "all is well"),
            (problems, warnings) => {
                writeln!(text, "{} and {}", counted(problems, "problem"), counted(warnings, "warning"))
            }
        };
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// How much room a disk has, against the least that the program wants, in bytes.
pub fn disk(folder: &Path, least: u64) -> Check {
    // A folder that is not made yet will be on the disk of the nearest one that is.
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let advice = "free some, or move the folder with --data";
    match rustix::fs::statvfs(there) {
        Err(error) => Check::problem("disk", format!("{}: {error}", there.display()), advice),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} free at {}", gib(free), folder.display());
            match free {
                _ if free < least => {
                    Check::problem("disk", format!("{found}, below --min-free {}", gib(least)), advice)
                }
                _ if free < least.saturating_mul(4) => Check::warning("disk", found, advice),
                _ => Check::ok("disk", found),
            }
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Whether a folder can be made and written, leaving nothing behind but the folder itself.
pub fn folder(path: &Path) -> Check {
    let advice = "make it writable for the user of this program, or name another with --data";
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    let tried = std::fs::create_dir_all(path)
        .and_then(|()| std::fs::File::create_new(&probe))
        .and_then(|_| std::fs::remove_file(&probe));
    match tried {
        Ok(()) => Check::ok("data", path.display().to_string()),
        Err(error) => Check::problem("data", format!("{}: {error}", path.display()), advice),
    }
}

/// Whether a program is there, and what it says of its version. Where it is not, that is a warning:
/// there is always something that works without.
pub fn program(name: &'static str, version: &str, advice: &str) -> Check {
    let mut command = Command::new(name);
    match command.arg(version).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            // ssh tells its version on standard error.
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            let text = String::from_utf8_lossy(&text);
            Check::ok(name, text.lines().next().unwrap_or_default().trim())
        }
        Ok(output) => {
            Check::warning(name, format!("`{name} {version}` ended with {}", output.status), advice)
        }
        Err(error) => Check::warning(name, format!("`{name}` cannot be run: {error}"), advice),
    }
}

/// More than this between two clocks makes times hard to read side by side; nothing is decided by them.
const SKEW: i64 = 5;

/// Compares a server's `date` header with the clock here.
pub fn clock(date: Option<&str>, now: Timestamp) -> Check {
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let Some(date) = date else {
        return Check::warning(
            "clock",
            "the orchestrator does not tell its time",
            "is there a proxy in between?",
        );
    };
    let ahead = now.as_second() - date.timestamp().as_second();
    let found = match ahead {
        0 => "the same as the orchestrator's".to_owned(),
        1.. => format!("{ahead} s ahead of the orchestrator's"),
        _ => format!("{} s behind the orchestrator's", -ahead),
    };
    if ahead.abs() <= SKEW {
        Check::ok("clock", found)
    } else {
        Check::warning(
            "clock",
            found,
            "keep both machines' clocks right with NTP: times in logs will not fit",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_where_seconds_are_seen() {
        let now: Timestamp = "2026-11-23T08:45:18Z".parse().unwrap();
        let state = |date| clock(date, now).state;
        assert_eq!(state(Some("Mon, 23 Nov 2026 08:45:16 GMT")), State::Ok);
        assert_eq!(state(Some("Mon, 23 Nov 2026 08:46:18 GMT")), State::Warning);
        assert!(clock(Some("Mon, 23 Nov 2026 08:46:18 GMT"), now).found.contains("60 s behind"));
        assert_eq!(state(Some("yesterday")), State::Warning);
        assert_eq!(state(None), State::Warning);
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        assert_eq!(program("buildr-no-such-program", "--version", "install it").state, State::Warning);
        assert_eq!(program("true", "--version", "").state, State::Ok);
        assert_eq!(program("false", "--nothing", "").state, State::Warning);
    }

    fn report() -> Report {
        let checks = vec![
            Check::ok("docker", "version 29"),
            Check::warning("clock", "3 s ahead", "run an NTP client"),
            Check::problem("disk", "0.1 GiB free", "free some"),
        ];
        Report::new("buildr", "1.0", checks)
    }

    #[test]
    fn a_report_says_what_to_do() {
        let expected = "\
buildr 1.0
ok       docker  version 29
warning  clock   3 s ahead
                 -> run an NTP client
problem  disk    0.1 GiB free
                 -> free some
1 problem and 1 warning
";
        assert_eq!(report().tell(Format::Human), expected);
    }

    #[test]
    fn only_a_problem_is_a_failure() {
        assert_eq!(report().exit_code(), 4);
        let mut better = report();
        better.checks.pop();
        assert_eq!(better.exit_code(), 0);
    }

    #[test]
    fn a_machine_reads_the_same() {
        let value: serde_json::Value = serde_json::from_str(&report().tell(Format::Json)).unwrap();
        assert_eq!(value["checks"][2]["state"], "problem");
        assert_eq!(value["checks"][2]["advice"], "free some");
        assert!(value["checks"][0].get("advice").is_none());
    }

    #[test]
    fn a_full_disk_and_a_folder_that_is_none_are_problems() {
        assert_eq!(disk(Path::new("/no/such/folder"), u64::MAX).state, State::Problem);
        assert_eq!(disk(Path::new("/"), 0).state, State::Ok);
        assert_eq!(folder(Path::new("/proc/buildr")).state, State::Problem);
    }
}
