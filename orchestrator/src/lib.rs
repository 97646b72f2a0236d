//! buildr orchestrator
pub mod core;
pub mod error;
pub mod hub;
pub mod logs;
pub mod store;
