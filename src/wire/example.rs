//! A request as people paste it into a shell: by grpcurl, by Python, and by curl.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::entry::Entry;
use crate::model::TensorSpec;
use crate::serving::Version;
use crate::tensor::elements;

/// An example with more elements than this is more to paste than to read.
const MOST_EXAMPLE: usize = 64;
/// Parameters that tritonclient has names of its own for.
const NAMED: [&str; 5] = [
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
];

/// A request as REST's JSON has it, with tensors as JSON.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PlainRequest {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    inputs: Vec<PlainInput>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct PlainInput {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    /// None where it is more than anybody pastes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Vec<Value>>,
}

/// The same in Protobuf's JSON.
#[derive(Serialize)]
struct Message<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    parameters: Map<String, Value>,
    inputs: Vec<MessageInput<'a>>,
}

#[derive(Serialize)]
struct MessageInput<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [i64],
    contents: Map<String, Value>,
}

/// Whom an example asks.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Host and port of gRPC.
    pub grpc: &'a str,
    /// Host and port of REST.
    pub rest: &'a str,
    /// What it takes to be let in.
    pub entry: &'a Entry,
    /// The version, whose first output is printed.
    pub version: &'a Version,
    /// Whether it is asked by its number, and not as the newest.
    pub by_number: bool,
}

/// One request in three forms, each a line.
#[derive(Clone, Debug, Serialize)]
pub struct Examples {
    /// By grpcurl; asks for the metadata where grpcurl has no form for the tensors.
    pub grpcurl: String,
    /// By Python with tritonclient; ones where there are no elements.
    pub python: String,
    /// By curl; asks for the metadata where there are no elements.
    pub curl: String,
}

/// Where it is asked, and how one is let in.
type At<'a> = (&'a Entry, &'a str);
/// A model, and the number of a version if that is asked.
type Asked<'a> = (&'a str, Option<u64>);

impl PlainRequest {
    /// A first request: ones, or "hello", in the smallest shape, as a sequence of its own.
    pub fn first(version: &Version) -> Self {
        let sequence = json!({"sequence_id": 1, "sequence_start": true, "sequence_end": true});
        let parameters = match (&version.policy.sequence, sequence) {
            (Some(_), Value::Object(sequence)) => sequence,
            _ => Map::new(),
        };
        Self {
            id: String::new(),
            parameters,
            inputs: version
                .signature
                .inputs
                .iter()
                .map(PlainInput::first)
                .collect(),
        }
    }

    /// The same request in three forms.
    pub fn examples(&self, place: Place<'_>) -> Examples {
        let id = &place.version.id;
        let number = place.by_number.then_some(id.version);
        let first = place.version.signature.outputs.first();
        let output = first.map_or("", |spec| spec.name.as_str());
        Examples {
            grpcurl: self.grpcurl((place.entry, place.grpc), (&id.model, number)),
            python: self.python((place.entry, place.grpc), (&id.model, number), output),
            curl: self.curl((place.entry, place.rest), (&id.model, number)),
        }
    }

    fn curl(&self, (entry, address): At<'_>, (model, number): Asked<'_>) -> String {
        let version = number.map_or(String::new(), |number| format!("/versions/{number}"));
        let asks = format!("{}/v2/models/{model}{version}", entry.curl(address));
        let whole = self.inputs.iter().all(|input| input.data.is_some());
        match serde_json::to_string(self) {
            Ok(body) if whole => format!("{asks}/infer -d {}", quoted(&body)),
            _ => asks,
        }
    }

    fn grpcurl(&self, (entry, address): At<'_>, (model, number): Asked<'_>) -> String {
        let inputs: Option<Vec<_>> = self.inputs.iter().map(PlainInput::message).collect();
        let (message, call) = match inputs {
            Some(inputs) => {
                let message = Message {
                    model_name: model,
                    model_version: number.map(|number| number.to_string()),
                    id: &self.id,
                    parameters: self
                        .parameters
                        .iter()
                        .map(|(name, value)| (name.clone(), choice(value)))
                        .collect(),
                    inputs,
                };
                (
                    serde_json::to_string(&message).unwrap_or_default(),
                    "ModelInfer",
                )
            }
            None => (json!({"name": model}).to_string(), "ModelMetadata"),
        };
        let message = quoted(&message);
        let grpcurl = entry.grpcurl(address);
        format!("{grpcurl} -d {message} {address} inference.GRPCInferenceService/{call}")
    }

