//! V2 over HTTP
//! (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>),
//! tensors as JSON or after it as they are (the binary data extension).

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};
use tonic::Code;

use crate::dtype::values;
use crate::files::{Tensor, answer, tensor};
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{
    InferBatchStatistics, InferParameter, InferStatistics, ModelInferRequest, ModelInferResponse,
    ModelMetadataResponse, ModelStatistics, StatisticDuration,
};

/// How long the JSON before the tensors is.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A server's address, and connections to it: as many as there are requests in flight.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    client: Client<HttpConnector, Full<Bytes>>,
    address: String,
}

/// A request made ready; its id comes first.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    path: String,
    /// The JSON object behind its id.
    json: Bytes,
    /// The tensors, unless they are in the JSON.
    tensors: Option<Bytes>,
}

impl Body {
    /// The request with its tensors as JSON, or after it.
    pub(crate) fn new(message: &ModelInferRequest, as_json: bool) -> anyhow::Result<Self> {
        let mut inputs = Vec::new();
        let mut tensors = BytesMut::new();
        for (input, data) in message.inputs.iter().zip(&message.raw_input_contents) {
            let mut one = json!({
                "name": input.name, "datatype": input.datatype, "shape": input.shape,
            });
            match as_json {
                true => one["data"] = values(&input.datatype, data)?,
                false => {
                    one["parameters"] = json!({ "binary_data_size": data.len() });
                    tensors.extend_from_slice(data);
                }
            }
            inputs.push(one);
        }
        let mut parameters: Map<String, Value> = message
            .parameters
            .iter()
            .map(|(name, parameter)| (name.clone(), parameter_value(parameter)))
            .collect();
        if !as_json {
            parameters.insert("binary_data_output".to_owned(), Value::Bool(true));
        }
        let document = json!({ "inputs": inputs, "parameters": parameters }).to_string();
        Ok(Self {
            path: format!(
                "{}/infer",
                path_of(&message.model_name, &message.model_version)
            ),
            json: Bytes::copy_from_slice(document.strip_prefix('{').unwrap_or_default().as_bytes()),
            tensors: (!as_json).then(|| tensors.freeze()),
        })
    }
}

fn parameter_value(parameter: &InferParameter) -> Value {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(truth)) => json!(truth),
        Some(ParameterChoice::Int64Param(number)) => json!(number),
        Some(ParameterChoice::Uint64Param(number)) => json!(number),
        Some(ParameterChoice::DoubleParam(number)) => json!(number),
        Some(ParameterChoice::StringParam(text)) => json!(text),
        None => Value::Null,
    }
}

/// Names are written into paths as they are but for what would end one.
fn path_of(model: &str, version: &str) -> String {
    let escaped = |text: &str| -> String {
        let bytes = text.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        });
        bytes.collect()
    };
    match version {
        "" => format!("/v2/models/{}", escaped(model)),
        version => format!(
            "/v2/models/{}/versions/{}",
            escaped(model),
            escaped(version)
        ),
    }
}

impl Rest {
    pub(super) fn new(address: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            address: address.to_owned(),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
        body: Bytes,
    ) -> Result<(HeaderMap, Bytes), Refused> {
        let mut request = HttpRequest::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(Refused::unsent)?;
        let answer = self.client.request(request).await;
        let (parts, body) = answer.map_err(Refused::unsent)?.into_parts();
        let body = body.collect().await.map_err(Refused::unsent)?.to_bytes();
        match parts.status.is_success() {
            true => Ok((parts.headers, body)),
            false => Err(Refused {
                code: code(parts.status),
                said: String::from_utf8_lossy(&body).into_owned(),
            }),
        }
    }

    /// The answer, or the code that goes with the status; none if it cannot be read.
    pub(super) async fn call(
        &self,
        body: &Body,
        number: u64,
    ) -> Result<Option<ModelInferResponse>, Code> {
        let mut whole = BytesMut::from(format!("{{\"id\":\"{number}\",").as_bytes());
        whole.extend_from_slice(&body.json);
        let mut headers = vec![(CONTENT_TYPE, "application/json".to_owned())];
        if let Some(tensors) = &body.tensors {
            headers = vec![
                (CONTENT_TYPE, "application/octet-stream".to_owned()),
                (HEADER_LENGTH, whole.len().to_string()),
            ];
            whole.extend_from_slice(tensors);
        }
        headers.push((CONTENT_LENGTH, whole.len().to_string()));
        let answer = self.ask(Method::POST, &body.path, &headers, whole.freeze());
        let (headers, body) = answer.await.map_err(|refused| refused.code)?;
        Ok(read(&headers, body).ok())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.ask(Method::GET, path, &[], Bytes::new()).await;
        let (_, body) = answer.map_err(|refused| anyhow::anyhow!("{path}: {}", refused.said))?;
        Ok(serde_json::from_slice(&body)?)
    }

    pub(super) async fn about(&self) -> anyhow::Result<String> {
        let about = self.get("/v2").await?;
        let text = |key: &str| about[key].as_str().unwrap_or_default().to_owned();
        Ok(format!("{} {}", text("name"), text("version")))
    }

