//! REST: the V2 routes, with tensors as JSON or as they are, and health.

mod answer;
mod control;
mod encoded;
mod extensions;
mod infer;
mod receive;

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;
use tower_http::decompression::RequestDecompressionLayer;

use super::api::Api;
use super::limits::{Held, Limits};
use crate::status::Status;
use answer::Refusal;
pub(super) use answer::{error, plain};
use encoded::If;
pub(super) use receive::{HEADER_LENGTH, held, receive};

/// Bytes of an answer under which compressing it saves no packet.
const LEAST_COMPRESSED: u16 = 1024;

/// What the routes need.
#[derive(Debug)]
struct Served {
    api: Api,
    limits: Limits,
    /// Whether health, for which nobody has to be known, gives names and reasons: everybody may ask for
    /// them elsewhere.
    health_tells_all: bool,
}

/// Each request has it for itself, which is to cost one count and not one for each part.
type Rest = Arc<Served>;

pub(super) type Answer = Result<Response, Refusal>;

/// The routes, and what stands before all of them.
pub(super) fn routes(api: Api, limits: Limits, health_tells_all: bool) -> Router {
    let table = table().into_iter().chain(extensions::table());
    table
        .fold(Router::new(), |routes, (path, methods)| {
            routes.route(path, methods)
        })
        .method_not_allowed_fallback(control::method_not_allowed)
        .fallback(control::no_route)
        .layer(If {
            header: CONTENT_ENCODING,
            layer: RequestDecompressionLayer::new(),
        })
        .with_state(Arc::new(Served {
            api,
            limits,
            health_tells_all,
        }))
}

/// Tensors alone are worth compressing; tritonclient for asyncio asks for it always, and cannot read
/// anything else that is.
fn infer() -> MethodRouter<Rest> {
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(LEAST_COMPRESSED));
    post(infer::infer).layer(If {
        header: ACCEPT_ENCODING,
        layer: compression,
    })
}

type Route = (&'static str, MethodRouter<Rest>);

/// With those of the extensions, what `openapi.json` describes; a test holds the two together.
#[rustfmt::skip] // a table
fn table() -> Vec<Route> {
    vec![
        ("/v2", get(control::server_metadata)),
        ("/v2/openapi.json", get(control::openapi)),
        ("/v2/health/live", get(control::server_live)),
        ("/v2/health/ready", get(control::server_ready)),
        ("/v2/models/stats", get(control::statistics)),
        ("/v2/models/{model}", get(control::model_metadata)),
        ("/v2/models/{model}/ready", get(control::model_ready)),
        ("/v2/models/{model}/config", get(control::model_config)),
        ("/v2/models/{model}/stats", get(control::model_statistics)),
        ("/v2/models/{model}/infer", infer()),
        ("/v2/models/{model}/versions/{version}", get(control::model_metadata)),
        ("/v2/models/{model}/versions/{version}/ready", get(control::model_ready)),
        ("/v2/models/{model}/versions/{version}/config", get(control::model_config)),
        ("/v2/models/{model}/versions/{version}/stats", get(control::model_statistics)),
        ("/v2/models/{model}/versions/{version}/infer", infer()),
        ("/v2/repository/index", post(control::repository_index)),
        ("/v2/repository/models/{model}/load", post(control::load)),
        ("/v2/repository/models/{model}/unload", post(control::unload)),
    ]
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::frontend::identity::is_listed;

    /// By path, whether it is asked by GET or by POST.
    fn described() -> BTreeMap<String, String> {
        let document: serde_json::Value = serde_json::from_str(control::OPENAPI).unwrap();
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = document["paths"].as_object().unwrap().iter();
        let method = |item: &serde_json::Value| {
            let methods = item.as_object().unwrap().keys();
            let methods: Vec<String> = methods
                .filter(|key| *key != "parameters")
                .cloned()
                .collect();
            methods.join(",")
        };
        paths
            .map(|(path, item)| (path.clone(), method(item)))
            .collect()
    }

    #[test]
    fn every_route_says_what_it_needs() {
        for (path, methods) in described() {
            for method in methods.split(',') {
                let method = method.to_uppercase().parse().unwrap();
                assert!(
                    is_listed(&method, &path),
                    "{method} {path}: frontend::identity::needs"
                );
            }
        }
    }

    #[test]
    fn the_document_describes_the_routes() {
        let table = table().into_iter().chain(extensions::table());
        let routes = table.map(|(path, methods)| {
            let methods = format!("{methods:?}");
            // What is asked by GET is answered to HEAD, too.
            let by_get = !methods.contains("get: None");
            let by_post = !methods.contains("post: None");
            let methods: Vec<&str> = [("get", by_get), ("post", by_post)]
                .into_iter()
                .filter_map(|(method, is_taken)| is_taken.then_some(method))
                .collect();
            (path.to_owned(), methods.join(","))
        });
        assert_eq!(routes.collect::<BTreeMap<_, _>>(), described());
    }
}
