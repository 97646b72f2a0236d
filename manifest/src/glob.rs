//! Globs, and lists of them in which `!` excludes.
//!
//! `*` and `?` stop at `/`, `**` does not, `[a-z]` is one character, `\` takes the next one as it is.
//! A glob matches the whole of a text, never a part. Time is in proportion to the product of the two
//! lengths, whatever they are.

use std::{cell::Cell, fmt};

/// A checked glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    source: String,
    tokens: Vec<Token>,
}

/// Globs in order: the last one that matches decides, and one with a `!` before it excludes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

/// One entry of [`Patterns`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// True for one with a `!`.
    pub exclude: bool,
    /// What it matches.
    pub glob: Glob,
}

/// What a glob is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A branch, a tag, a variable's value.
    Name,
    /// A file's path from the root of the repository. A folder with a `/` at its end means its contents.
    Path,
}

/// How much matching may still be done: a manifest brings the globs, and whoever pushes the texts.
/// Without any left nothing matches.
#[derive(Clone, Debug)]
pub(crate) struct Work(Cell<u64>);

impl Work {
    /// What one plan may use: a second or two. 10,000 changed files and 100 globs use a tenth of it.
    const PLAN: u64 = 1_000_000_000;

    /// What one plan may use.
    pub(crate) fn of_a_plan() -> Self {
        Self::new(Self::PLAN)
    }

    /// So many steps: a step is one token of a glob that is tried on one character.
    pub(crate) fn new(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    /// No limit, for texts of a bounded length.
    pub(crate) fn unlimited() -> Self {
        Self(Cell::new(u64::MAX))
    }

    /// True once there was not enough.
    pub(crate) fn is_used_up(&self) -> bool {
        self.0.get() == 0
    }

    fn take(&self, amount: usize) -> bool {
        self.0.set(self.0.get().saturating_sub(amount as u64));
        !self.is_used_up()
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::of_a_plan()
    }
}

/// Why a text is no glob, to follow the text itself.
pub(crate) type InvalidGlob = &'static str;

/// A longer one is refused.
const MAX_LENGTH: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `[...]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`
    Star,
    /// `**`
    Stars,
    /// `**/` where a component begins: any number of folders, also none. Always followed by `Folder`.
    Folders,
    /// The inside of a folder's name that `Folders` took.
    Folder,
}

impl Glob {
    /// Checks a text.
    pub(crate) fn new(text: &str, subject: Subject) -> Result<Self, InvalidGlob> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > MAX_LENGTH {
            return Err("is longer than 500 bytes");
        }
        let (text, is_folder) = match subject {
            Subject::Name => (text, false),
            Subject::Path => (relative(text)?, text.ends_with('/')),
        };
        let mut tokens = tokens(text)?;
        if is_folder {
            tokens.push(Token::Stars);
        }
        Ok(Self { source: text.to_owned(), tokens })
    }

    /// True where the whole text is matched.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_within(text, &Work::unlimited())
    }

    fn matches_within(&self, text: &str, work: &Work) -> bool {
        let (mut states, mut next) = (States::new(self.tokens.len()), States::new(self.tokens.len()));
        self.enter(0, &mut states);
        for c in text.chars() {
            if states.active.is_empty() || !work.take(states.active.len()) {
                return false;
            }
            next.clear();
            for at in states.active.iter().copied() {
                match self.tokens.get(at) {
                    Some(Token::Star) if c != '/' => self.enter(at, &mut next),
                    Some(Token::Stars) => self.enter(at, &mut next),
                    Some(Token::Folder) => self.enter(if c == '/' { at - 1 } else { at }, &mut next),
                    Some(token) if token.takes(c) => self.enter(at + 1, &mut next),
                    _ => {}
                }
            }
            std::mem::swap(&mut states, &mut next);
        }
        states.has(self.tokens.len())
    }

    /// True where it matches every text.
    pub(crate) fn matches_all(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Star | Token::Stars))
            && self.tokens.contains(&Token::Stars)
    }

    /// Marks a state, and those that are reached from it without a character.
    fn enter(&self, mut at: usize, states: &mut States) {
        while states.mark(at) {
            match self.tokens.get(at) {
                Some(Token::Star | Token::Stars) => at += 1,
                Some(Token::Folders) => {
                    states.mark(at + 1);
                    at += 2;
                }
                _ => return,
            }
        }
    }
}

/// How far a glob may have been matched: before which of its tokens.
struct States {
    active: Vec<usize>,
    is_active: Vec<bool>,
}

impl States {
    fn new(tokens: usize) -> Self {
        Self { active: Vec::new(), is_active: vec![false; tokens + 1] }
    }