    fn python(&self, (entry, address): At<'_>, (model, number): Asked<'_>, output: &str) -> String {
        let mut code = format!(
            "import os, numpy as np, tritonclient.grpc as t; c = t.InferenceServerClient({}{}); i = []; ",
            text(address),
            entry.python(address)
        );
        for input in &self.inputs {
            code.push_str(&input.python());
        }
        let (model, output) = (text(model), text(output));
        let number = number.map(|number| format!(", model_version=\"{number}\""));
        let keywords = number.unwrap_or_default() + &self.keywords() + entry.python_call();
        code.push_str(&format!(
            "print(c.infer({model}, i{keywords}).as_numpy({output}))"
        ));
        format!("python3 -c {}", quoted(&code))
    }

    /// What tritonclient's `infer` is told beside the inputs.
    fn keywords(&self) -> String {
        let mut keywords = String::new();
        if !self.id.is_empty() {
            keywords.push_str(&format!(", request_id={}", text(&self.id)));
        }
        let mut others = Vec::new();
        for (name, value) in &self.parameters {
            let value = literal(value);
            match NAMED.contains(&name.as_str()) {
                true => keywords.push_str(&format!(", {name}={value}")),
                false => others.push(format!("{}: {value}", text(name))),
            }
        }
        if !others.is_empty() {
            keywords.push_str(&format!(", parameters={{{}}}", others.join(", ")));
        }
        keywords
    }
}

impl PlainInput {
    fn first(spec: &TensorSpec) -> Self {
        let shape = spec.protocol_shape().into_iter();
        let shape: Vec<i64> = shape.map(|size| if size < 0 { 1 } else { size }).collect();
        let element = match spec.dtype.name() {
            "BOOL" => json!(true),
            "BYTES" => json!("hello"),
            _ => json!(1),
        };
        let count = elements(&shape).filter(|count| *count <= MOST_EXAMPLE);
        Self {
            name: spec.name.clone(),
            datatype: spec.dtype.name().to_owned(),
            shape,
            data: count.map(|count| vec![element; count]),
        }
    }

    /// Its elements, however the lists are nested.
    fn elements(&self) -> Option<Vec<&Value>> {
        let mut flat = Vec::new();
        self.data
            .as_ref()?
            .iter()
            .for_each(|value| flatten(value, &mut flat));
        Some(flat)
    }

    /// In grpcurl's JSON; none if that has no form for it.
    fn message(&self) -> Option<MessageInput<'_>> {
        let field = match self.datatype.as_str() {
            "BOOL" => "bool_contents",
            "UINT8" | "UINT16" | "UINT32" => "uint_contents",
            "UINT64" => "uint64_contents",
            "INT8" | "INT16" | "INT32" => "int_contents",
            "INT64" => "int64_contents",
            "FP32" => "fp32_contents",
            "FP64" => "fp64_contents",
            "BYTES" => "bytes_contents",
            // Only as they are in memory.
            _ => return None,
        };
        let elements = self.elements()?.into_iter();
        // Protobuf's JSON has bytes in base64.
        let contents: Vec<Value> = elements
            .map(|element| match element.as_str() {
                Some(text) if self.datatype == "BYTES" => BASE64_STANDARD.encode(text).into(),
                _ => element.clone(),
            })
            .collect();
        Some(MessageInput {
            name: &self.name,
            datatype: &self.datatype,
            shape: &self.shape,
            contents: Map::from_iter([(field.to_owned(), contents.into())]),
        })
    }

    fn python(&self) -> String {
        let (name, shape, datatype) = (text(&self.name), &self.shape, text(&self.datatype));
        let array = match (self.elements(), self.datatype.as_str()) {
            (None, "BYTES") => format!("np.full({shape:?}, \"hello\", object)"),
            (Some(elements), "BYTES") => {
                format!("np.array({}, object).reshape({shape:?})", listed(&elements))
            }
            (Some(elements), _) if !elements.iter().all(|one| is_one(one)) => format!(
                "np.array({}, t.triton_to_np_dtype({datatype})).reshape({shape:?})",
                listed(&elements)
            ),
            _ => format!("np.ones({shape:?}, t.triton_to_np_dtype({datatype}))"),
        };
        format!(
            "x = t.InferInput({name}, {shape:?}, {datatype}); x.set_data_from_numpy({array}); i.append(x); "
        )
    }
}

fn flatten<'a>(value: &'a Value, flat: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, flat)),
        value => flat.push(value),
    }
}

fn is_one(value: &Value) -> bool {
    value.as_f64() == Some(1.0) || value.as_bool() == Some(true)
}

/// A parameter in Protobuf's JSON.
fn choice(value: &Value) -> Value {
    match value {
        Value::Bool(_) => json!({"bool_param": value}),
        Value::Number(number) if number.is_f64() => json!({"double_param": value}),
        Value::Number(_) => json!({"int64_param": value}),
        _ => json!({"string_param": value}),
    }
}

