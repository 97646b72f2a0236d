//! Tests of the language as a whole, through the crate's front door.

mod diagnostics;
mod language;
mod planning;
mod print;
mod progress;
mod properties;
mod reference;
