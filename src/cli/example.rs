//! One line each for grpcurl, Python and curl, to be pasted as they stand.

use std::net::SocketAddr;

use crate::model::TensorSpec;
use crate::serving::Version;
use crate::tensor::{Dtype, elements};

/// An example with more elements than this is more to paste than to read.
const MOST_EXAMPLE: usize = 64;

/// What makes a request a sequence of its own: in grpcurl's JSON, in Python and in curl's JSON.
const SEQUENCE_OF_ONE: [&str; 3] = [
    "\"parameters\":{\"sequence_id\":{\"int64_param\":1},\
     \"sequence_start\":{\"bool_param\":true},\"sequence_end\":{\"bool_param\":true}},",
    ", sequence_id=1, sequence_start=True, sequence_end=True",
    "\"parameters\":{\"sequence_id\":1,\"sequence_start\":true,\"sequence_end\":true},",
];

/// Ways to ask a version for the first time.
pub(super) fn examples(
    grpc: SocketAddr,
    rest: Option<SocketAddr>,
    version: &Version,
) -> Vec<String> {
    let sequence = match version.policy.sequence {
        Some(_) => SEQUENCE_OF_ONE,
        None => [""; 3],
    };
    let [in_grpcurl, in_python, in_curl] = sequence;
    let by_rest = rest.map(|address| curl(address, version, in_curl));
    let by_grpc = [
        grpcurl(grpc, version, in_grpcurl),
        python(grpc, version, in_python),
    ];
    by_grpc.into_iter().chain(by_rest).collect()
}

fn curl(address: SocketAddr, version: &Version, sequence: &str) -> String {
    let (model, signature) = (&version.id.model, &version.signature);
    let inputs: Option<Vec<String>> = signature.inputs.iter().map(curl_input).collect();
    let url = format!("http://{address}/v2/models/{model}");
    match inputs {
        Some(inputs) => {
            let body = format!("{{{sequence}\"inputs\":[{}]}}", inputs.join(","));
            format!("curl -s {url}/infer -d {}", quoted(&body))
        }
        None => format!("curl -s {url}"),
    }
}

fn curl_input(spec: &TensorSpec) -> Option<String> {
    let element = match spec.dtype {
        Dtype::Bool => "true",
        Dtype::Bytes => "\"hello\"",
        _ => "1",
    };
    Some(format!(
        "{},\"data\":[{}]}}",
        described(spec),
        repeated(spec, element)?
    ))
}

/// A JSON object that is left open.
fn described(spec: &TensorSpec) -> String {
    let (name, dtype, shape) = (&spec.name, spec.dtype, example_shape(spec));
    format!("{{\"name\":{name:?},\"datatype\":\"{dtype}\",\"shape\":{shape:?}")
}

fn repeated(spec: &TensorSpec, element: &str) -> Option<String> {
    let count = elements(&example_shape(spec)).filter(|count| *count <= MOST_EXAMPLE)?;
    Some(vec![element; count].join(","))
}

fn grpcurl(address: SocketAddr, version: &Version, sequence: &str) -> String {
    let (model, signature) = (&version.id.model, &version.signature);
    let inputs: Option<Vec<String>> = signature.inputs.iter().map(grpcurl_input).collect();
    let (message, call) = match inputs {
        Some(inputs) => {
            let inputs = inputs.join(",");
            let message = format!("{{\"model_name\":\"{model}\",{sequence}\"inputs\":[{inputs}]}}");
            (message, "ModelInfer")
        }
        None => (format!("{{\"name\":\"{model}\"}}"), "ModelMetadata"),
    };
    let message = quoted(&message);
    format!("grpcurl -plaintext -d {message} {address} inference.GRPCInferenceService/{call}")
}

fn example_shape(spec: &TensorSpec) -> Vec<i64> {
    let shape = spec.protocol_shape();
    shape
        .into_iter()
        .map(|size| if size < 0 { 1 } else { size })
        .collect()
}

fn grpcurl_input(spec: &TensorSpec) -> Option<String> {
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
    let (described, contents) = (described(spec), repeated(spec, element)?);
    Some(format!(
        "{described},\"contents\":{{\"{field}\":[{contents}]}}}}"
    ))
}

fn python(address: SocketAddr, version: &Version, sequence: &str) -> String {
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
        "print(c.infer(\"{}\", i{sequence}).as_numpy({output:?}))",
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
