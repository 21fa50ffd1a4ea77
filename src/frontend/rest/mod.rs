//! REST: the V2 routes, with tensors as JSON or as they are, and health.

mod answer;
mod control;
mod infer;
mod receive;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use super::api::Api;
use super::limits::{Held, Limits};
use crate::status::Status;
use answer::Refusal;
pub(super) use answer::error;

/// What the routes need.
#[derive(Clone, Debug)]
struct Rest {
    api: Api,
    limits: Limits,
}

type Answer = Result<Response, Refusal>;

/// The routes.
pub(super) fn routes(api: Api, limits: Limits) -> Router {
    let shared_memory = || get(control::shared_memory).post(control::shared_memory);
    let settings = || get(control::settings).post(control::settings);
    let mut routes = Router::new()
        .route("/v2", get(control::server_metadata))
        .route("/v2/openapi.json", get(control::openapi))
        .route("/v2/health/live", get(control::server_live))
        .route("/v2/health/ready", get(control::server_ready))
        .route("/v2/models/stats", get(control::statistics))
        .route("/v2/repository/index", post(control::repository_index))
        .route("/v2/repository/models/{model}/load", post(control::load))
        .route(
            "/v2/repository/models/{model}/unload",
            post(control::unload),
        )
        .route("/v2/systemsharedmemory/{*rest}", shared_memory())
        .route("/v2/cudasharedmemory/{*rest}", shared_memory())
        .route("/v2/trace/setting", settings())
        .route("/v2/logging", settings());
    for model in [
        "/v2/models/{model}",
        "/v2/models/{model}/versions/{version}",
    ] {
        routes = routes
            .route(model, get(control::model_metadata))
            .route(&format!("{model}/ready"), get(control::model_ready))
            .route(&format!("{model}/config"), get(control::model_config))
            .route(&format!("{model}/stats"), get(control::model_statistics))
            .route(&format!("{model}/infer"), post(infer::infer));
    }
    routes
        .method_not_allowed_fallback(control::wrong_method)
        .fallback(control::no_route)
        .layer(RequestDecompressionLayer::new())
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
        .with_state(Rest { api, limits })
}

/// The model that a path names, and the version or none.
#[derive(Deserialize)]
struct Named {
    model: String,
    #[serde(default)]
    version: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path: Result<Path<Self>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(named) = path.map_err(|error| Status::invalid(error.body_text()))?;
        Ok(named)
    }
}
