//! Turns `proto/` into code, with a compiler written in Rust so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

const FILES: [&str; 2] = ["grpc_service.proto", "xds/service/orca/v3/orca.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Tensors share the buffer that the message was received in.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
