//! Whole jobs in the Docker of this machine. A machine without Docker fails these tests.

mod ends;
mod environment;
mod harness;
mod images;
mod leftovers;
mod output;
mod stops;
mod users;
