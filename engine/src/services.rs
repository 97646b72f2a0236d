//! Services: containers that run beside the build's, under names that the build reaches them by.
//!
//! A service runs under init like a stage, not as its container's first process: init starts the
//! image's own entrypoint and command (or the manifest's) as a program ([`StageSpec`] without a script), writes
//! down what it prints, and runs the command that tells whether it is ready as a further program in
//! the same container. So there is no `docker exec`, a service ends with its engine where a build does
//! (`buildr run` that was killed leaves nothing), its log is a file that outlives the engine, and an
//! engine that comes back attaches to it as to a build container.
//!
//! [`StageSpec`]: buildr_init::wire::StageSpec
