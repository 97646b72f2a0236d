//! The real program, static, as the first process of real containers, driven over its standard
//! input and output: what a build sees of it, and what the engine does.
//!
//! Needs a Docker engine and the images that `scripts/test-images` makes.

#[path = "conformance/container.rs"]
mod container;
#[path = "conformance/endings.rs"]
mod endings;
#[path = "conformance/files.rs"]
mod files;
#[path = "conformance/hostile.rs"]
mod hostile;
#[path = "conformance/protocol.rs"]
mod protocol;
#[path = "conformance/shells.rs"]
mod shells;
#[path = "conformance/usage.rs"]
mod usage;
