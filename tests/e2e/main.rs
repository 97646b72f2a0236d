//! End-to-end tests: the real programs, real Docker, real git, real processes. They need a Docker
//! daemon and the images of `scripts/test-images`, and fail loudly where those are missing.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on says so and panics")]

mod harness;

mod adopt;
mod bad_input;
mod both;
mod containers;
mod docs;
mod farm;
mod faults;
mod language;
mod local;
mod ordinary;
mod projects;
mod registry;
mod shells;
mod stages;
mod transports;
