//! Lists of globs.

use super::value;
use crate::{
    Code, Glob, Pattern, Patterns,
    diagnostic::{Report, quoted},
    glob::Subject,
    tree::Node,
};

/// More entries than this in one list are refused: each is tried on each changed file.
const MAX_ENTRIES: usize = 200;

/// The globs of a list, or of one text. None only where an error was reported.
pub(super) fn check(node: &Node, key: &str, subject: Subject, report: &mut Report<'_>) -> Option<Patterns> {
    let texts = value::texts(node, key, report);
    if texts.len() > MAX_ENTRIES {
        let message = format!("`{key}` has more than {MAX_ENTRIES} entries");
        report.push(report.error(Code::TooLarge, node.span, message));
        return None;
    }
    let patterns: Vec<Pattern> = texts
        .into_iter()
        .filter_map(|(text, node)| {
            let (exclude, glob) = text.strip_prefix('!').map_or((false, text), |glob| (true, glob));
            Some(Pattern { exclude, glob: glob_of(glob, node, subject, report)? })
        })
        .collect();
    (!patterns.is_empty()).then(|| Patterns::new(patterns))
}

/// One glob.
pub(super) fn glob_of(text: &str, node: &Node, subject: Subject, report: &mut Report<'_>) -> Option<Glob> {
    Glob::new(text, subject)
        .map_err(|why| {
            report.push(report.error(Code::BadGlob, node.span, format!("the glob {} {why}", quoted(text))))
        })
        .ok()
}
