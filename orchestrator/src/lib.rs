//! buildr orchestrator
