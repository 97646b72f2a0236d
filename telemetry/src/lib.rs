//! How the programs of a farm are seen from outside: the log on standard error, the listener for
//! metrics and probes, and what a doctor finds. Knows nothing of builds.
//!
//! # Layout
//! - [`log`]: lines for people or JSON, filters, panics
//! - [`listener`]: `/metrics`, `/livez` and `/readyz` over HTTP
//! - [`names`]: how metrics get their names
//! - [`doctor`]: a list of checks, and what to do about each

pub mod doctor;
pub mod listener;
pub mod log;
pub mod names;
