//! buildr orchestrator
pub mod core;
pub mod store;
