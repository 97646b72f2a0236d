//! Templates: texts in which `${NAME}` is replaced.
//!
//! They are read once, when the manifest is checked; what a name means is known when it is planned,
//! but for the agent's platform and checksums of files, which stay open for whoever has them.

use std::fmt;

use crate::{
    Place, VarName,
    glob::{Glob, Subject},
};

/// A text with places in it that are filled when a build is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    source: String,
    place: Place,
}

/// A template that was filled as far as a plan can. Mostly that is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

/// What only an agent that has the project's files can fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// `${os}`, for example `linux`.
    Os,
    /// `${arch}`, for example `amd64`.
    Arch,
    /// `${checksum:GLOB,...}`: of the contents of all files that a glob matches, in the order of their
    /// paths. That none matches is an error.
    Checksum(Vec<Glob>),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InvalidTemplate {
    /// `${` without `}`.
    NotClosed,
    /// A name that means nothing here.
    Unknown(String),
    /// A bad glob, and why.
    Glob(String, &'static str),
    /// Longer than [`MAX_FILLED`].
    TooLong,
}

/// What a plan knows that a template can name beside variables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) branch: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) commit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Var(VarName),
    Branch,
    Tag,
    Commit,
    Job,
    Open(Open),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Open(Open),
}

/// How long a filled template may be: names of images, caches and groups are never longer.
pub(crate) const MAX_FILLED: usize = 512;

/// The names that are not variables.
pub(crate) const FACTS: [&str; 7] = ["branch", "tag", "commit", "job", "os", "arch", "checksum"];

impl Template {
    /// Reads a text. `is_known` says which variables may be named.
    pub(crate) fn new(
        text: &str,
        place: Place,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Self, InvalidTemplate> {
        if text.len() > MAX_FILLED {
            return Err(InvalidTemplate::TooLong);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or(InvalidTemplate::NotClosed)?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part(name, &is_known)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts, source: text.to_owned(), place })
    }

    /// Where it stands.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The text, where nothing in it is to be replaced.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What is certain about the text: what it begins with.
    pub(crate) fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The variables that it names.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &VarName> {
        self.parts.iter().filter_map(|part| match part {
            Part::Var(name) => Some(name),
            _ => None,
        })
    }

    /// Fills it as far as a plan can. A name without a value becomes nothing.
    pub(crate) fn fill<'v>(
        &self,
        facts: &Facts,
        job: &str,
        var: impl Fn(&VarName) -> Option<&'v str>,
    ) -> Result<Text, InvalidTemplate> {
        let mut text = Text::default();
        let mut length = 0;
        for part in &self.parts {
            let value = match part {
                Part::Text(text) => text,
                Part::Var(name) => var(name).unwrap_or_default(),
                Part::Branch => facts.branch.as_deref().unwrap_or_default(),
                Part::Tag => facts.tag.as_deref().unwrap_or_default(),
                Part::Commit => facts.commit.as_deref().unwrap_or_default(),
                Part::Job => job,
                Part::Open(open) => {
                    text.0.push(Piece::Open(open.clone()));
                    continue;
                }
            };
            length += value.len();
            if length > MAX_FILLED {
                return Err(InvalidTemplate::TooLong);
            }
            text.push(value);
        }
        Ok(text)
    }
}

/// The text as it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

fn part(name: &str, is_known: &impl Fn(&str) -> bool) -> Result<Part, InvalidTemplate> {
    let bad_glob = |glob: &str, why| InvalidTemplate::Glob(glob.to_owned(), why);
    Ok(match name {
        "branch" => Part::Branch,
        "tag" => Part::Tag,
        "commit" => Part::Commit,
        "job" => Part::Job,
        "os" => Part::Open(Open::Os),
        "arch" => Part::Open(Open::Arch),
        name => match name.strip_prefix("checksum:") {
            Some(globs) => {
                let glob = |text: &str| {
                    Glob::new(text.trim(), Subject::Path).map_err(|why| bad_glob(text.trim(), why))
                };
                Part::Open(Open::Checksum(globs.split(',').map(glob).collect::<Result<_, _>>()?))
            }
            None if is_known(name) => {
                VarName::new(name).map(Part::Var).map_err(|_| InvalidTemplate::Unknown(name.to_owned()))?
            }
            None => return Err(InvalidTemplate::Unknown(name.to_owned())),
        },
    })
}

impl Text {
    /// All of it, where nothing is open.
    pub fn known(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// All of it, what is open filled by `fill`; its first error where it has one.
    pub fn resolve<E>(&self, mut fill: impl FnMut(&Open) -> Result<String, E>) -> Result<String, E> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(known) => text.push_str(known),
                Piece::Open(open) => text.push_str(&fill(open)?),
            }
        }
        Ok(text)
    }

    /// Adds known text at the end.
    pub(crate) fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// The text with a letter for each open piece: good enough for rules on which characters stand where.
    pub(crate) fn outline(&self) -> String {
        let known = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Open(_) => "x".to_owned(),
        };
        self.0.iter().map(known).collect()
    }
}

/// What is known, and what is open as a manifest writes it.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Open(open) => write!(f, "${{{open}}}"),
        })
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os => f.write_str("os"),
            Self::Arch => f.write_str("arch"),
            Self::Checksum(globs) => {
                f.write_str("checksum:")?;
                globs
                    .iter()
                    .enumerate()
                    .try_for_each(|(number, glob)| write!(f, "{}{glob}", if number == 0 { "" } else { "," }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Result<Template, InvalidTemplate> {
        Template::new(text, Place::default(), |name| name == "RUST" || name == "EMPTY")
    }

    fn filled(text: &str) -> String {
        let facts = Facts { branch: Some("main".to_owned()), ..Facts::default() };
        let value = |name: &VarName| (&**name == "RUST").then_some("1.80");
        template(text).expect(text).fill(&facts, "j", value).expect(text).to_string()
    }

    #[test]
    fn names_are_replaced() {
        for (text, expected) in [
            ("rust:${RUST}", "rust:1.80"),
            ("${RUST}${branch}${job}", "1.80mainj"),
            ("a${EMPTY}b${tag}", "ab"),
            ("$${RUST}", "${RUST}"),
            ("$RUST $ {x} $$", "$RUST $ {x} $$"),
            ("$$${RUST}", "$${RUST}"),
            ("c-${checksum:Cargo.lock, **/x.lock}-${os}", "c-${checksum:Cargo.lock,**/x.lock}-${os}"),
            ("", ""),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, why) in [
            ("${RUST", InvalidTemplate::NotClosed),
            ("${Rust}", InvalidTemplate::Unknown("Rust".to_owned())),
            ("${}", InvalidTemplate::Unknown(String::new())),
            ("${checksum}", InvalidTemplate::Unknown("checksum".to_owned())),
            ("${checksum:}", InvalidTemplate::Glob(String::new(), "is empty")),
        ] {
            assert_eq!(template(text), Err(why), "{text}");
        }
        assert_eq!(template(&"x".repeat(513)), Err(InvalidTemplate::TooLong));
    }

    #[test]
    fn what_is_open_is_filled_by_the_caller() {
        let text = template("${arch}/${RUST}").expect("a template");
        let text = text.fill(&Facts::default(), "", |_| Some("1")).expect("short");
        assert_eq!(text.known(), None);
        assert_eq!(text.resolve(|open| Ok::<_, ()>(format!("<{open}>"))), Ok("<arch>/1".to_owned()));
        assert_eq!(text.resolve(|_| Err::<String, _>("no")), Err("no"));
    }
}
