//! The engine: turns a project with a manifest into a finished job in containers, and tells what
//! happens as one ordered stream. `buildr run` and the agent use it alike; it knows nothing of the
//! farm, the network protocol or the terminal.

pub mod job;
