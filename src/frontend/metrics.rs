//! Metrics: one route, for whoever watches.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::limits::LimitLayer;
use crate::telemetry::{Format, Metrics};

/// Where metrics are, on whatever port.
pub(super) const METRICS_PATH: &str = "/metrics";

/// What the route needs.
#[derive(Clone, Debug)]
struct Watched {
    metrics: Arc<Metrics>,
    layer: LimitLayer,
}

/// The route.
pub(super) fn routes(metrics: Arc<Metrics>, layer: LimitLayer) -> Router {
    let watched = Watched { metrics, layer };
    let route = Router::new().route(METRICS_PATH, get(scrape));
    route.with_state(watched)
}

async fn scrape(State(watched): State<Watched>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    let text = watched.metrics.scrape(format, watched.layer.in_flight());
    let content = HeaderValue::from_static(format.content_type());
    ([(CONTENT_TYPE, content)], text).into_response()
}
