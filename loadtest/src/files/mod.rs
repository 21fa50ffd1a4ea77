//! What requests are filled with and what answers should be, where it is not made up or asked: NumPy
//! arrays, JSON bodies of V2, lines of text.

mod json;
mod npy;

pub(crate) use json::tensor;

use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::proto::model_infer_request::InferInputTensor;
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{ModelInferRequest, ModelInferResponse, ModelMetadataResponse};

/// No file is larger, nor what an `.npz` file unpacks to.
const MOST_BYTES: u64 = 1 << 30;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) data: Bytes,
}

/// The requests that a file holds, for a model. Its name says how it is read: `.json` a body of V2's REST
/// protocol or a list of them; `.npy` an array whose first dimension are the rows of as many requests,
/// `.npz` such an array for each input; anything else text, a line a request.
pub(crate) fn read(
    file: &Path,
    metadata: &ModelMetadataResponse,
    rows: usize,
) -> anyhow::Result<Vec<ModelInferRequest>> {
    let all = tensors(file, "inputs", &metadata.inputs, rows);
    let all = all.with_context(|| file.display().to_string())?;
    Ok(all.into_iter().map(request).collect())
}

/// The answers that a file holds, in the same forms.
pub(crate) fn read_answers(
    file: &Path,
    metadata: &ModelMetadataResponse,
    rows: usize,
) -> anyhow::Result<Vec<ModelInferResponse>> {
    let all = tensors(file, "outputs", &metadata.outputs, rows);
    let all = all.with_context(|| file.display().to_string())?;
    Ok(all.into_iter().map(answer).collect())
}

/// The tensors of each request or answer.
fn tensors(
    file: &Path,
    what: &str,
    metadata: &[TensorMetadata],
    rows: usize,
) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let length = fs::metadata(file)?.len();
    ensure!(
        length <= MOST_BYTES,
        "is {length} bytes long; allowed: {MOST_BYTES}"
    );
    let bytes = fs::read(file)?;
    let all = match file.extension().and_then(|kind| kind.to_str()) {
        Some("json") => json::bodies(&bytes, what)?,
        Some("npy") => {
            let only = only(what, metadata)?;
            let array = npy::Array::read(&bytes)?;
            pieces(vec![(only.name.clone(), array)], metadata, rows)?
        }
        Some("npz") => pieces(unpacked(&bytes)?, metadata, rows)?,
        _ => lines(&bytes, only(what, metadata)?)?,
    };
    ensure!(!all.is_empty(), "holds nothing");
    Ok(all)
}

fn request(tensors: Vec<Tensor>) -> ModelInferRequest {
    let mut request = ModelInferRequest::default();
    for tensor in tensors {
        request.raw_input_contents.push(tensor.data);
        request.inputs.push(InferInputTensor {
            name: tensor.name,
            datatype: tensor.datatype,
            shape: tensor.shape,
            ..InferInputTensor::default()
        });
    }
    request
}

/// An answer with these outputs.
pub(crate) fn answer(tensors: Vec<Tensor>) -> ModelInferResponse {
    let mut answer = ModelInferResponse::default();
    for tensor in tensors {
        answer.raw_output_contents.push(tensor.data);
        answer.outputs.push(InferOutputTensor {
            name: tensor.name,
            datatype: tensor.datatype,
            shape: tensor.shape,
            ..InferOutputTensor::default()
        });
    }
    answer
}

/// The model's one input or output.
fn only<'m>(what: &str, metadata: &'m [TensorMetadata]) -> anyhow::Result<&'m TensorMetadata> {
    match metadata {
        [only] => Ok(only),
        all => bail!(
            "the model has {} {what}, where the file says one; .npz and .json files name them",
            all.len()
        ),
    }
}

/// The arrays of an `.npz` file, which is a ZIP archive of `.npy` files.
fn unpacked(bytes: &[u8]) -> anyhow::Result<Vec<(String, npy::Array)>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).context("is no .npz file")?;
    let mut arrays = Vec::new();
    let mut left = MOST_BYTES;
    for place in 0..archive.len() {
        let entry = archive.by_index(place)?;
        let file = entry.name().to_owned();
        let name = file.strip_suffix(".npy").unwrap_or(&file).to_owned();
        let mut array = Vec::new();
        // What the entry says of its size may be wrong.
        entry.take(left + 1).read_to_end(&mut array)?;
        left = left
            .checked_sub(array.len() as u64)
            .with_context(|| format!("unpacks to more than {MOST_BYTES} bytes"))?;
        let array = npy::Array::read(&array).with_context(|| name.clone())?;
        arrays.push((name, array));
    }
    Ok(arrays)
}

