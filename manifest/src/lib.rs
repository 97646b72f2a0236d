//! The manifest language and the vocabulary of buildr: what to run, and what became of it.
//!
//! Text becomes a checked [`Manifest`], a manifest and a [`Context`] become a [`JobPlan`]. What a
//! manifest *means* is decided here and nowhere else. The crate is pure: it does no I/O, reads no
//! clock and no environment, and never blocks.
//!
//! # Layout
//! - [`manifest`]: the front door, [`Manifest::parse`], and what a checked manifest says. It leads
//!   through `source` (bytes to text with places), `tree` (text to YAML with places) and `check`
//!   (YAML to a [`Manifest`], with `vocabulary` and `duration`)
//! - `resolve`: [`Manifest::plan`], manifest and context to a [`JobPlan`]
//! - [`diagnostic`]: what is wrong with a manifest, for people and for programs
//! - [`name`]: checked names (stages, variables)
//! - [`event`], [`outcome`]: what a running job reports, and how it ends
//! - [`plan`]: what the engine carries out
//! - [`seconds`]: durations in JSON

mod check;
pub mod diagnostic;
mod duration;
pub mod event;
pub mod manifest;
pub mod name;
pub mod outcome;
pub mod plan;
mod resolve;
pub mod seconds;
mod source;
mod tree;
mod vocabulary;

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use event::{Event, EventKind, Usage};
pub use manifest::{Environment, FILE_NAMES, Inherit, Manifest, Stage, Variable};
pub use name::{StageName, VarName};
pub use outcome::{Cause, Outcome, StageState};
pub use plan::{Context, JobPlan, StagePlan, Trigger};

#[cfg(test)]
mod tests;
