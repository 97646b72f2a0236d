//! What holds for any bytes at all.

use proptest::{collection::vec, prelude::*, sample::select};

use crate::{Context, Manifest, Severity};

/// Pieces of which manifests, and what goes wrong in them, are made.
const PIECES: [&str; 48] = [
    "image",
    "stages",
    "prepare",
    "script",
    "environment",
    "vars",
    "inherit",
    "timeout",
    "build",
    "cache",
    "x-a",
    ": ",
    ":",
    "\n",
    "\r\n",
    "\r",
    " ",
    "  ",
    "    ",
    "\t",
    "- ",
    "-",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "'",
    "\"",
    "|",
    ">-",
    "#",
    "&a ",
    "*a",
    "<<",
    "!",
    "!!str ",
    "? ",
    "---\n",
    "...\n",
    "%",
    "@",
    "`",
    "A=b",
    "~",
    "ä",
    "\u{feff}",
    "\0",
];

const VALID: &str = "image: a:1\nenvironment:\n  inherit: true\n  vars:\n    - A=b\n    - B\nstages: [build, 'te st']\n\
    x-common: &c {script: [\"a\", 'b', |\n  c\n  ]}\nprepare:\n  script:\n    - |\n      a\n    - make # x\n\
    build:\n  <<: *c\n  script: ü\nte st: *c\ntimeout: 1h\n";

/// Whatever comes in: it ends, each problem points into the text, and can be shown.
fn check(bytes: &[u8]) {
    match Manifest::parse(bytes, "f") {
        Ok((manifest, warnings)) => {
            assert!(warnings.iter().all(|warning| warning.severity == Severity::Warning));
            if let Ok(plan) = manifest.plan(&Context::default()) {
                assert!(plan.jobs.iter().all(|job| job.stages.len() == manifest.stages.len()));
            }
        }
        Err(problems) => {
            assert!(problems.items.iter().any(|item| item.severity == Severity::Error));
            let lines = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r')).count() + 1;
            assert!(problems.items.iter().all(|item| (1..=lines).contains(&item.line) && item.column >= 1));
            assert!(!problems.render(true).is_empty() && !problems.to_string().is_empty());
        }
    }
}

#[test]
fn endless_repetition_never_panics() {
    for piece in PIECES
        .iter()
        .chain(&["- |\n", "a:\n", "- a\n", "{a: ", "[a, ", "[],", "<<: {}\n", "a: b: ", "&a *a "])
    {
        check(piece.repeat(20_000 / piece.len()).as_bytes());
        check(format!("image: a\nprepare:\n  script:\n    - {}", piece.repeat(2_000)).as_bytes());
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        check(&bytes);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        check(text.as_bytes());
    }

    #[test]
    fn pieces_of_yaml_never_panic(pieces in vec(select(&PIECES[..]), 0..60)) {
        check(pieces.concat().as_bytes());
    }

    #[test]
    fn a_damaged_manifest_never_panics(
        damage in vec((0..VALID.len(), 0..6_usize, select(&PIECES[..])), 1..8),
    ) {
        let mut bytes = VALID.as_bytes().to_vec();
        for (at, removed, piece) in damage {
            let at = at.min(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        check(&bytes);
    }
}
