//! The orchestrator from outside: a real server on a free port, and real gRPC clients that play
//! agents and users.

mod access;
mod cancel;
mod fencing;
mod harness;
mod life;
mod logs;
mod restart;