fn listed(elements: &[&Value]) -> String {
    let elements: Vec<String> = elements.iter().map(|element| literal(element)).collect();
    format!("[{}]", elements.join(", "))
}

/// In Python.
fn literal(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Null => "None".to_owned(),
        value => value.to_string(),
    }
}

/// A string in Python, which reads JSON's.
pub(super) fn text(text: &str) -> String {
    Value::from(text).to_string()
}

/// One word to a shell, whatever the names in a model's file are.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEWEST: Asked<'_> = ("m", None);

    fn request(body: &Value) -> PlainRequest {
        serde_json::from_value(body.clone()).unwrap()
    }

    #[test]
    fn a_shell_reads_one_word() {
        let hostile = "it's; $(date) `date` \" \\ ";
        let line = format!("printf %s {}", quoted(hostile));
        let shell = std::process::Command::new("sh")
            .args(["-c", &line])
            .output();
        assert_eq!(shell.unwrap().stdout, hostile.as_bytes());
    }

    #[test]
    fn one_request_in_three_forms() {
        let asked = request(&json!({
            "id": "it's", "parameters": {"priority": 2, "why": "so", "dry": true},
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [[0.5], [2]]},
                {"name": "s", "datatype": "BYTES", "shape": [1], "data": ["é"]},
                {"name": "ones", "datatype": "INT64", "shape": [2], "data": [1, 1]},
            ],
        }));
        assert_eq!(
            asked.curl((&Entry::default(), "h:1"), NEWEST),
            r#"curl -s http://h:1/v2/models/m/infer -d '{"id":"it'\''s","parameters":{"dry":true,"priority":2,"why":"so"},"inputs":[{"name":"x","datatype":"FP32","shape":[2,1],"data":[[0.5],[2]]},{"name":"s","datatype":"BYTES","shape":[1],"data":["é"]},{"name":"ones","datatype":"INT64","shape":[2],"data":[1,1]}]}'"#
        );
        let line = asked.grpcurl((&Entry::default(), "h:2"), NEWEST);
        let message = line.replace(r"'\''", "'");
        let message = message.strip_prefix("grpcurl -plaintext -d '").unwrap();
        let message = message.strip_suffix("' h:2 inference.GRPCInferenceService/ModelInfer");
        let message: Value = serde_json::from_str(message.unwrap()).unwrap();
        let expected = json!({
            "model_name": "m", "id": "it's",
            "parameters": {"priority": {"int64_param": 2}, "why": {"string_param": "so"},
                           "dry": {"bool_param": true}},
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [2, 1],
                 "contents": {"fp32_contents": [0.5, 2]}},
                {"name": "s", "datatype": "BYTES", "shape": [1],
                 "contents": {"bytes_contents": ["w6k="]}},
                {"name": "ones", "datatype": "INT64", "shape": [2],
                 "contents": {"int64_contents": [1, 1]}},
            ],
        });
        assert_eq!(message, expected);
        let python = asked.python((&Entry::default(), "h:2"), NEWEST, "y");
        for part in [
            r#"np.array([0.5, 2], t.triton_to_np_dtype("FP32")).reshape([2, 1])"#,
            r#"np.array(["é"], object).reshape([1])"#,
            r#"np.ones([2], t.triton_to_np_dtype("INT64"))"#,
            r#"c.infer("m", i, request_id="it'\''s", priority=2, parameters={"dry": True, "why": "so"}).as_numpy("y")"#,
        ] {
            assert!(python.contains(part), "{part}\n{python}");
        }
    }

    #[test]
    fn what_has_no_form_asks_for_the_metadata() {
        let half =
            json!({"inputs": [{"name": "x", "datatype": "FP16", "shape": [1], "data": [1]}]});
        let metadata = r#"grpcurl -plaintext -d '{"name":"m"}' h inference.GRPCInferenceService/ModelMetadata"#;
        assert_eq!(
            request(&half).grpcurl((&Entry::default(), "h"), NEWEST),
            metadata
        );
        let large = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [999]}]});
        assert_eq!(
            request(&large).grpcurl((&Entry::default(), "h"), NEWEST),
            metadata
        );
        assert_eq!(
            request(&large).curl((&Entry::default(), "h"), NEWEST),
            "curl -s http://h/v2/models/m"
        );
        let third = request(&half).python((&Entry::default(), "h"), ("m", Some(3)), "y");
        assert!(
            third.contains(r#"c.infer("m", i, model_version="3")"#),
            "{third}"
        );
        let ones = r#"np.ones([999], t.triton_to_np_dtype("FP32"))"#;
        assert!(
            request(&large)
                .python((&Entry::default(), "h"), NEWEST, "y")
                .contains(ones)
        );
    }
}
