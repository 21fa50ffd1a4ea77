//! A body to the server's own request.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bounded::Bounded;
use super::elements::{Elements, decode};
use super::parameters::Parameters;
use super::words::quoted;
use crate::serving::{InferRequest, NamedTensor};
use crate::status::Status;
use crate::tensor::{Dtype, Shape, Tensor, elements};
use crate::wire::outline::{MOST_DIMENSIONS, MOST_TENSORS};
use crate::wire::request::{Asked, asked, dtype, refuse_parameters};
use crate::wire::tensor_parameters::{Regions, hear_output, region};

/// A request, and how its answer is to be written.
#[derive(Debug)]
pub struct RestAsked {
    /// The request.
    pub asked: Asked,
    /// Which outputs are to follow the answer's JSON as they are.
    pub binary: Binary,
}

/// Which outputs are to be written as they are rather than as JSON.
#[derive(Debug, Default)]
pub struct Binary {
    /// For each output that was asked for, in this order; empty if none was.
    outputs: Vec<bool>,
    /// For all of them where none was asked for.
    all: bool,
}

impl Binary {
    /// Whether the output at this place of the answer is.
    pub(super) fn is(&self, position: usize) -> bool {
        self.outputs.get(position).copied().unwrap_or(self.all)
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Bounded<Input<'a>, MOST_TENSORS>,
    outputs: Option<Bounded<Output, MOST_TENSORS>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Bounded<i64, MOST_DIMENSIONS>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
    // Elements can be read once the datatype is known, which may come later.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Decodes a request for a model: its JSON, and the tensors that followed it, which the request
/// shares. An empty version is the newest.
pub fn infer_request(
    model: &str,
    version: &str,
    json: &[u8],
    tensors: Bytes,
) -> Result<RestAsked, Status> {
    let about = |status: Status| status.about(format_args!("model {model:?}"));
    let spelled;
    let document: Document<'_> = match serde_json::from_slice(json) {
        Ok(document) => document,
        Err(error) => {
            let unread = |error| about(Status::invalid(format!("the request's JSON: {error}")));
            // Words for infinite numbers are rare, and no JSON: only what cannot be read has them.
            spelled = quoted(json).ok_or_else(|| unread(error))?;
            serde_json::from_slice(&spelled).map_err(unread)?
        }
    };
    let mut parameters = document.parameters;
    let all = parameters.take_bool("binary_data_output").unwrap_or(false);
    let mut binary = Binary {
        outputs: Vec::new(),
        all,
    };
    let mut regions = Regions::default();
    let mut request = InferRequest {
        version: version.to_owned(),
        id: document.id.unwrap_or_default(),
        inputs: inputs(document.inputs.0, tensors, &mut regions).map_err(about)?,
        ..InferRequest::default()
    };
    let wanted = document.outputs.unwrap_or_default();
    for (position, mut output) in wanted.0.into_iter().enumerate() {
        let wanted = output.parameters.take_bool("binary_data");
        binary.outputs.push(wanted.unwrap_or(all));
        let parameters = &output.parameters.0;
        hear_output(
            position,
            &output.name,
            parameters,
            &mut request,
            &mut regions,
        )
        .map_err(about)?;
        request.outputs.push(output.name);
    }
    let mut asked = asked(request, &parameters.0).map_err(about)?;
    model.clone_into(&mut asked.request.model);
    asked.regions = regions;
    Ok(RestAsked { asked, binary })
}

fn inputs(
    inputs: Vec<Input<'_>>,
    mut tensors: Bytes,
    regions: &mut Regions,
) -> Result<Vec<NamedTensor>, Status> {
    let mut named = Vec::with_capacity(inputs.len());
    for (position, mut one) in inputs.into_iter().enumerate() {
        let part = region(&one.parameters.0)
            .map_err(|wrong| wrong.about(format_args!("input {:?}", one.name)))?;
        if let Some(part) = part {
            regions.inputs.push((position, part));
            named.push(shared(one)?);
        } else {
            let size = one.parameters.take_size("binary_data_size");
            named.push(input(one, size, &mut tensors)?);
        }
    }
    if !tensors.is_empty() {
        return Err(Status::invalid(format!(
            "{} bytes are left after the last tensor; binary_data_size says how long each is",
            tensors.len()
        )));
    }
    Ok(named)
}

/// One input that lies in shared memory: its contents are read from there later.
fn shared(input: Input<'_>) -> Result<NamedTensor, Status> {
    if input.data.is_some() {
        return Err(Status::invalid(format!(
            "input {:?} has data and a shared memory region; send one of them",
            input.name
        )));
    }
    refuse_parameters(&input.parameters.0)?;
    Ok(NamedTensor {
        tensor: Tensor {
            dtype: dtype(&input.name, &input.datatype)?,
            shape: Shape::new(&input.shape.0),
            data: Bytes::new(),
        },
        name: input.name,
    })
}

/// One input: from its JSON, or from the front of the tensors.
fn input(
    input: Input<'_>,
    size: Option<usize>,
    tensors: &mut Bytes,
) -> Result<NamedTensor, Status> {
    refuse_parameters(&input.parameters.0)?;
    let name = input.name;
    let dtype = dtype(&name, &input.datatype)?;
    let data = match (input.data, size) {
        (Some(json), None) => from_json(dtype, json.get(), &input.shape.0)
            .map_err(|told| Status::invalid(format!("input {name:?}: data: {told}")))?,
        (None, Some(size)) if size <= tensors.len() => tensors.split_to(size),
        (None, Some(size)) => {
            return Err(Status::invalid(format!(
                "input {name:?}: binary_data_size is {size} where {} bytes are left; \
                 Inference-Header-Content-Length says where the JSON ends",
                tensors.len()
            )));
        }
        (Some(_), Some(_)) => {
            return Err(Status::invalid(format!(
                "input {name:?} has data and binary_data_size; send one of them"
            )));
        }
        (None, None) => {
            return Err(Status::invalid(format!(
                "input {name:?} has no data and no binary_data_size"
            )));
        }
    };
    Ok(NamedTensor {
        tensor: Tensor {
            dtype,
            shape: Shape::new(&input.shape.0),
            data,
        },
        name,
    })
}

fn from_json(dtype: Dtype, json: &str, shape: &[i64]) -> Result<Bytes, String> {
    let expected = elements(shape);
    let Elements { raw, count } = decode(dtype, json, expected)?;
    match expected {
        // A shape that counts nothing is told with the model's own.
        Some(expected) if expected != count => Err(format!(
            "{count} elements, where the shape {shape:?} has {expected}"
        )),
        _ => Ok(raw.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;
    use proptest::prelude::*;

    fn read(json: &str, tensors: &'static [u8]) -> Result<RestAsked, Status> {
        infer_request("m", "", json.as_bytes(), Bytes::from_static(tensors))
    }

    #[test]
    fn json_and_binary_tensors_stand_side_by_side() {
        let read = read(
            r#"{"id": "7", "parameters": {"priority": 2, "binary_data_output": true},
                "inputs": [
                  {"data": [[1, 2]], "name": "a", "shape": [1, 2], "datatype": "INT16"},
                  {"name": "b", "shape": [3], "datatype": "UINT8",
                   "parameters": {"binary_data_size": 3}},
                  {"name": "c", "shape": [1], "datatype": "BYTES", "data": ["\u00e9"], "x": {}}],
                "outputs": [{"name": "y", "parameters": {"binary_data": false}}, {"name": "z"}]}"#,
            b"xyz",
        )
        .unwrap();
        let request = &read.asked.request;
        assert_eq!((request.id.as_str(), request.priority), ("7", Some(2)));
        assert_eq!(request.outputs, ["y", "z"]);
        let data: Vec<&[u8]> = request
            .inputs
            .iter()
            .map(|one| &one.tensor.data[..])
            .collect();
        assert_eq!(data, [&[1, 0, 2, 0][..], b"xyz", "\u{2}\0\0\0é".as_bytes()]);
        assert_eq!(request.inputs[0].tensor.dtype, Dtype::Int16);
        assert!(!read.binary.is(0) && read.binary.is(1));
    }

    #[test]
    fn pythons_words_for_numbers_that_are_not_finite_are_read() {
        let json = r#"{"inputs":[{"name":"NaN","shape":[4],"datatype":"FP32",
                       "data":[NaN,-Infinity,"Infinity",1]}]}"#;
        let read = read(json, b"").unwrap();
        let [input] = &read.asked.request.inputs[..] else {
            panic!("one input")
        };
        let expected = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, 1.0];
        assert_eq!(input.tensor.data, expected.map(f32::to_le_bytes).concat());
        assert_eq!(input.name, "NaN");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, tensors, told) in [
            ("", &b""[..], "the request's JSON: EOF"),
            ("{}", b"", "missing field `inputs`"),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}"#,
                b"",
                "no data",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP31","data":[1]}]}"#,
                b"",
                "datatype \"FP31\"; there are BOOL",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[500]}]}"#,
                b"",
                "element 0 is 500",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8",
                   "parameters":{"binary_data_size":2}}]}"#,
                b"x",
                "binary_data_size is 2 where 1 bytes are left",
            ),
            (
                r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"INT8","data":[1,2,3]}]}"#,
                b"",
                "input \"x\": data: 3 elements, where the shape [1, 2] has 2",
            ),
            (
                r#"{"inputs":[]}"#,
                b"x",
                "1 bytes are left after the last tensor",
            ),
            (
                r#"{"inputs":[],"parameters":{"priority":[1]}}"#,
                b"",
                "expected a parameter",
            ),
        ] {
            let status = read(json, tensors).unwrap_err();
            assert_eq!(status.code, Code::InvalidArgument);
            assert!(status.message.contains(told), "{}", status.message);
        }
        let size = r#"{"inputs":[],"parameters":{"binary_data_size":3}}"#;
        assert_eq!(read(size, b"").unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn arrays_have_as_many_as_are_taken_and_no_more() {
        let input = r#"{"name":"x","datatype":"INT8","data":[],"shape":"#;
        let document = |inputs: usize, outputs: usize, dimensions: usize| {
            let shape = vec!["0"; dimensions].join(",");
            let inputs = vec![format!("{input}[{shape}]}}"); inputs].join(",");
            let outputs = vec![r#"{"name":""}"#; outputs].join(",");
            format!(r#"{{"outputs":[{outputs}],"inputs":[{inputs}]}}"#)
        };
        let (tensors, dimensions) = (MOST_TENSORS, MOST_DIMENSIONS);
        assert!(read(&document(tensors, tensors, 1), b"").is_ok());
        assert!(read(&document(1, 0, dimensions), b"").is_ok());
        for (excess, told) in [
            (document(tensors + 1, 0, 1), "more than 4096"),
            (document(1, tensors + 1, 1), "more than 4096"),
            (document(1, 0, dimensions + 1), "more than 64"),
        ] {
            let status = read(&excess, b"").unwrap_err();
            assert_eq!(status.code, Code::InvalidArgument);
            assert!(status.message.contains(told), "{}", status.message);
        }
    }

    proptest! {
        #[test]
        fn no_body_is_a_panic(json in "[\\[\\]{}\":,a-z0-9 ]{0,64}", tensors: Vec<u8>) {
            let _ = infer_request("m", "", json.as_bytes(), Bytes::from(tensors));
        }
    }
}
