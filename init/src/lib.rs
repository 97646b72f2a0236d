//! What init and the engine share. The program itself is `main.rs` with its modules; this library
//! is only the language between the two.

pub mod wire;
