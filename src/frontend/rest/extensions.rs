//! Routes of the extensions: shared memory, and what is logged and traced.

use std::collections::{BTreeMap, HashMap};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Rest, Route, Served};
use crate::proto::log_settings_request::SettingValue as LogGiven;
use crate::proto::log_settings_request::setting_value::ParameterChoice as LogGivenChoice;
use crate::proto::log_settings_response::setting_value::ParameterChoice as LogSaidChoice;
use crate::proto::trace_setting_request::SettingValue as TraceGiven;
use crate::proto::*;
use crate::status::Status;

/// What a path names: a region or a model; nothing for all of them.
#[derive(Deserialize)]
pub(super) struct Target {
    #[serde(default, alias = "region", alias = "model")]
    name: String,
}

/// The routes.
#[rustfmt::skip] // a table
pub(super) fn table() -> Vec<Route> {
    vec![
        ("/v2/logging", get(logging).post(change_logging)),
        ("/v2/trace/setting", get(trace).post(change_trace)),
        ("/v2/models/{model}/trace/setting", get(trace).post(change_trace)),
        ("/v2/systemsharedmemory/status", get(system_status)),
        ("/v2/systemsharedmemory/unregister", post(system_unregister)),
        ("/v2/systemsharedmemory/region/{region}/status", get(system_status)),
        ("/v2/systemsharedmemory/region/{region}/register", post(system_register)),
        ("/v2/systemsharedmemory/region/{region}/unregister", post(system_unregister)),
        ("/v2/cudasharedmemory/status", get(cuda_status)),
        ("/v2/cudasharedmemory/unregister", post(cuda_unregister)),
        ("/v2/cudasharedmemory/region/{region}/status", get(cuda_status)),
        ("/v2/cudasharedmemory/region/{region}/register", post(cuda_register)),
        ("/v2/cudasharedmemory/region/{region}/unregister", post(cuda_unregister)),
    ]
}

type Named = Result<Path<Target>, PathRejection>;

fn written(value: Value) -> Answer {
    Ok(super::answer::json(value.to_string().into_bytes()))
}

fn name(named: Named) -> Result<String, Status> {
    let named = named.map_err(|error| Status::invalid(error.body_text()))?;
    Ok(named.0.name)
}

pub(super) async fn system_status(State(rest): State<Rest>, named: Named) -> Answer {
    let asked = SystemSharedMemoryStatusRequest { name: name(named)? };
    let said = rest.api.system_shared_memory_status(&asked)?;
    let regions: BTreeMap<_, _> = said.regions.into_iter().collect();
    let regions = regions.into_values().map(|region| {
        json!({
            "name": region.name,
            "key": region.key,
            "offset": region.offset,
            "byte_size": region.byte_size,
        })
    });
    written(regions.collect())
}

/// The body of a registration of system shared memory.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SystemRegion {
    key: String,
    offset: u64,
    byte_size: u64,
}

pub(super) async fn system_register(
    State(rest): State<Rest>,
    named: Named,
    request: Request,
) -> Answer {
    let region: SystemRegion = rest.read(request).await?;
    rest.api
        .system_shared_memory_register(&SystemSharedMemoryRegisterRequest {
            name: name(named)?,
            key: region.key,
            offset: region.offset,
            byte_size: region.byte_size,
        })?;
    written(json!({}))
}

pub(super) async fn system_unregister(State(rest): State<Rest>, named: Named) -> Answer {
    let asked = SystemSharedMemoryUnregisterRequest { name: name(named)? };
    rest.api.system_shared_memory_unregister(&asked);
    written(json!({}))
}

pub(super) async fn cuda_status(State(rest): State<Rest>, named: Named) -> Answer {
    let asked = CudaSharedMemoryStatusRequest { name: name(named)? };
    let said = rest.api.cuda_shared_memory_status(&asked)?;
    let regions: BTreeMap<_, _> = said.regions.into_iter().collect();
    let regions = regions.into_values().map(|region| {
        json!({
            "name": region.name,
            "device_id": region.device_id,
            "byte_size": region.byte_size,
        })
    });
    written(regions.collect())
}

