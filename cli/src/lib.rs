//! buildr cli