/// So many rows of each array for each request or answer, as far as they go.
fn pieces(
    arrays: Vec<(String, npy::Array)>,
    metadata: &[TensorMetadata],
    rows: usize,
) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let mut all: Option<Vec<Vec<Tensor>>> = None;
    for (name, array) in arrays {
        let declared = metadata.iter().find(|one| one.name == name);
        let declared = declared.with_context(|| format!("the model has no {name}"))?;
        if array.datatype != declared.datatype {
            bail!(
                "holds {}, where {name} is {}",
                array.datatype,
                declared.datatype
            );
        }
        let cut = cut(&name, &array, rows)?;
        match &mut all {
            None => all = Some(cut.into_iter().map(|one| vec![one]).collect()),
            Some(all) if all.len() == cut.len() => {
                all.iter_mut().zip(cut).for_each(|(all, one)| all.push(one));
            }
            Some(all) => bail!(
                "{name} has rows for {}, others for {}",
                cut.len(),
                all.len()
            ),
        }
    }
    Ok(all.unwrap_or_default())
}

fn cut(name: &str, array: &npy::Array, rows: usize) -> anyhow::Result<Vec<Tensor>> {
    let Some((all, rest)) = array.shape.split_first().filter(|(all, _)| **all > 0) else {
        bail!("{name} is a single number or has no row");
    };
    let row = array.data.len() / usize::try_from(*all)?;
    let shape: Vec<i64> = [i64::try_from(rows)?]
        .into_iter()
        .chain(rest.iter().copied())
        .collect();
    let pieces = (0..usize::try_from(*all)? / rows.max(1)).map(|number| {
        let start = number * rows * row;
        Tensor {
            name: name.to_owned(),
            datatype: array.datatype.clone(),
            shape: shape.clone(),
            data: array.data.slice(start..start + rows * row),
        }
    });
    Ok(pieces.collect())
}

/// One element of BYTES for each line.
fn lines(bytes: &[u8], only: &TensorMetadata) -> anyhow::Result<Vec<Vec<Tensor>>> {
    ensure!(
        only.datatype == "BYTES",
        "text was found, where {} takes {}",
        only.name,
        only.datatype
    );
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let tensors = lines.filter(|line| !line.is_empty()).map(|line| {
        let mut data = Vec::new();
        append(&mut data, line)?;
        Ok(vec![Tensor {
            name: only.name.clone(),
            datatype: "BYTES".to_owned(),
            shape: vec![1; only.shape.len()],
            data: data.into(),
        }])
    });
    tensors.collect()
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
        assert!(format!("{error:#}").contains("holds nothing"), "{error:#}");
        assert!(read(Path::new("not/there"), &model("BYTES", &[-1]), 1).is_err());
    }

    fn packed(method: zip::CompressionMethod, entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        use std::io::Write;
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for (name, content) in entries {
            archive.start_file(*name, options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    #[test]
    fn an_archive_has_an_array_for_each_input() {
        let mut model = model("UINT8", &[-1, 2]);
        model.inputs.push(TensorMetadata {
            name: "y".to_owned(),
            datatype: "INT16".to_owned(),
            shape: vec![-1],
        });
        let entries = [
            ("x.npy", npy::written("|u1", "(2, 2)", &[1, 2, 3, 4])),
            ("y.npy", npy::written("<i2", "(2,)", &[5, 0, 6, 0])),
        ];
        for method in [
            zip::CompressionMethod::Stored,
            zip::CompressionMethod::Deflated,
        ] {
            let (_folder, file) = written("x.npz", &packed(method, &entries));
            let requests = read(&file, &model, 1).unwrap();
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[1].inputs[1].name, "y");
            assert_eq!(requests[1].raw_input_contents[0], [3, 4][..]);
            assert_eq!(requests[1].raw_input_contents[1], [6, 0][..]);
        }
        let short = [
            entries[0].clone(),
            ("y.npy", npy::written("<i2", "(1,)", &[5, 0])),
        ];
        let (_folder, file) = written("x.npz", &packed(zip::CompressionMethod::Stored, &short));
        let error = read(&file, &model, 1).unwrap_err();
        assert!(
            format!("{error:#}").contains("y has rows for 1"),
            "{error:#}"
        );
        let (_folder, file) = written("x.npz", b"no archive");
        assert!(read(&file, &model, 1).is_err());
    }

    #[test]
    fn answers_are_read_like_requests() {
        let mut model = model("UINT8", &[-1]);
        model.outputs = vec![TensorMetadata {
            name: "z".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![-1],
        }];
        let text = br#"[{"outputs":[{"name":"z","datatype":"FP32","shape":[1],"data":[0.5]}]}]"#;
        let (_folder, file) = written("z.json", text);
        let answers = read_answers(&file, &model, 1).unwrap();
        assert_eq!(answers[0].outputs[0].name, "z");
        assert_eq!(answers[0].raw_output_contents[0], 0.5_f32.to_le_bytes()[..]);
        let (_folder, file) = written("z.npy", &npy::written("<f4", "(2,)", &[0; 8]));
        assert_eq!(read_answers(&file, &model, 1).unwrap().len(), 2);
    }
}
