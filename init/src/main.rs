//! The first process of a build container.

fn main() {}
