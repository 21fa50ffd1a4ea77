//! What requests are filled with, where it is not made up: NumPy arrays, JSON bodies of V2, lines of text.

mod json;
mod npy;

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;

use crate::proto::ModelInferRequest;
use crate::proto::ModelMetadataResponse;
use crate::proto::model_infer_request::InferInputTensor;
use crate::proto::model_metadata_response::TensorMetadata;

/// No file of inputs is larger.
const MOST_BYTES: u64 = 1 << 30;

/// The requests that a file holds, for a model. Its name says how it is read: `.json` a body of V2's REST
/// protocol or a list of them; `.npy` an array whose first dimension are the rows of as many requests;
/// anything else text, a line a request.
pub(crate) fn read(
    file: &Path,
    metadata: &ModelMetadataResponse,
    rows: usize,
) -> anyhow::Result<Vec<ModelInferRequest>> {
    let failed = || format!("cannot read {}", file.display());
    let length = fs::metadata(file).with_context(failed)?.len();
    if length > MOST_BYTES {
        bail!(
            "{} is {length} bytes long; allowed: {MOST_BYTES}",
            file.display()
        );
    }
    let bytes = fs::read(file).with_context(failed)?;
    let kind = file.extension().and_then(|kind| kind.to_str());
    let requests = match kind {
        Some("json") => json::requests(&bytes),
        Some("npy") => npy::Array::read(&bytes).and_then(|array| slices(&array, metadata, rows)),
        _ => lines(&bytes, metadata),
    };
    let requests = requests.with_context(|| file.display().to_string())?;
    if requests.is_empty() {
        bail!("{} holds no request", file.display());
    }
    Ok(requests)
}

/// The model's one input.
fn only_input(metadata: &ModelMetadataResponse) -> anyhow::Result<&TensorMetadata> {
    match &metadata.inputs[..] {
        [input] => Ok(input),
        inputs => bail!(
            "{} has {} inputs, where the file fills one; a .json file names them",
            metadata.name,
            inputs.len()
        ),
    }
}

fn one(input: &TensorMetadata, datatype: &str, shape: Vec<i64>, data: Bytes) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![InferInputTensor {
            name: input.name.clone(),
            datatype: datatype.to_owned(),
            shape,
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![data],
        ..ModelInferRequest::default()
    }
}

/// Requests of so many rows each, as far as the array goes.
fn slices(
    array: &npy::Array,
    metadata: &ModelMetadataResponse,
    rows: usize,
) -> anyhow::Result<Vec<ModelInferRequest>> {
    let input = only_input(metadata)?;
    if array.datatype != input.datatype {
        bail!(
            "holds {}, where {} takes {}",
            array.datatype,
            input.name,
            input.datatype
        );
    }
    let Some((all, rest)) = array.shape.split_first().filter(|(all, _)| **all > 0) else {
        bail!("holds a single number or no row");
    };
    let row = array.data.len() / usize::try_from(*all)?;
    let shape: Vec<i64> = [i64::try_from(rows)?]
        .into_iter()
        .chain(rest.iter().copied())
        .collect();
    let chunks = (0..usize::try_from(*all)? / rows.max(1)).map(|number| {
        let start = number * rows * row;
        array.data.slice(start..start + rows * row)
    });
    Ok(chunks
        .map(|data| one(input, &array.datatype, shape.clone(), data))
        .collect())
}

/// One element of BYTES for each line.
fn lines(bytes: &[u8], metadata: &ModelMetadataResponse) -> anyhow::Result<Vec<ModelInferRequest>> {
    let input = only_input(metadata)?;
    if input.datatype != "BYTES" {
        bail!(
            "text was found, where {} takes {}",
            input.name,
            input.datatype
        );
    }
    let shape = vec![1; input.shape.len()];
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let requests = lines.filter(|line| !line.is_empty()).map(|line| {
        let mut data = Vec::new();
        append(&mut data, line)?;
        Ok(one(input, "BYTES", shape.clone(), data.into()))
    });
    requests.collect()
}

/// An element of BYTES: its length in four bytes, and itself.
fn append(data: &mut Vec<u8>, element: &[u8]) -> anyhow::Result<()> {
    data.extend(u32::try_from(element.len())?.to_le_bytes());
    data.extend(element);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(datatype: &str, shape: &[i64]) -> ModelMetadataResponse {
        ModelMetadataResponse {
            name: "m".to_owned(),
            inputs: vec![TensorMetadata {
                name: "x".to_owned(),
                datatype: datatype.to_owned(),
                shape: shape.to_vec(),
            }],
            ..ModelMetadataResponse::default()
        }
    }

    fn written(name: &str, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, content).unwrap();
        (folder, file)
    }

    #[test]
    fn each_line_is_a_request() {
        let (_folder, file) = written("words.txt", b"one\r\n\ntwo words\n");
        let requests = read(&file, &model("BYTES", &[-1, 1]), 1).unwrap();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].raw_input_contents[0], b"\x03\0\0\0one"[..]);
        assert_eq!(requests[1].inputs[0].shape, [1, 1]);
        let error = read(&file, &model("FP32", &[-1]), 1).unwrap_err();
        assert!(format!("{error:#}").contains("x takes FP32"), "{error:#}");
    }

    #[test]
    fn an_array_is_cut_into_requests() {
        let numbers: Vec<u8> = (0..10_u8).collect();
        let (_folder, file) = written("x.npy", &npy::written("|u1", "(5, 2)", &numbers));
        let requests = read(&file, &model("UINT8", &[-1, 2]), 2).unwrap();
        // The fifth row is not enough for a third request.
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[1].raw_input_contents[0], [4, 5, 6, 7][..]);
        assert_eq!(requests[1].inputs[0].shape, [2, 2]);
        let error = read(&file, &model("INT8", &[-1, 2]), 2).unwrap_err();
        assert!(format!("{error:#}").contains("holds UINT8"), "{error:#}");
    }

    #[test]
    fn what_holds_nothing_is_refused() {
        let (_folder, file) = written("empty.txt", b"\n\n");
        let error = read(&file, &model("BYTES", &[-1]), 1).unwrap_err();
        assert!(error.to_string().contains("holds no request"), "{error}");
        assert!(read(Path::new("not/there"), &model("BYTES", &[-1]), 1).is_err());
    }
}
