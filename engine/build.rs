//! Builds `buildr-init` as a static program and tells the engine where it is, so that it can be
//! embedded: `include_bytes!(env!("BUILDR_INIT"))`.
//!
//! A static program cannot be had as an ordinary dependency (the flag would have to hold for the
//! whole build), so a cargo of its own builds it, in a target folder of its own. It needs nothing
//! from the network: whatever init depends on, the engine depends on too.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// What the cargo around us, clippy or a user's set-up say about the outer build and must not
/// reach the inner one.
const OUTER: [&str; 9] = [
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "CLIPPY_ARGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "__CARGO_DEFAULT_LIB_METADATA",
];

fn main() {
    for path in ["build.rs", "../init/src", "../init/Cargo.toml", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let target = required("TARGET");
    assert!(
        target.contains("-linux-"),
        "build containers run Linux: build the engine for a Linux target, not {target}"
    );
    let target_folder = PathBuf::from(required("OUT_DIR")).join("init");
    build(&target, &target_folder);
    let program = target_folder.join(&target).join("init/buildr-init");
    assert!(program.is_file(), "cargo built no {}", program.display());
    println!("cargo:rustc-env=BUILDR_INIT={}", program.display());
}

/// Runs the inner cargo.
fn build(target: &str, target_folder: &Path) {
    let workspace = PathBuf::from(required("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(required("CARGO"));
    cargo
        .current_dir(workspace)
        .args(["build", "--offline", "--package", "buildr-init", "--bin", "buildr-init", "--profile", "init"])
        .args(["--target", target])
        .arg("--target-dir")
        .arg(target_folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    for name in OUTER {
        cargo.env_remove(name);
    }
    let status = cargo.status().unwrap_or_else(|error| panic!("start cargo for buildr-init: {error}"));
    assert!(status.success(), "building buildr-init failed: {status}");
}

/// A variable that cargo sets for every build script.
fn required(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
