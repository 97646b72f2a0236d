//! Compiles `proto/buildr/v1/*.proto` for the `buildr-proto` crate, whose manifest names this file.
//! protox stands in for `protoc`, so nothing has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=buildr");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let descriptors =
        protox::compile(["buildr/v1/types.proto", "buildr/v1/agent.proto", "buildr/v1/build.proto"], ["."])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".buildr.v1.LogChunk.data")
        .bytes(".buildr.v1.ReadLogResponse.data")
        .compile_fds(descriptors)?;
    Ok(())
}
