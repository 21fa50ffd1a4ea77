//! What it saves that a tensor lies in shared memory: 600 KiB in and out, beside the same in messages.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use jitney_load::proto::infer_parameter::ParameterChoice;
use jitney_load::proto::model_infer_request::InferRequestedOutputTensor;
use jitney_load::proto::{InferParameter, ModelInferRequest};

use jitney::proto::SystemSharedMemoryRegisterRequest;
use jitney::proto::grpc_inference_service_client::GrpcInferenceServiceClient;

use super::processes::jitney_with;
use super::requests::identity;
use super::table::{Row, Table};
use super::{ROUNDS, closed, counted, folder};

const BYTES: usize = 600 * 1024;
const FOLDER: &str = "/dev/shm";
const PREFIX: &str = "jitney-bench-";

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let file = tempfile::Builder::new()
        .prefix(PREFIX)
        .tempfile_in(FOLDER)?;
    file.as_file().set_len(2 * BYTES as u64)?;
    let prefix = format!("{FOLDER}/{PREFIX}");
    let server = jitney_with(
        &folder("tests/models"),
        &["--shared-memory-prefix", &prefix],
    )?;
    register(&server.address, file.path()).await?;
    let (in_messages, in_memory) = (identity(BYTES / 4), shared());
    for connections in [1, 4] {
        let run = closed(&server.address, connections, 8);
        let mut pairs = Vec::new();
        for _ in 0..ROUNDS {
            let messages = run.run(std::slice::from_ref(&in_messages)).await?;
            let memory = run.run(std::slice::from_ref(&in_memory)).await?;
            pairs.push((messages, memory));
        }
        table.add(Row::share(
            &format!(
                "600 KiB identity, 8 in flight over {}: requests/s in shared memory over those in messages",
                counted(connections)
            ),
            &pairs,
            "1.5",
        ));
    }
    Ok(())
}

async fn register(address: &str, file: &Path) -> anyhow::Result<()> {
    let name = file.file_name().and_then(|name| name.to_str());
    let mut client = GrpcInferenceServiceClient::connect(format!("http://{address}")).await?;
    let region = SystemSharedMemoryRegisterRequest {
        name: "bench".to_owned(),
        key: name.context("no name")?.to_owned(),
        offset: 0,
        byte_size: 2 * BYTES as u64,
    };
    client.system_shared_memory_register(region).await?;
    Ok(())
}

/// The same request with its tensors in the region: the input in front, the output behind it.
fn shared() -> ModelInferRequest {
    let mut request = identity(BYTES / 4);
    request.raw_input_contents.clear();
    for input in &mut request.inputs {
        input.parameters = part(0);
    }
    request.outputs = vec![InferRequestedOutputTensor {
        name: "OUTPUT0".to_owned(),
        parameters: part(BYTES),
    }];
    request
}

fn part(offset: usize) -> HashMap<String, InferParameter> {
    let number = |number: usize| ParameterChoice::Int64Param(number as i64);
    let parameters = [
        (
            "shared_memory_region",
            ParameterChoice::StringParam("bench".to_owned()),
        ),
        ("shared_memory_offset", number(offset)),
        ("shared_memory_byte_size", number(BYTES)),
    ];
    let parameters = parameters.into_iter().map(|(name, choice)| {
        let parameter_choice = Some(choice);
        (name.to_owned(), InferParameter { parameter_choice })
    });
    parameters.collect()
}
