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

/// The name of a service, which is a host's name on the job's network: 1 to 63 lower-case letters,
/// digits, `-` and `_`, the first a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(String);

/// Whose log: a stage's or a service's. Its text is the stage's name, or `services/NAME`, which no
/// stage has, as its name has no `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LogName {
    /// That of a stage, all its tries together.
    Stage(StageName),
    /// That of a service.
    Service(ServiceName),
}

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
    /// It cannot name a service.
    #[error(
        "`{0}` is not a service's name: 1 to 63 lower-case letters, digits, `-` and `_`, the first a letter"
    )]
    Service(String),
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

impl ServiceName {
    /// Checks a text.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        let fits = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        if fits { Ok(Self(text)) } else { Err(InvalidName::Service(text)) }
    }
}

impl LogName {
    const SERVICES: &'static str = "services/";

    /// Checks a text.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        match text.strip_prefix(Self::SERVICES) {
            Some(name) => ServiceName::new(name).map(Self::Service),
            None => StageName::new(text).map(Self::Stage),
        }
    }

    /// The stage whose log it is; none for a service's.
    pub fn stage(&self) -> Option<&StageName> {
        match self {
            Self::Stage(name) => Some(name),
            Self::Service(_) => None,
        }
    }

    /// The service whose log it is; none for a stage's.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Stage(_) => None,
            Self::Service(name) => Some(name),
        }
    }

    /// True for the log of this stage.
    pub fn is_of(&self, stage: &StageName) -> bool {
        self.stage() == Some(stage)
    }

    /// Whose log it is, in words: `stage test`, `service db`.
    pub fn owner(&self) -> String {
        match self {
            Self::Stage(name) => format!("stage {name}"),
            Self::Service(name) => format!("service {name}"),
        }
    }
}

impl From<StageName> for LogName {
    fn from(name: StageName) -> Self {
        Self::Stage(name)
    }
}

impl From<ServiceName> for LogName {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl TryFrom<String> for LogName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl From<LogName> for String {
    fn from(name: LogName) -> String {
        match name {
            LogName::Stage(name) => name.into(),
            LogName::Service(name) => format!("{}{name}", LogName::SERVICES),
        }
    }
}

impl fmt::Display for LogName {
    /// The text that [`LogName::new`] takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(name) => write!(f, "{name}"),
            Self::Service(name) => write!(f, "{}{name}", Self::SERVICES),
        }
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
text_newtype!(ServiceName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_a_service_has_a_text_that_no_stage_has() {
        let service = ServiceName::new("db").unwrap();
        for name in ["db", "services", "test", "日本", "a b"] {
            let log = LogName::new(name).unwrap();
            assert_eq!(log, StageName::new(name).unwrap().into());
            assert_ne!(log, service.clone().into());
            assert_eq!(LogName::new(log.to_string()), Ok(log));
        }
        let log = LogName::from(service.clone());
        assert_eq!(log.to_string(), "services/db");
        assert_eq!(LogName::new(log.to_string()), Ok(log));
        assert!(StageName::new("services/db").is_err());
    }

    #[test]
    fn a_text_that_is_neither_a_stages_nor_a_services_log_is_refused() {
        for text in
            ["", "services/", "services/a/b", "services/..", "services/Db", "x/db", "/db", "..", "a\nb"]
        {
            assert!(LogName::new(text).is_err(), "{text:?}");
            assert!(serde_json::from_str::<LogName>(&format!("{text:?}")).is_err(), "{text:?}");
        }
    }
}
