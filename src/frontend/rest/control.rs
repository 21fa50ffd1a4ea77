//! Every route but inference: health, metadata, statistics, the repository.

use std::collections::HashMap;

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::{Refusal, document, error, field, plain, read_message};
use super::receive::{held, receive};
use super::{Answer, Named, Rest, Served};
use crate::proto::*;
use crate::status::Status;

/// The document that describes the routes.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn server_live() -> Answer {
    let said = ServerLiveResponse { live: true };
    document("inference.ServerLiveResponse", &said)
}

pub(super) async fn server_ready(State(rest): State<Rest>) -> Answer {
    #[derive(Serialize)]
    struct ServerReady {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    let ready = rest.api.server_ready().ready;
    let said = ServerReady {
        ready,
        reason: (!ready).then(|| rest.api.why_not_ready(rest.health_tells_all)),
    };
    Ok((readiness(ready), plain(&said)).into_response())
}

pub(super) async fn model_ready(State(rest): State<Rest>, named: Named) -> Answer {
    #[derive(Serialize)]
    struct ModelReady {
        name: String,
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    }
    let asked = ModelReadyRequest {
        name: named.model,
        version: named.version,
    };
    let ready = rest.api.model_ready(&asked).ready;
    let reason = match ready {
        true => None,
        false if rest.health_tells_all => rest.api.why_no_answer(&asked.name, &asked.version)?,
        false => rest.api.where_it_stands(&asked.name, &asked.version)?,
    };
    let said = ModelReady {
        name: asked.name,
        ready,
        reason,
    };
    Ok((readiness(ready), plain(&said)).into_response())
}

fn readiness(ready: bool) -> StatusCode {
    match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

pub(super) async fn server_metadata(State(rest): State<Rest>) -> Answer {
    let said = rest.api.server_metadata();
    document("inference.ServerMetadataResponse", &said)
}

pub(super) async fn model_metadata(State(rest): State<Rest>, named: Named) -> Answer {
    let said = rest.api.model_metadata(&ModelMetadataRequest {
        name: named.model,
        version: named.version,
    })?;
    document("inference.ModelMetadataResponse", &said)
}

pub(super) async fn model_config(State(rest): State<Rest>, named: Named) -> Answer {
    let said = rest.api.model_config(&ModelConfigRequest {
        name: named.model,
        version: named.version,
    })?;
    document("inference.ModelConfig", &said.config.unwrap_or_default())
}

pub(super) async fn statistics(State(rest): State<Rest>) -> Answer {
    let said = rest
        .api
        .model_statistics(&ModelStatisticsRequest::default())?;
    document("inference.ModelStatisticsResponse", &said)
}

pub(super) async fn model_statistics(State(rest): State<Rest>, named: Named) -> Answer {
    let said = rest.api.model_statistics(&ModelStatisticsRequest {
        name: named.model,
        version: named.version,
    })?;
    document("inference.ModelStatisticsResponse", &said)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Index {
    ready: bool,
}

pub(super) async fn repository_index(State(rest): State<Rest>, request: Request) -> Answer {
    let index: Index = rest.read(request).await?;
    let asked = RepositoryIndexRequest {
        ready: index.ready,
        ..RepositoryIndexRequest::default()
    };
    let said = rest.api.repository_index(asked).await?;
    field("inference.RepositoryIndexResponse", &said, "models")
}

/// The body of a load or unload.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Change {
    parameters: Map<String, Value>,
}

impl Change {
    fn into_parameters(self) -> Result<HashMap<String, ModelRepositoryParameter>, Status> {
        let entries = self.parameters.into_iter();
        entries
            .map(|(name, value)| Ok((name.clone(), parameter(&name, value)?)))
            .collect()
    }
}

/// A parameter as gRPC has it: the bytes of a file are in base64 here.
fn parameter(name: &str, value: Value) -> Result<ModelRepositoryParameter, Status> {
    let kind = match &value {
        Value::Bool(_) => "bool_param",
        Value::Number(_) => "int64_param",
        Value::String(_) if name.starts_with("file:") => "bytes_param",
        _ => "string_param",
    };
    let entry = Value::Object(Map::from_iter([(kind.to_owned(), value)]));
    read_message("inference.ModelRepositoryParameter", entry).map_err(|error| {
        let name: String = name.chars().take(64).collect();
        Status::invalid(format!("parameter {name:?}: {error}"))
    })
}

pub(super) async fn load(State(rest): State<Rest>, named: Named, request: Request) -> Answer {
    // Files may come with it.
    let most = rest.limits.max_message_bytes;
    let change: Change = rest.read_most(request, most).await?;
    let asked = RepositoryModelLoadRequest {
        model_name: named.model,
        parameters: change.into_parameters()?,
        ..RepositoryModelLoadRequest::default()
    };
    let said = rest.api.repository_model_load(asked).await?;
    document("inference.RepositoryModelLoadResponse", &said)
}

pub(super) async fn unload(State(rest): State<Rest>, named: Named, request: Request) -> Answer {
    let change: Change = rest.read(request).await?;
    let asked = RepositoryModelUnloadRequest {
        model_name: named.model,
        parameters: change.into_parameters()?,
        ..RepositoryModelUnloadRequest::default()
    };
    let said = rest.api.repository_model_unload(asked).await?;
    document("inference.RepositoryModelUnloadResponse", &said)
}

/// What a body of the other routes takes at most; none of them says much.
const MOST: usize = 64 * 1024;

impl Served {
    /// Reads the JSON of a body; an empty one is as good as `{}`.
    pub(super) async fn read<T: Default + for<'de> Deserialize<'de>>(
        &self,
        request: Request,
    ) -> Result<T, Status> {
        let most = MOST.min(self.limits.max_message_bytes);
        self.read_most(request, most).await
    }

    async fn read_most<T: Default + for<'de> Deserialize<'de>>(
        &self,
        request: Request,
        most: usize,
    ) -> Result<T, Status> {
        let (parts, body) = request.into_parts();
        let held = held(&parts.extensions)?;
        let json = receive(&parts.headers, body, &held, most).await?.json;
        if json.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&json)
            .map_err(|error| Status::invalid(format!("the request's JSON: {error}")))
    }
}

pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

pub(super) async fn no_route(request: Request) -> Refusal {
    let path: String = request.uri().path().chars().take(64).collect();
    Refusal(Status::not_found(format!(
        "there is no route {path:?}; /v2/openapi.json describes those that there are"
    )))
}

/// The header Allow, with the methods that there are, is axum's.
pub(super) async fn method_not_allowed(method: Method) -> Response {
    let told = format!("this route is not asked by {method}; the header Allow says how it is");
    let mut answer = error(&Status::invalid(told));
    *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    answer
}
