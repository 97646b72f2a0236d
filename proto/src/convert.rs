//! The border between generated and domain types: `From` on the way out, `TryFrom` on the way in.
//!
//! What comes in is not trusted: whatever is missing, out of range or beyond [`crate::limits`] is
//! [`Invalid`]. Texts for people are clipped to [`crate::limits::MAX_TEXT`] on their way out, so that
//! a long one is not refused by the other end. Every message is taken apart exhaustively, so that a new field does not
//! compile until somebody has thought about it. Nothing here looks at the world: no clock, no I/O.

mod build;
mod build_event;
mod event;
mod outcome;
mod plan;
mod source;
mod time;

use std::collections::{BTreeMap, HashMap};

use buildr_manifest::{LogName, ServiceName, StageName};

pub use build::{build_state_from_pb, build_state_to_pb};
pub use time::{duration_from_pb, duration_to_pb, timestamp_from_pb, timestamp_to_pb};

use crate::limits::{MAX_LABEL, MAX_LABELS, MAX_NAME, MAX_TEXT, MAX_VALUE, MAX_VARIABLES};

/// Why a message is not what it should be. Names the message and the field as in the `.proto` files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A field that must be set is not.
    #[error("{message}.{field} is missing")]
    Missing {
        /// The message.
        message: &'static str,
        /// Its field.
        field: &'static str,
    },
    /// A field has a value that it may not have.
    #[error("{message}.{field} is not valid: {why}")]
    Wrong {
        /// The message.
        message: &'static str,
        /// Its field.
        field: &'static str,
        /// What is wrong with the value.
        why: String,
    },
    /// A field has more than it may have.
    #[error("{message}.{field} has a length of {length}, and {max} is the most")]
    TooLong {
        /// The message.
        message: &'static str,
        /// Its field.
        field: &'static str,
        /// What it has: bytes of a text, entries of a list.
        length: usize,
        /// What it may have.
        max: usize,
    },
}

/// A message's name, for errors.
#[derive(Clone, Copy, Debug)]
pub struct Message(pub &'static str);

/// A field of a message, for errors; its methods are the checks that fields have in common. The
/// edges use it for the messages that have no domain type.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    message: &'static str,
    name: &'static str,
}

impl Message {
    /// The field with this name.
    pub fn field(self, name: &'static str) -> Field {
        Field { message: self.0, name }
    }
}

impl Field {
    /// The field is not set.
    pub fn missing(self) -> Invalid {
        Invalid::Missing { message: self.message, field: self.name }
    }

    /// The field has a value that it may not have.
    pub fn wrong(self, why: impl ToString) -> Invalid {
        let why = clip(why.to_string(), 1 << 10);
        Invalid::Wrong { message: self.message, field: self.name, why }
    }

    /// The value of a field that must be set.
    pub fn require<T>(self, value: Option<T>) -> Result<T, Invalid> {
        value.ok_or_else(|| self.missing())
    }

    /// Checks a length against its limit.
    pub fn at_most(self, length: usize, max: usize) -> Result<(), Invalid> {
        if length <= max {
            return Ok(());
        }
        Err(Invalid::TooLong { message: self.message, field: self.name, length, max })
    }

    /// A text of at most `max` bytes.
    pub fn text(self, text: String, max: usize) -> Result<String, Invalid> {
        self.at_most(text.len(), max)?;
        Ok(text)
    }

    /// A text of 1 to `max` bytes without control characters.
    pub fn line(self, text: String, max: usize) -> Result<String, Invalid> {
        self.at_most(text.len(), max)?;
        if text.is_empty() {
            return Err(self.missing());
        }
        if text.chars().any(char::is_control) {
            return Err(self.wrong(format!("{text:?} has a control character")));
        }
        Ok(text)
    }

    /// As [`Field::line`], where an empty text stands for none.
    pub fn optional_line(self, text: String, max: usize) -> Result<Option<String>, Invalid> {
        if text.is_empty() { Ok(None) } else { self.line(text, max).map(Some) }
    }

    /// A full commit id, or none.
    pub fn commit(self, text: String) -> Result<Option<String>, Invalid> {
        if text.is_empty() {
            return Ok(None);
        }
        if !matches!(text.len(), 40 | 64) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.wrong(format!("`{text}` is not a full commit id: 40 or 64 hexadecimal digits")));
        }
        Ok(Some(text.to_ascii_lowercase()))
    }

    /// A stage's name.
    pub fn stage(self, name: String) -> Result<StageName, Invalid> {
        StageName::new(name).map_err(|error| self.wrong(error))
    }

    /// A stage's name, or none.
    pub fn optional_stage(self, name: String) -> Result<Option<StageName>, Invalid> {
        if name.is_empty() { Ok(None) } else { self.stage(name).map(Some) }
    }

    /// A service's name.
    pub fn service(self, name: String) -> Result<ServiceName, Invalid> {
        ServiceName::new(name).map_err(|error| self.wrong(error))
    }

    /// The name of a stage's or a service's log.
    pub fn log(self, name: String) -> Result<LogName, Invalid> {
        LogName::new(name).map_err(|error| self.wrong(error))
    }

    /// A text that is parsed, as ids are.
    pub fn parse<T>(self, text: &str) -> Result<T, Invalid>
    where
        T: std::str::FromStr,
        T::Err: ToString,
    {
        if text.is_empty() {
            return Err(self.missing());
        }
        text.parse().map_err(|error: T::Err| self.wrong(error.to_string()))
    }

    /// The value of an enum that must be set.
    pub fn enumeration<T>(self, value: i32) -> Result<T, Invalid>
    where
        T: TryFrom<i32, Error = prost::UnknownEnumValue> + Default + PartialEq,
    {
        let value = T::try_from(value).map_err(|error| self.wrong(error))?;
        if value == T::default() { Err(self.missing()) } else { Ok(value) }
    }

    /// Variables of a matrix: at most [`MAX_VARIABLES`], any text without a NUL.
    pub fn variables(self, values: HashMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
        self.at_most(values.len(), MAX_VARIABLES)?;
        let check = |(name, value): (String, String)| {
            let value = self.text(value, MAX_VALUE)?;
            if value.contains('\0') {
                return Err(self.wrong(format!("the value of `{name}` has a NUL")));
            }
            Ok((self.line(name, MAX_NAME)?, value))
        };
        values.into_iter().map(check).collect()
    }

    /// Labels: at most [`MAX_LABELS`], with names and values of at most [`MAX_LABEL`] bytes.
    pub fn labels(self, labels: HashMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
        self.at_most(labels.len(), MAX_LABELS)?;
        let check = |(name, value): (String, String)| {
            self.at_most(value.len(), MAX_LABEL)?;
            if value.chars().any(char::is_control) {
                return Err(self.wrong(format!("the value of `{name}` has a control character")));
            }
            Ok((self.line(name, MAX_LABEL)?, value))
        };
        labels.into_iter().map(check).collect()
    }
}

/// A text for people, cut to at most `max` bytes where it is longer, with a mark at the cut.
fn clip(mut text: String, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max - MARK.len()));
        text.push_str(MARK);
    }
    text
}

/// A text for people on its way out.
fn outgoing(text: String) -> String {
    clip(text, MAX_TEXT)
}

#[cfg(test)]
mod tests;
