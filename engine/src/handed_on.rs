//! What a stage hands on to later ones: lines `NAME=VALUE` in the file that `BUILDR_ENV` names. A value
//! is everything up to the end of its line; empty lines and those that begin with `#` are passed over.
//!
//! Whatever a build has written there, it is never an error: what cannot be taken is warned of.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
};

use buildr_manifest::{VarName, is_reserved};

/// The most that a stage may hand on, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// The most variables.
const MAX_VALUES: usize = 1000;

/// The kernel takes no longer variable, its name, `=` and an ending zero byte included.
const MAX_VARIABLE: usize = 128 << 10;

/// How many line numbers are worth telling.
const MAX_LINES_TOLD: usize = 10;

/// The values of one stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HandedOn {
    /// By name; of several lines for one name the last counts.
    pub(crate) values: Vec<(VarName, String)>,
    /// One for each kind of problem, for people.
    pub(crate) warnings: Vec<String>,
}

/// Why a line is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Problem {
    NotUtf8,
    ZeroByte,
    NoEquals,
    BadName,
    Reserved,
    TooLong,
}

impl HandedOn {
    /// Reads the text of a file.
    pub(crate) fn parse(text: &[u8]) -> Self {
        if text.len() > MAX_BYTES {
            return Self::nothing(&format!("it has more than the {MAX_BYTES} bytes that it may have"));
        }
        let mut values = BTreeMap::new();
        let mut problems: BTreeMap<Problem, Vec<usize>> = BTreeMap::new();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            match variable(line) {
                Ok(Some((name, value))) => drop(values.insert(name, value)),
                Ok(None) => {}
                Err(problem) => problems.entry(problem).or_default().push(number),
            }
        }
        if values.len() > MAX_VALUES {
            let count = values.len();
            return Self::nothing(&format!(
                "it has {count} variables, more than the {MAX_VALUES} that it may have"
            ));
        }
        let warnings = problems.iter().map(|(problem, lines)| warning(*problem, lines)).collect();
        Self { values: values.into_iter().collect(), warnings }
    }

    /// For a file that cannot be taken at all.
    pub(crate) fn nothing(why: &str) -> Self {
        let warning = format!("nothing is taken from the file $BUILDR_ENV: {why}");
        Self { values: Vec::new(), warnings: vec![warning] }
    }
}

/// A line without its end; none where nothing is to be read in it.
fn variable(line: &[u8]) -> Result<Option<(VarName, String)>, Problem> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| Problem::NotUtf8)?;
    let begin = line.trim_start();
    if begin.is_empty() || begin.starts_with('#') {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or(Problem::NoEquals)?;
    let name = VarName::new(name).map_err(|_| Problem::BadName)?;
    if is_reserved(&name) {
        return Err(Problem::Reserved);
    }
    if value.contains('\0') {
        return Err(Problem::ZeroByte);
    }
    if line.len() >= MAX_VARIABLE {
        return Err(Problem::TooLong);
    }
    Ok(Some((name, value.to_owned())))
}

