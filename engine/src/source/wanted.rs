//! What is wanted of a repository, checked: nothing else ever becomes an argument of git.

use git2::{Oid, Reference};

use super::{SourceError, UrlPolicy, address::Address};
use crate::job::{GitReference, GitSource};

const MAX_NAME: usize = 1024;

/// A checked [`GitSource`].
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) address: Address,
    /// None: the remote's default branch.
    pub(super) line: Option<Line>,
    pub(super) commit: Option<Oid>,
}

/// A branch or a tag, by its short name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Branch(String),
    Tag(String),
}

impl Wanted {
    /// Checks all texts of a source.
    pub(super) fn check(source: &GitSource, policy: UrlPolicy) -> Result<Self, SourceError> {
        let line = match &source.reference {
            GitReference::Default => None,
            GitReference::Branch(name) => Some(Line::Branch(name.clone())),
            GitReference::Tag(name) => Some(Line::Tag(name.clone())),
        };
        if let Some(line) = &line {
            line.check()?;
        }
        Ok(Self {
            address: Address::parse(&source.url, policy)?,
            line,
            commit: source.commit.as_deref().map(check_commit).transpose()?,
        })
    }
}

impl Line {
    /// The full name of the ref.
    pub(super) fn full_name(&self) -> String {
        match self {
            Self::Branch(name) => format!("refs/heads/{name}"),
            Self::Tag(name) => format!("refs/tags/{name}"),
        }
    }

    /// The short name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Branch(name) | Self::Tag(name) => name,
        }
    }

    /// `branch` or `tag`.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Branch(_) => "branch",
            Self::Tag(_) => "tag",
        }
    }

    /// The rules of `git check-ref-format --branch`, for tags as well.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let name = self.name();
        let fits = (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('-')
            && name != "HEAD"
            && !name.contains("//")
            && !name.chars().any(char::is_control)
            && Reference::is_valid_name(&self.full_name());
        if fits {
            return Ok(());
        }
        let name = name.chars().take(200).flat_map(char::escape_debug).collect();
        Err(SourceError::BadName { name, kind: self.kind() })
    }
}

/// A full id; 64 digits are those of a SHA-256 repository, which libgit2 cannot read yet.
fn check_commit(text: &str) -> Result<Oid, SourceError> {
    let bad =
        || SourceError::BadCommit { text: text.chars().take(200).flat_map(char::escape_debug).collect() };
    if text.len() != 40 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    Oid::from_str(text).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_gits_rules() {
        for good in ["main", "feature/x-1", "v1.0.0", "ümlaut", "a@b", "x{y"] {
            assert!(Line::Branch(good.into()).check().is_ok(), "{good}");
            assert!(Line::Tag(good.into()).check().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a..b",
            "a b",
            "a:b",
            "a?b",
            "a*b",
            "a[b",
            "a\\b",
            "a~b",
            "a^b",
            "a@{b",
            "@{",
            "/a",
            "a/",
            "a//b",
            "a.lock",
            "a/.b",
            "a.",
            "a\nb",
            "a\0b",
            "a\u{7f}b",
            "HEAD",
            ".a",
            "x.lock/y",
        ] {
            assert!(Line::Branch(bad.into()).check().is_err(), "{bad:?}");
            assert!(Line::Tag(bad.into()).check().is_err(), "{bad:?}");
        }
        assert!(Line::Branch("x".repeat(2000)).check().is_err());
    }

    #[test]
    fn a_commit_is_given_in_full() {
        assert!(check_commit(&"Ab".repeat(20)).is_ok());
        for bad in ["", "abc", "HEAD", "--x", &"g".repeat(40), &"a".repeat(39), &"a".repeat(41)] {
            assert!(check_commit(bad).is_err(), "{bad}");
        }
    }
}
