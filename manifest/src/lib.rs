//! The manifest language and the vocabulary of buildr: what to run, and what became of it.
//!
//! Text becomes a checked [`Manifest`]; a manifest and a [`Context`] become a [`Plan`]: whether the
//! event starts a build, its jobs, their stages, their order, and why one does not run. What a
//! manifest *means* is decided here and nowhere else. The crate is pure: it does no I/O, reads no
//! clock and no environment, and never blocks.
//!
//! # Layout
//! - [`manifest`]: the front door, [`Manifest::parse`], and what a checked manifest says. It leads
//!   through `source` (bytes to text with places), `tree` (text to YAML with places) and `check`
//!   (YAML to a [`Manifest`], with `vocabulary`)
//! - `duration`, `size`, `cron`, `glob`, `template`, [`when`]: the small languages inside of values
//! - [`plan`]: [`Manifest::plan`], manifest and context to a [`Plan`]; [`Plan::supported`], the part
//!   of it that the engine carries out as a [`JobPlan`]
//! - [`schema`]: the JSON Schema of the language, for editors
//! - [`diagnostic`]: what is wrong with a manifest, for people and for programs
//! - [`name`]: checked names (stages, services, their logs, variables)
//! - [`event`], [`outcome`]: what a running job reports, and how it ends
//! - [`seconds`]: durations in JSON

mod check;
mod cron;
pub mod diagnostic;
mod duration;
pub mod event;
mod glob;
pub mod manifest;
pub mod name;
pub mod outcome;
mod place;
pub mod plan;
pub mod schema;
pub mod seconds;
mod size;
mod source;
mod template;
mod tree;
mod vocabulary;
pub mod when;

pub use cron::{Minute, Schedule};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Severity};
pub use event::{Event, EventKind, Usage};
pub use glob::{Glob, Pattern, Patterns};
pub use manifest::{
    AllowFailure, Artifacts, Axis, Cache, CancelOlder, CloneOptions, Combination, Concurrency, Cron,
    Environment, FILE_NAMES, Failure, Fault, Inherit, JobRetry, Keep, MAX_JOBS, Manifest, Matrix,
    OnPullRequest, OnPush, OnTag, Reports, Resources, Service, Shell, Stage, StageRetry, Triggers, Values,
    Variable,
};
pub use name::{LogName, ServiceName, StageName, VarName};
pub use outcome::{Cause, Outcome, StageState};
pub use place::{Keys, Place};
pub use plan::{
    Context, Decision, Job, JobPlan, Order, Part, Phase, Pick, Plan, PlannedCache, PlannedService,
    PlannedStage, Progress, Start, Trigger, Turn, VarMap, Variables, is_reserved,
};
pub use size::{ByteSize, Cpus};
pub use template::{Open, Template, Text};
pub use when::{Conditions, Events, Status, When};

#[cfg(test)]
mod tests;
