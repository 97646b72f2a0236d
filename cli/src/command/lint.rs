//! `buildr lint`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use buildr_manifest::{Code, Diagnostic, FILE_NAMES, Manifest, Severity};
use serde::Serialize;

use crate::{Error, Exit, render::Palette, screen::Screen};

/// No manifest is larger; of a larger file there is no need to read the rest.
const MAX_SIZE: u64 = (1 << 20) + 1;

/// What standard input is called in messages.
const STDIN: &str = "<stdin>";

/// The exit code where there is a problem.
const PROBLEMS: Exit = Exit(2);

/// Check manifests, without Docker and without running anything
///
/// All problems are told at once, each with its place and what to do about it. Exits with 2 where
/// there is an error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  buildr lint                         the current folder's manifest
  buildr lint ci/*.yml ../app
  buildr lint --strict --json | jq -r '.diagnostics[].message'
  git show HEAD~1:.buildr.yml | buildr lint -")]
pub(super) struct Args {
    /// Manifests, folders that have one, or `-` for standard input
    #[arg(value_name = "FILE|DIR|-", default_value = ".")]
    places: Vec<PathBuf>,
    /// Exit with 2 for warnings as well
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A manifest's text, under the name that messages give it.
#[derive(Debug)]
struct Text {
    name: String,
    bytes: Vec<u8>,
    /// The manifests beside it that no build takes.
    passed_over: Vec<&'static str>,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// The manifests, in the order in which they were given.
    files: Vec<Checked>,
    errors: usize,
    warnings: usize,
    /// All problems, file by file, in the order of the text.
    diagnostics: Vec<Diagnostic>,
}

/// What became of one manifest.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    /// It has no error.
    valid: bool,
    /// So many more problems it has than are told.
    omitted: usize,
}

/// Checks them all.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<Exit, Error> {
    let mut findings = Findings::default();
    for place in &args.places {
        findings.add(&read(place)?);
    }
    if args.json {
        screen.print_json(&findings)?;
    } else {
        let palette = screen.palette();
        if !findings.diagnostics.is_empty() {
            screen.print(findings.render(screen.has_colour()).trim_end())?;
        }
        screen.say(&findings.summary(&palette));
    }
    let failed = findings.errors > 0 || (args.strict && findings.warnings > 0);
    Ok(if failed { PROBLEMS } else { Exit::OK })
}

impl Findings {
    fn add(&mut self, text: &Text) {
        let (mut items, omitted, valid) = match Manifest::parse(&text.bytes, &text.name) {
            Ok((_, warnings)) => (warnings, 0, true),
            Err(problems) => (problems.items, problems.omitted, false),
        };
        items.extend(several(text));
        let errors = items.iter().filter(|item| item.severity == Severity::Error).count();
        self.errors += errors;
        self.warnings += items.len() - errors;
        self.files.push(Checked { file: text.name.clone(), valid, omitted });
        self.diagnostics.extend(items);
    }

    fn render(&self, colour: bool) -> String {
        let shown: Vec<String> = self.diagnostics.iter().map(|item| item.render(colour)).collect();
        shown.iter().map(|text| text.trim_end()).collect::<Vec<_>>().join("\n\n")
    }

    /// One line: `2 manifests: 1 error, 3 warnings`.
    fn summary(&self, palette: &Palette) -> String {
        let what = match self.files.as_slice() {
            [only] => only.file.clone(),
            files => format!("{} manifests", files.len()),
        };
        let omitted: usize = self.files.iter().map(|file| file.omitted).sum();
        let style = match (self.errors, self.warnings) {
            (0, 0) => palette.good,
            (0, _) => palette.warn,
            _ => palette.bad,
        };
        let counted = [(self.errors, "error"), (self.warnings, "warning")];
        let mut parts: Vec<String> =
            counted.into_iter().filter(|(count, _)| *count > 0).map(|(n, word)| plural(n, word)).collect();
        if omitted > 0 {
            parts.push(format!("{omitted} more not shown"));
        }
        let result = if parts.is_empty() { "no problems".to_owned() } else { parts.join(", ") };
        format!("{what}: {style}{result}{style:#}")
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// The warning of a text that has others beside it.
fn several(text: &Text) -> Option<Diagnostic> {
    let others = (!text.passed_over.is_empty()).then(|| text.passed_over.join(" and "))?;
    Some(Diagnostic {
        severity: Severity::Warning,
        code: Code::SeveralManifests,
        file: text.name.clone(),
        line: 1,
        column: 1,
        length: 1,
        message: format!("the folder has more than one manifest: builds take this one, not {others}"),
        suggestion: None,
        hint: Some("remove what is not used, or name a manifest with -f".to_owned()),
        source_line: None,
    })
}

/// The text that a word of the command line names.
fn read(place: &Path) -> Result<Text, Error> {
    let mut passed_over = Vec::new();
    let (name, bytes) = if place == Path::new("-") {
        (STDIN.to_owned(), limited(io::stdin().lock()))
    } else {
        let file = if place.is_dir() { usual(place, &mut passed_over)? } else { place.to_owned() };
        let name = file.strip_prefix(".").unwrap_or(&file).display().to_string();
        (name, File::open(&file).and_then(limited))
    };
    let bytes = bytes.map_err(|error| Error::usage(format!("cannot read {name}: {error}")))?;
    Ok(Text { name, bytes, passed_over })
}

fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_SIZE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The manifest that a build of a folder would take; and the names of those that it would not.
fn usual(folder: &Path, passed_over: &mut Vec<&'static str>) -> Result<PathBuf, Error> {
    let mut found = FILE_NAMES.into_iter().filter(|name| folder.join(name).is_file());
    let first = found.next().map(|name| folder.join(name));
    passed_over.extend(found);
    first.ok_or_else(|| Error::NoManifest { folder: folder.to_owned(), names: &FILE_NAMES, elsewhere: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "image: alpine:3.20\nstages: [test]\ntest: {script: [make]}\n";

    fn findings(texts: &[(&str, &str)]) -> Findings {
        let mut findings = Findings::default();
        for (name, text) in texts {
            let bytes = text.as_bytes().to_vec();
            findings.add(&Text { name: (*name).to_owned(), bytes, passed_over: Vec::new() });
        }
        findings
    }

    fn shown(findings: &Findings) -> String {
        format!("{}\n-- {}", findings.render(false), findings.summary(&Palette::new(false)))
    }

    #[test]
    fn a_good_manifest_has_no_problems() {
        assert_eq!(shown(&findings(&[(".buildr.yml", GOOD)])), "\n-- .buildr.yml: no problems");
    }

    #[test]
    fn problems_are_told_file_by_file_and_counted() {
        let bad = "imgae: alpine:3.20\nstages: [test, deploy]\ntest: {scrpt: [make]}\n";
        let doubtful = format!("{GOOD}lint: {{script: [make lint]}}\n");
        insta::assert_snapshot!(shown(&findings(&[
            ("bad.yml", bad),
            ("good.yml", GOOD),
            ("doubtful.yml", &doubtful)
        ])));
    }

    #[test]
    fn programs_get_code_place_hint_and_suggestion() {
        let text = "image: alpine:3.20\nstages: [test]\ntest: {scrpt: [make]}\n";
        let value = serde_json::to_value(findings(&[("a.yml", text)])).unwrap();
        assert_eq!((&value["errors"], &value["files"][0]["valid"]), (&1.into(), &false.into()));
        let first = &value["diagnostics"][0];
        assert_eq!(
            (&first["file"], &first["line"], &first["column"], &first["code"], &first["suggestion"]),
            (&"a.yml".into(), &3.into(), &8.into(), &"unknown-key".into(), &"script".into())
        );
        assert!(first.get("hint").is_some() && first["message"].is_string());
    }

    #[test]
    fn a_folder_means_its_manifest_and_one_without_says_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(folder.path()), Err(Error::NoManifest { .. })));
        std::fs::write(folder.path().join(".buildr.yaml"), GOOD).unwrap();
        let text = read(folder.path()).unwrap();
        assert!(text.name.ends_with(".buildr.yaml") && text.bytes == GOOD.as_bytes());
        assert!(text.passed_over.is_empty());
        assert!(matches!(read(Path::new("no/such/file")), Err(Error::Usage { .. })));
    }

    #[test]
    fn of_several_manifests_in_a_folder_the_first_is_checked_and_the_others_are_warned_of() {
        let folder = tempfile::tempdir().unwrap();
        for name in FILE_NAMES {
            std::fs::write(folder.path().join(name), GOOD).unwrap();
        }
        let text = read(folder.path()).unwrap();
        assert!(text.name.ends_with("/.buildr.yml"));
        let mut findings = Findings::default();
        findings.add(&text);
        assert_eq!((findings.errors, findings.warnings, findings.files[0].valid), (0, 1, true));
        let message = &findings.diagnostics[0].message;
        assert!(message.ends_with("this one, not .buildr.yaml and .buildr"), "{message}");
        findings.add(&read(&folder.path().join(".buildr")).unwrap());
        assert_eq!(findings.warnings, 1, "who names a file has chosen");
    }
}
