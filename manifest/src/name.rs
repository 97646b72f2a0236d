//! Names that were checked once, where they were made.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

/// The name of a stage: 1 to 100 characters, none of them a control character, `/`, or white space
/// at either end, and not `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StageName(String);

/// The name of an environment variable: a letter or `_`, then letters, digits and `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VarName(String);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// It cannot name a stage.
    #[error(
        "`{0}` is not a stage's name: 1 to 100 characters, no `/`, no control characters, no white space at either end"
    )]
    Stage(String),
    /// It cannot name a variable.
    #[error("`{0}` is not a variable's name: a letter or `_`, then letters, digits and `_`")]
    Var(String),
}

impl StageName {
    /// The stage that runs before all others.
    pub const PREPARE: &'static str = "prepare";

    /// Checks a text.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let fits = (1..=100).contains(&text.chars().count())
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || c == '/')
            && text != "."
            && text != "..";
        if fits { Ok(Self(text)) } else { Err(InvalidName::Stage(text)) }
    }
}

impl VarName {
    /// Checks a text.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let mut chars = text.chars();
        let fits = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        if fits { Ok(Self(text)) } else { Err(InvalidName::Var(text)) }
    }
}

macro_rules! text_newtype {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl Deref for $type {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
text_newtype!(StageName);
text_newtype!(VarName);
