//! `jitney serve`: start, say what is served, run until told to stop.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::RawServer;
use crate::model::{Batching, Signature, TensorSpec};
use crate::server::Server;
use crate::serving::{ModelState, Version};
use crate::tensor::{Dtype, elements};

/// Flags go before environment variables, those before the configuration file.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    raw: RawServer,
}

/// An example with more elements than this is more to paste than to read.
const MOST_EXAMPLE: usize = 64;

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.raw.resolve()?;
        super::logging::start(&config.log)?;
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(config.io_threads)
            .thread_name("io")
            .enable_all()
            .build()
            .context("cannot start the threads that serve")?
            .block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                let server = Server::start(config).await?;
                about(&server);
                tokio::select! {
                    () = server.started() => models(&server),
                    _ = terminate.recv() => return Ok(()),
                    _ = interrupt.recv() => return Ok(()),
                }
                let (terminate, interrupt) = (
                    tokio::sync::Mutex::new(terminate),
                    tokio::sync::Mutex::new(interrupt),
                );
                let stop = || async {
                    let (mut terminate, mut interrupt) =
                        (terminate.lock().await, interrupt.lock().await);
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                server.run(stop).await?;
                Ok(())
            })
    }
}

fn about(server: &Server) {
    let machine = server.machine();
    let devices: Vec<String> = machine
        .inventory
        .devices()
        .iter()
        .map(|device| format!("{} ({})", device.id(), device.name()))
        .collect();
    println!("jitney {}", env!("CARGO_PKG_VERSION"));
    println!("devices: {}", devices.join(", "));
    println!("ONNX Runtime from {}", machine.library.path().display());
    println!("gRPC on {} (plaintext)", server.address());
    if let Some(address) = server.http_address() {
        println!("REST on http://{address}/v2");
    }
}

fn models(server: &Server) {
    let serving = server.catalog().serving();
    for version in &serving {
        println!("serving {}", describe(version));
    }
    for entry in server.catalog().index() {
        if entry.state == ModelState::Unavailable {
            println!("NOT serving {}: {}", entry.model, entry.reason);
        }
    }
    match serving.first() {
        Some(version) => examples(server.address(), version),
        None => println!("no model is served; put one at <repository>/<model>/1/model.onnx"),
    }
    println!("ready");
}

fn describe(version: &Version) -> String {
    let batching = match &version.batching {
        Batching::Rows => format!("batches of up to {} rows", version.max_batch_size()),
        Batching::Alone(reason) => format!("one request at a time ({reason})"),
    };
    format!(
        "{}: {}; {batching}; on {}",
        version.id,
        signature(&version.signature),
        version.devices.join(", ")
    )
}

/// Inputs, an arrow, outputs.
pub(super) fn signature(signature: &Signature) -> String {
    let list = |specs: &[TensorSpec]| {
        let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
        specs.join(", ")
    };
    format!(
        "{} -> {}",
        list(&signature.inputs),
        list(&signature.outputs)
    )
}

/// One line each for grpcurl and Python, to be pasted as they stand.
fn examples(address: SocketAddr, version: &Version) {
    let model = &version.id.model;
    println!("try it:");
    match grpcurl_inputs(&version.signature) {
        Some(inputs) => println!(
            "  grpcurl -plaintext -d {} {address} inference.GRPCInferenceService/ModelInfer",
            quoted(&format!(
                "{{\"model_name\":\"{model}\",\"inputs\":[{inputs}]}}"
            ))
        ),
        None => println!(
            "  grpcurl -plaintext -d {} {address} inference.GRPCInferenceService/ModelMetadata",
            quoted(&format!("{{\"name\":\"{model}\"}}"))
        ),
    }
    println!("  {}", python(address, version));
}

fn example_shape(spec: &TensorSpec) -> Vec<i64> {
    let shape = spec.protocol_shape();
    shape
        .into_iter()
        .map(|size| if size < 0 { 1 } else { size })
        .collect()
}

fn grpcurl_inputs(signature: &Signature) -> Option<String> {
    let inputs: Option<Vec<String>> = signature.inputs.iter().map(grpcurl_input).collect();
    Some(inputs?.join(","))
}

fn grpcurl_input(spec: &TensorSpec) -> Option<String> {
    let shape = example_shape(spec);
    let count = elements(&shape).filter(|count| *count <= MOST_EXAMPLE)?;
    let (field, element) = match spec.dtype {
        Dtype::Bool => ("bool_contents", "true"),
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 => ("uint_contents", "1"),
        Dtype::Uint64 => ("uint64_contents", "1"),
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 => ("int_contents", "1"),
        Dtype::Int64 => ("int64_contents", "1"),
        Dtype::Fp32 => ("fp32_contents", "1"),
        Dtype::Fp64 => ("fp64_contents", "1"),
        // Protobuf's JSON has bytes in base64: this is "hello".
        Dtype::Bytes => ("bytes_contents", "\"aGVsbG8=\""),
        Dtype::Fp16 | Dtype::Bf16 => return None,
    };
    let contents = vec![element; count].join(",");
    Some(format!(
        "{{\"name\":{:?},\"datatype\":\"{}\",\"shape\":{shape:?},\"contents\":{{\"{field}\":[{contents}]}}}}",
        spec.name, spec.dtype
    ))
}

fn python(address: SocketAddr, version: &Version) -> String {
    let mut code = format!(
        "import numpy as np, tritonclient.grpc as t; c = t.InferenceServerClient(\"{address}\"); i = []; "
    );
    for spec in &version.signature.inputs {
        let shape = example_shape(spec);
        let array = match spec.dtype {
            Dtype::Bytes => format!("np.full({shape:?}, b\"hello\", object)"),
            dtype => format!("np.ones({shape:?}, t.triton_to_np_dtype(\"{dtype}\"))"),
        };
        code.push_str(&format!(
            "x = t.InferInput({:?}, {shape:?}, \"{}\"); x.set_data_from_numpy({array}); i.append(x); ",
            spec.name, spec.dtype
        ));
    }
    let output = version
        .signature
        .outputs
        .first()
        .map_or("", |spec| spec.name.as_str());
    code.push_str(&format!(
        "print(c.infer(\"{}\", i).as_numpy({output:?}))",
        version.id.model
    ));
    format!("python3 -c {}", quoted(&code))
}

/// One word to a shell, whatever the names in a model's file are.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_one_word() {
        let hostile = "it's; $(date) `date` \" \\ ";
        let line = format!("printf %s {}", quoted(hostile));
        let shell = std::process::Command::new("sh")
            .args(["-c", &line])
            .output();
        assert_eq!(shell.unwrap().stdout, hostile.as_bytes());
    }
}