/// The body of a registration of CUDA shared memory.
#[derive(Deserialize, Default)]
#[serde(default)]
struct CudaRegion {
    raw_handle: Handle,
    device_id: i64,
    byte_size: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Handle {
    b64: String,
}

pub(super) async fn cuda_register(
    State(rest): State<Rest>,
    named: Named,
    request: Request,
) -> Answer {
    let region: CudaRegion = rest.read(request).await?;
    let handle = STANDARD.decode(region.raw_handle.b64);
    let handle = handle.map_err(|error| Status::invalid(format!("raw_handle.b64: {error}")))?;
    rest.api
        .cuda_shared_memory_register(&CudaSharedMemoryRegisterRequest {
            name: name(named)?,
            raw_handle: handle.into(),
            device_id: region.device_id,
            byte_size: region.byte_size,
        })?;
    written(json!({}))
}

pub(super) async fn cuda_unregister(State(rest): State<Rest>, named: Named) -> Answer {
    let asked = CudaSharedMemoryUnregisterRequest { name: name(named)? };
    rest.api.cuda_shared_memory_unregister(&asked);
    written(json!({}))
}

/// Says what is logged. A body is never read, for this is no operator's call.
pub(super) async fn logging(State(rest): State<Rest>) -> Answer {
    log_settings(&rest, LogSettingsRequest::default())
}

/// Changes what is logged, and says it.
pub(super) async fn change_logging(State(rest): State<Rest>, request: Request) -> Answer {
    let given: Map<String, Value> = rest.read(request).await?;
    let settings = given.into_iter().map(|(name, value)| {
        let parameter_choice = log_choice(&value)
            .map_err(|status| status.about(format_args!("log setting {name:?}")))?;
        Ok((name, LogGiven { parameter_choice }))
    });
    let settings = settings.collect::<Result<HashMap<_, _>, Status>>()?;
    log_settings(&rest, LogSettingsRequest { settings })
}

fn log_settings(rest: &Served, asked: LogSettingsRequest) -> Answer {
    let said = rest.api.log_settings(asked)?;
    let said = said.settings.into_iter().map(|(name, said)| {
        let value = match said.parameter_choice {
            Some(LogSaidChoice::BoolParam(truth)) => truth.into(),
            Some(LogSaidChoice::Uint32Param(number)) => number.into(),
            Some(LogSaidChoice::StringParam(text)) => text.into(),
            None => Value::Null,
        };
        (name, value)
    });
    written(said.collect())
}

fn log_choice(value: &Value) -> Result<Option<LogGivenChoice>, Status> {
    let number = |value: &Value| u32::try_from(value.as_u64()?).ok();
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(truth) => LogGivenChoice::BoolParam(*truth),
        Value::String(text) => LogGivenChoice::StringParam(text.clone()),
        value => LogGivenChoice::Uint32Param(number(value).ok_or_else(|| {
            Status::invalid("it takes true, false, a text or a whole number of at least 0")
        })?),
    }))
}

/// Says what is traced of a model, or of all. A body is never read, for this is no operator's call.
pub(super) async fn trace(State(rest): State<Rest>, named: Named) -> Answer {
    let asked = TraceSettingRequest {
        model_name: name(named)?,
        ..TraceSettingRequest::default()
    };
    trace_setting(&rest, &asked)
}

/// Changes what is traced of a model, or of all, and says it.
pub(super) async fn change_trace(
    State(rest): State<Rest>,
    named: Named,
    request: Request,
) -> Answer {
    let given: Map<String, Value> = rest.read(request).await?;
    let settings = given.into_iter().map(|(name, value)| {
        let value = trace_values(value);
        (name, TraceGiven { value })
    });
    let asked = TraceSettingRequest {
        model_name: name(named)?,
        settings: settings.collect(),
    };
    trace_setting(&rest, &asked)
}

fn trace_setting(rest: &Served, asked: &TraceSettingRequest) -> Answer {
    let said = rest.api.trace_setting(asked)?;
    let said = said.settings.into_iter().map(|(name, said)| {
        let value: Value = match name.as_str() {
            // The only one that may have several.
            "trace_level" => said.value.into(),
            _ => said.value.into_iter().next().into(),
        };
        (name, value)
    });
    written(said.collect())
}

/// A list of texts, one text, or nothing; numbers are as good as texts.
fn trace_values(value: Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => vec![text],
        Value::Array(values) => values.into_iter().flat_map(trace_values).collect(),
        other => vec![other.to_string()],
    }
}