fn warning(problem: Problem, lines: &[usize]) -> String {
    let mut text =
        format!("not taken from the file $BUILDR_ENV: line{} ", if lines.len() == 1 { "" } else { "s" });
    let told: Vec<String> = lines.iter().take(MAX_LINES_TOLD).map(usize::to_string).collect();
    text.push_str(&told.join(", "));
    if lines.len() > MAX_LINES_TOLD {
        let more = lines.len() - MAX_LINES_TOLD;
        write!(text, " and {more} more").expect("writing to a string cannot fail");
    }
    format!("{text}: {problem}")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUtf8 => "not UTF-8",
            Self::ZeroByte => "a zero byte in the value, which no variable can have",
            Self::NoEquals => "no `=`, but a line is NAME=VALUE",
            Self::BadName => {
                "no variable's name before the `=`: a letter or `_`, then letters, digits and `_`"
            }
            Self::Reserved => "the names `BUILDR`, `BUILDR_*` and `COMPOSE_PROJECT_NAME` are buildr's own",
            Self::TooLong => "longer than the 128 KiB that the system takes for one variable",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: impl AsRef<[u8]>) -> Vec<(String, String)> {
        let handed_on = HandedOn::parse(text.as_ref());
        handed_on.values.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn warnings(text: impl AsRef<[u8]>) -> Vec<String> {
        HandedOn::parse(text.as_ref()).warnings
    }

    #[test]
    fn a_line_is_a_variable_and_its_value_is_literal_to_the_end_of_the_line() {
        for (text, expected) in [
            ("", &[][..]),
            ("A=1", &[("A", "1")]),
            ("A=1\nB=2\n", &[("A", "1"), ("B", "2")]),
            ("A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            ("A=1\nA=2\n", &[("A", "2")]),
            ("A=\n", &[("A", "")]),
            ("A= x=y \"$Z\" #no \n", &[("A", " x=y \"$Z\" #no ")]),
            ("\n  \n# A=1\n  # B=2\n_c3=3\n\n", &[("_c3", "3")]),
            ("A=1\rx\n", &[("A", "1\rx")]),
            ("Ä=1\nB=ä\n", &[("B", "ä")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            assert_eq!(values(text), expected, "{text:?}");
        }
    }

    #[test]
    fn each_kind_of_problem_is_one_warning_with_its_lines_and_the_rest_is_taken() {
        let long = format!("L={}", "x".repeat(MAX_VARIABLE - 2));
        let text = [
            &b"OK=1\nnothing\nBUILDR=1\nexport A=2\nnothing again\n9=x\nBUILDR_X=1\nCOMPOSE_PROJECT_NAME=x\nB=\xff\nC=\0\n"[..],
            long.as_bytes(),
        ]
        .concat();
        assert_eq!(values(&text), [("OK".to_owned(), "1".to_owned())]);
        let told = warnings(&text);
        let begins: Vec<_> = told.iter().map(|warning| warning.split(": ").nth(1).unwrap()).collect();
        assert_eq!(begins, ["line 9", "line 10", "lines 2, 5", "lines 4, 6", "lines 3, 7, 8", "line 11"]);
        assert!(told[4].contains("COMPOSE_PROJECT_NAME"), "{told:?}");
    }

    #[test]
    fn no_warning_grows_with_its_lines() {
        let told = warnings("x\n".repeat(5000));
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 4990 more: no `=`"), "{told:?}");
    }

    #[test]
    fn of_what_is_too_large_nothing_is_taken() {
        let many: String = (0..=MAX_VALUES).map(|number| format!("V{number}=1\n")).collect();
        let large = format!("A=1\n{}", "#".repeat(MAX_BYTES));
        for (text, named) in [(many, "1001 variables"), (large, "1048576 bytes")] {
            let handed_on = HandedOn::parse(text.as_bytes());
            assert_eq!(handed_on.values, []);
            assert!(handed_on.warnings.len() == 1 && handed_on.warnings[0].contains(named), "{handed_on:?}");
        }
        let same = "A=1\n".repeat(MAX_VALUES + 1);
        assert_eq!(values(same).len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_and_only_what_a_stage_can_be_given_is_taken(
            text in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'='), Just(b'\n'), Just(b'A')], 0..200),
        ) {
            for (name, value) in HandedOn::parse(&text).values {
                prop_assert!(VarName::new(name.to_string()).is_ok() && !is_reserved(&name));
                prop_assert!(!value.contains(['\0', '\n']));
            }
        }

        #[test]
        fn what_was_written_is_what_is_taken(
            written in prop::collection::btree_map("[a-z_][a-z0-9_]{0,8}", "[^\n\r\0]{0,20}", 0..20),
        ) {
            let text: String = written.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            prop_assert_eq!(values(text), written.into_iter().collect::<Vec<_>>());
        }
    }
}