    /// Marks one; false where it was marked already.
    fn mark(&mut self, at: usize) -> bool {
        let is_new = !std::mem::replace(&mut self.is_active[at], true);
        if is_new {
            self.active.push(at);
        }
        is_new
    }

    fn has(&self, at: usize) -> bool {
        self.is_active[at]
    }

    fn clear(&mut self) {
        self.active.drain(..).for_each(|at| self.is_active[at] = false);
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::One => c != '/',
            Self::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
            Self::Star | Self::Stars | Self::Folders | Self::Folder => false,
        }
    }
}

impl Patterns {
    /// Takes patterns that were checked.
    pub(crate) fn new(patterns: Vec<Pattern>) -> Self {
        Self(patterns)
    }

    /// The entries in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.0.iter()
    }

    /// True where the last entry that matches is no exclusion. A list that begins with an exclusion
    /// begins with everything.
    pub fn matches(&self, text: &str) -> bool {
        self.matches_within(text, &Work::unlimited())
    }

    /// The same, as far as there is work left.
    pub(crate) fn matches_within(&self, text: &str, work: &Work) -> bool {
        let starts_full = self.0.first().is_some_and(|first| first.exclude);
        let last = self.0.iter().rev().find(|pattern| pattern.glob.matches_within(text, work));
        last.map_or(starts_full, |pattern| !pattern.exclude)
    }

    /// True where every text matches.
    pub(crate) fn matches_all(&self) -> bool {
        let last_full = self.0.iter().rposition(|p| !p.exclude && p.glob.matches_all());
        last_full.is_some_and(|at| self.0[at..].iter().all(|p| !p.exclude))
    }

    /// True where no text matches.
    pub(crate) fn matches_none(&self) -> bool {
        let last_full = self.0.iter().rposition(|p| p.exclude && p.glob.matches_all());
        last_full.is_some_and(|at| self.0[at..].iter().all(|p| p.exclude))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.exclude { "!" } else { "" }, self.glob)
    }
}

/// `a`, or `a or b`, with an end where there are many.
impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_SHOWN: usize = 5;
        for (number, pattern) in self.0.iter().take(MAX_SHOWN).enumerate() {
            write!(f, "{}`{pattern}`", if number == 0 { "" } else { ", " })?;
        }
        if self.0.len() > MAX_SHOWN { f.write_str(", ...") } else { Ok(()) }
    }
}

/// A path as it is matched: from the root of the repository, without `./` or `/` before it.
fn relative(text: &str) -> Result<&str, InvalidGlob> {
    let text = text.trim_start_matches("./").trim_start_matches('/');
    if text.is_empty() {
        return Err("names no file; all of them are `**`");
    }
    if text.split('/').any(|part| part == "..") {
        return Err("leaves the repository");
    }
    if text.split('/').any(|part| part == ".") || text.contains("//") {
        return Err("has an empty part in it");
    }
    Ok(text)
}

fn tokens(text: &str) -> Result<Vec<Token>, InvalidGlob> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let starts_component = matches!(tokens.last(), None | Some(Token::Char('/') | Token::Folder));
        rest = &rest[c.len_utf8()..];
        match c {
            '*' if rest.starts_with("**") => return Err("has three `*` in a row"),
            '*' if rest.starts_with("*/") && starts_component => {
                rest = &rest[2..];
                tokens.extend([Token::Folders, Token::Folder]);
            }
            '*' if rest.starts_with('*') => {
                rest = &rest[1..];
                tokens.push(Token::Stars);
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::One),
            '[' => {
                let (token, after) = class(rest)?;
                tokens.push(token);
                rest = after;
            }
            '{' | '}' => return Err("has a brace in it; write one entry for each alternative"),
            '\\' => {
                let literal = rest.chars().next().ok_or("ends in a backslash")?;
                rest = &rest[literal.len_utf8()..];
                tokens.push(Token::Char(literal));
            }
            c => tokens.push(Token::Char(c)),
        }
    }
    Ok(tokens)
}

/// A class whose `[` was read, and what follows its `]`.
fn class(text: &str) -> Result<(Token, &str), InvalidGlob> {
    let inside = text.strip_prefix(['!', '^']);
    let (negated, text) = (inside.is_some(), inside.unwrap_or(text));
    let end = text.char_indices().skip(1).find(|(_, c)| *c == ']').ok_or("has a `[` that is not closed")?.0;
    let mut ranges = Vec::new();
    let mut chars = text[..end].chars().peekable();
    while let Some(from) = chars.next() {
        let mut ahead = chars.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if from > to => return Err("has a range that runs backwards"),
            (Some('-'), Some(to)) => {
                ranges.push((from, to));
                chars = ahead;
            }
            _ => ranges.push((from, from)),
        }
    }
    Ok((Token::Class { negated, ranges }, &text[end + 1..]))
}

#[cfg(test)]
mod tests;
