//! The manifest language and the vocabulary of buildr: what to run, and what became of it.
//!
//! Text becomes a checked [`Manifest`], a manifest and a [`Context`] become a [`JobPlan`]. What a
//! manifest *means* is decided here and nowhere else. The crate is pure: it does no I/O, reads no
//! clock and no environment, and never blocks.
//!
//! # Layout
//! - [`name`]: checked names (stages, variables)
//! - [`event`], [`outcome`]: what a running job reports, and how it ends
//! - [`plan`]: what the engine carries out

pub mod event;
pub mod name;
pub mod outcome;
pub mod plan;

pub use event::{Event, EventKind, Usage};
pub use name::{StageName, VarName};
pub use outcome::{Cause, Outcome, StageState};
pub use plan::{Context, JobPlan, StagePlan, Trigger};