    pub(super) async fn metadata(
        &self,
        model: &str,
        version: &str,
    ) -> anyhow::Result<ModelMetadataResponse> {
        let said = self.get(&path_of(model, version)).await?;
        let tensors = |key: &str| {
            let tensors = said[key].as_array().into_iter().flatten();
            let tensors = tensors.map(|one| TensorMetadata {
                name: one["name"].as_str().unwrap_or_default().to_owned(),
                datatype: one["datatype"].as_str().unwrap_or_default().to_owned(),
                shape: whole_numbers(&one["shape"]),
            });
            tensors.collect()
        };
        Ok(ModelMetadataResponse {
            name: model.to_owned(),
            inputs: tensors("inputs"),
            outputs: tensors("outputs"),
            ..ModelMetadataResponse::default()
        })
    }

    /// What the server has counted; nothing if it does not count.
    pub(super) async fn statistics(&self) -> Vec<ModelStatistics> {
        let said = self.get("/v2/models/stats").await.unwrap_or_default();
        let models = said["model_stats"].as_array().into_iter().flatten();
        models.map(statistics).collect()
    }

    /// `load` or `unload`.
    pub(super) async fn repository(&self, model: &str, what: &str) -> anyhow::Result<()> {
        let name = path_of(model, "");
        let name = name.strip_prefix("/v2/models/").unwrap_or_default();
        let path = format!("/v2/repository/models/{name}/{what}");
        let headers = [(CONTENT_TYPE, "application/json".to_owned())];
        let answer = self.ask(Method::POST, &path, &headers, "{}".into()).await;
        match answer {
            Ok(_) => Ok(()),
            Err(refused) => bail!("{path}: {}", refused.said),
        }
    }

    pub(super) async fn infer(
        &self,
        request: &ModelInferRequest,
    ) -> anyhow::Result<ModelInferResponse> {
        let body = Body::new(request, false)?;
        match self.call(&body, 0).await {
            Ok(answer) => answer.context("the answer cannot be read"),
            Err(code) => bail!("refused with what is {code:?} in gRPC"),
        }
    }
}

/// Why there is no answer.
struct Refused {
    code: Code,
    said: String,
}

impl Refused {
    fn unsent(error: impl std::error::Error) -> Self {
        Self {
            code: Code::Unavailable,
            said: error.to_string(),
        }
    }
}

/// gRPC's code for what a status says, so that endings have the same names over every protocol.
fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 | 413 | 415 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        500 => Code::Internal,
        501 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

fn read(headers: &HeaderMap, body: Bytes) -> anyhow::Result<ModelInferResponse> {
    let length = match headers.get(&HEADER_LENGTH) {
        Some(length) => length.to_str()?.parse()?,
        None => body.len(),
    };
    let (document, mut tensors) = body
        .split_at_checked(length)
        .context("the header is longer than the body")?;
    let document: Value = serde_json::from_slice(document)?;
    let outputs = document["outputs"].as_array().context("no outputs")?;
    let mut all = Vec::new();
    for output in outputs {
        let name = output["name"].as_str().context("an output has no name")?;
        all.push(match output["parameters"]["binary_data_size"].as_u64() {
            None => tensor(name, output)?,
            Some(size) => {
                let data = tensors.split_at_checked(usize::try_from(size)?);
                let (data, rest) = data.context("the body ends in a tensor")?;
                tensors = rest;
                Tensor {
                    name: name.to_owned(),
                    datatype: output["datatype"].as_str().unwrap_or_default().to_owned(),
                    shape: whole_numbers(&output["shape"]),
                    data: body.slice_ref(data),
                }
            }
        });
    }
    Ok(ModelInferResponse {
        id: document["id"].as_str().unwrap_or_default().to_owned(),
        ..answer(all)
    })
}

fn whole_numbers(value: &Value) -> Vec<i64> {
    let numbers = value.as_array().into_iter().flatten();
    numbers.filter_map(Value::as_i64).collect()
}

fn statistics(said: &Value) -> ModelStatistics {
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let batches = said["batch_stats"].as_array().into_iter().flatten();
    let batches = batches.map(|batch| InferBatchStatistics {
        batch_size: batch["batch_size"].as_u64().unwrap_or_default(),
        compute_infer: duration(&batch["compute_infer"]),
        ..InferBatchStatistics::default()
    });
    let inference = &said["inference_stats"];
    ModelStatistics {
        name: text("name"),
        version: text("version"),
        inference_stats: Some(InferStatistics {
            success: duration(&inference["success"]),
            queue: duration(&inference["queue"]),
            ..InferStatistics::default()
        }),
        batch_stats: batches.collect(),
        ..ModelStatistics::default()
    }
}

fn duration(said: &Value) -> Option<StatisticDuration> {
    Some(StatisticDuration {
        count: said["count"].as_u64()?,
        ns: said["ns"].as_u64().unwrap_or_default(),
    })
}
