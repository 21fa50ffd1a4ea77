//! Which pages of other servers a browser lets ask this one (CORS): none unless the operator says so.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use super::grpc::status::RETRY_PUSHBACK;
use super::rest::HEADER_LENGTH;
use crate::telemetry::{SERVER_TIMING, TRACERESPONSE};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(7_200);

/// Origins, such as `https://example.com:8443`, whose pages may ask; `*` is every one.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Those that are text for a header; others are no origins.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a String>) -> Self {
        let origins = origins.into_iter();
        Self(origins.filter_map(|origin| origin.parse().ok()).collect())
    }

    /// What answers browsers for them; none if there are none.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        if self.0.is_empty() {
            return None;
        }
        let allowed = match self.0.iter().any(|origin| origin == "*") {
            true => AllowOrigin::any(),
            false => AllowOrigin::list(self.0.iter().cloned()),
        };
        let layer = CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed())
            .max_age(MAX_AGE);
        Some(layer)
    }
}

/// The headers of answers that pages need to read.
fn exposed() -> ExposeHeaders {
    let of_grpc = ["grpc-status", "grpc-message", RETRY_PUSHBACK];
    let of_grpc = of_grpc.map(HeaderName::from_static);
    let of_rest = [HEADER_LENGTH, CONTENT_ENCODING, RETRY_AFTER];
    let of_both = [TRACERESPONSE, SERVER_TIMING].map(HeaderName::from_static);
    let all = of_grpc.into_iter().chain(of_rest).chain(of_both);
    ExposeHeaders::list(all)
}
