//! buildr agent
