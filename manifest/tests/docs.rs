//! The documentation is true: each manifest in it is read and planned, and means what its first line
//! says. What the pages call 'not carried out yet' is what [`Plan::supported`] refuses, and nothing else.

use std::{collections::BTreeSet, fs, path::Path};

use buildr_manifest::{Context, Diagnostics, Manifest, Plan, Severity, Trigger};

/// What the first line of a block says of it.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    /// It runs.
    Valid,
    /// It is planned, and refused when it is to be carried out.
    NotYet,
    /// It has these errors.
    Errors(BTreeSet<String>),
    /// It has these warnings, and no error.
    Warnings(BTreeSet<String>),
}

/// A block of YAML on a page.
#[derive(Debug)]
struct Block {
    page: &'static str,
    /// The line of its first line.
    line: usize,
    text: String,
}

fn read(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// All blocks of YAML on a page.
fn blocks(page: &'static str) -> Vec<Block> {
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (number, line) in (1..).zip(read(page).lines()) {
        match &mut open {
            Some(block) if line.starts_with("```") => {
                assert!(!block.text.is_empty(), "{page}:{number}: an empty block");
                blocks.extend(open.take());
            }
            Some(block) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            None if line.trim_start().starts_with("```yaml") => {
                assert_eq!(line, "```yaml", "{page}:{number}: not indented, without more words");
                open = Some(Block { page, line: number + 1, text: String::new() });
            }
            None => {}
        }
    }
    assert!(open.is_none(), "{page}: a block is not closed");
    blocks
}

impl Block {
    fn place(&self) -> String {
        format!("docs/{}:{}", self.page, self.line)
    }

    fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    fn expected(&self) -> Expected {
        let codes = |list: &str| list.split(", ").map(str::to_owned).collect();
        match self.first_line().strip_prefix("# ") {
            Some("not carried out yet") => Expected::NotYet,
            Some(line) => match line.split_once(": ") {
                Some(("error", list)) => Expected::Errors(codes(list)),
                Some(("warning", list)) => Expected::Warnings(codes(list)),
                _ => Expected::Valid,
            },
            None => Expected::Valid,
        }
    }

    /// The manifest, completed as the page says.
    fn manifest(&self) -> String {
        let has = |key: &str| self.text.lines().any(|line| line.starts_with(key));
        let mut text = self.text.clone();
        if !has("image:") {
            text.push_str("image: alpine:3.20\n");
        }
        if !has("stages:") && !has("prepare:") {
            text.push_str("prepare: {script: [make]}\n");
        }
        text
    }

    /// The manifest and the codes of its warnings. Its errors, or those of planning it, otherwise.
    fn parse(&self) -> Result<(Manifest, BTreeSet<String>), Diagnostics> {
        let (manifest, warnings) = Manifest::parse(self.manifest().as_bytes(), ".buildr.yml")?;
        for context in contexts() {
            manifest.plan(&context)?;
        }
        Ok((manifest, warnings.iter().map(|warning| warning.code.to_string()).collect()))
    }

    /// A manifest of which nothing is to be said.
    fn valid(&self) -> Manifest {
        let place = self.place();
        let (manifest, warnings) = self.parse().unwrap_or_else(|problems| panic!("{place}\n{problems}"));
        assert_eq!(warnings, BTreeSet::new(), "{place}");
        manifest
    }
}

/// Builds of different events.
fn contexts() -> Vec<Context> {
    let of = |trigger, branch: Option<&str>, tag: Option<&str>| Context {
        trigger,
        branch: branch.map(str::to_owned),
        tag: tag.map(str::to_owned),
        ..Context::default()
    };
    vec![
        of(Trigger::Push, Some("main"), None),
        of(Trigger::Push, Some("feature/login"), None),
        of(Trigger::Tag, None, Some("v1.2.0")),
        of(Trigger::Cron, Some("main"), None),
        of(Trigger::Local, Some("main"), None),
    ]
}

fn plans(manifest: &Manifest) -> Vec<Plan> {
    contexts().iter().map(|context| manifest.plan(context).expect("was planned before")).collect()
}

/// The keys that the engine does not carry out, as its errors name them: `key` or `key` in a stage.
fn refused(manifest: &Manifest) -> BTreeSet<String> {
    let problems = plans(manifest).into_iter().filter_map(|plan| plan.supported().err());
    let messages = problems.flat_map(|problems| problems.items).map(|problem| problem.message);
    messages.filter_map(|message| message.strip_suffix(" is not supported yet").map(str::to_owned)).collect()
}

fn codes(problems: &Diagnostics, severity: Severity) -> BTreeSet<String> {
    problems.items.iter().filter(|item| item.severity == severity).map(|item| item.code.to_string()).collect()
}

/// The words in backticks that begin the rows of the tables on a page, and the row's last cell.
fn rows(page: &str) -> Vec<(String, String)> {
    let text = read(page);
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let word = cells.first()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((word.to_owned(), (*cells.last()?).to_owned()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn each_example_of_the_reference_is_what_it_says() {
    for block in blocks("manifest.md") {
        let place = block.place();
        match (block.expected(), block.parse()) {
            (Expected::Errors(expected), Err(problems)) => {
                assert_eq!(codes(&problems, Severity::Error), expected, "{place}\n{problems}");
            }
            (Expected::Errors(_), Ok(_)) => panic!("{place}: this has no error"),
            (_, Err(problems)) => panic!("{place}\n{problems}"),
            (Expected::Warnings(expected), Ok((_, warnings))) => assert_eq!(warnings, expected, "{place}"),
            (Expected::NotYet | Expected::Valid, Ok((_, warnings))) => {
                assert_eq!(warnings, BTreeSet::new(), "{place}");
            }
        }
    }
}

#[test]
fn what_is_not_carried_out_yet_is_marked() {
    for block in blocks("manifest.md") {
        match block.expected() {
            Expected::NotYet => assert_ne!(refused(&block.valid()), BTreeSet::new(), "{}", block.place()),
            Expected::Valid => assert_eq!(refused(&block.valid()), BTreeSet::new(), "{}", block.place()),
            Expected::Errors(_) | Expected::Warnings(_) => {}
        }
    }
}

#[test]
fn the_tables_of_keys_say_what_is_carried_out() {
    let marked = blocks("manifest.md").into_iter().filter(|block| block.expected() == Expected::NotYet);
    let refused: BTreeSet<String> = marked.flat_map(|block| refused(&block.valid())).collect();
    let keys = |end: &str| -> BTreeSet<String> {
        let keys = refused.iter().filter_map(|what| what.strip_prefix('`')?.strip_suffix(end));
        keys.filter(|key| !key.contains('`')).map(str::to_owned).collect()
    };
    let text = read("manifest.md");
    let (_, tables) = text.split_once("At the top of a manifest:").expect("the first table");
    let (top, stage) = tables.split_once("In a stage:").expect("the second table");
    let (stage, _) = stage.split_once("\n## ").expect("the next section");
    for (table, expected) in [(top, keys("`")), (stage, keys("` in a stage"))] {
        let not_yet = table.lines().filter(|line| line.ends_with("| not yet |"));
        let not_yet: BTreeSet<String> =
            not_yet.filter_map(|line| line.split('`').nth(1)).map(str::to_owned).collect();
        assert_eq!(not_yet, expected);
    }
}

#[test]
fn each_key_and_condition_has_an_example() {
    let examples: String = blocks("manifest.md").into_iter().map(|block| block.text).collect();
    let is_key = |word: &str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let last_cells = ["yes", "not yet", "farm only", "in order only", "all but `status`"];
    let keys = rows("manifest.md").into_iter().filter(|(_, last)| last_cells.contains(&last.as_str()));
    let keys: Vec<String> = keys.map(|(word, _)| word).filter(|word| is_key(word)).collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in &keys {
        assert!(examples.contains(&format!("{key}:")), "no example has the key `{key}`");
    }
}

#[test]
fn each_code_of_an_example_is_in_the_table_of_codes() {
    let text = read("manifest.md");
    let (_, diagnostics) = text.split_once("\n## Diagnostics").expect("the section");
    for block in blocks("manifest.md") {
        if let Expected::Errors(codes) | Expected::Warnings(codes) = block.expected() {
            for code in codes {
                assert!(diagnostics.contains(&format!("`{code}`")), "{}: {code}", block.place());
            }
        }
    }
}

/// A row of the table of traps: the entry of one line, and the code that it leads to.
fn trap(line: &str) -> Option<(String, String)> {
    let cells: Vec<&str> = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
    let fence = if cells[0].starts_with("``") { "`` " } else { "`" };
    let entry = cells[0].strip_prefix(fence)?.trim_end_matches('`').trim_end();
    let entry = if fence.len() > 1 { format!("{entry}`") } else { entry.to_owned() };
    let code = cells.last()?.trim_matches('`').to_owned();
    (entry.starts_with("- ") && !entry.starts_with("- >")).then_some((entry, code))
}

#[test]
fn the_traps_of_yaml_are_traps() {
    let text = read("manifest.md");
    let (_, traps) = text.split_once("\n### Traps").expect("the section");
    let (traps, _) = traps.split_once("\n## ").expect("the next section");
    let rows: Vec<(String, String)> = traps.lines().filter_map(trap).collect();
    assert!(rows.len() >= 9, "{rows:?}");
    for (entry, code) in rows {
        let text = format!("image: alpine\nprepare:\n  script:\n    {entry}\n");
        let codes: BTreeSet<String> = match Manifest::parse(text.as_bytes(), ".buildr.yml") {
            Ok((_, warnings)) => warnings.iter().map(|warning| warning.code.to_string()).collect(),
            Err(problems) => codes(&problems, Severity::Error),
        };
        assert_eq!(codes, BTreeSet::from([code]), "{entry}");
    }
}

#[test]
fn a_diagnostic_looks_as_the_page_shows_it() {
    let text = "image: alpine\nstages: [build]\nbuild:\n  sript: [make]\n";
    let problems = Manifest::parse(text.as_bytes(), ".buildr.yml").expect_err("a mistyped key");
    let rendered = problems.items[0].render(false);
    let rendered: Vec<&str> = rendered.lines().map(str::trim_end).collect();
    assert!(read("manifest.md").contains(&rendered.join("\n")), "{}", rendered.join("\n"));
}

#[test]
fn the_builds_of_the_comparison_are_valid() {
    const FILES: [&str; 5] = [
        "# .buildr.yml",
        "# .travis.yml",
        "# .gitlab-ci.yml",
        "# .woodpecker.yml",
        "# .github/workflows/build.yml",
    ];
    let blocks = blocks("from-other-ci.md");
    for block in &blocks {
        assert!(FILES.contains(&block.first_line()), "{}: {}", block.place(), block.first_line());
    }
    let of = |file: &str| blocks.iter().filter(|block| block.first_line() == file).count();
    let counts = FILES.map(of);
    assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    for block in blocks.iter().filter(|block| block.first_line() == FILES[0]) {
        assert!(block.text.contains("\nimage:"), "{}: a whole manifest", block.place());
        block.valid();
    }
}
