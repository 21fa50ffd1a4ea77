//! The page, which is in the binary and asks nobody but this server.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Route;

/// Only what is here runs, and it asks only here: what a name or an id contains can do nothing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// By path, what it is and what it says.
const FILES: [(&str, &str, &str); 8] = [
    ("/console", HTML, include_str!("page/console.html")),
    (
        "/console/console.css",
        CSS,
        include_str!("page/console.css"),
    ),
    (
        "/console/console.js",
        SCRIPT,
        include_str!("page/console.js"),
    ),
    (
        "/console/element.js",
        SCRIPT,
        include_str!("page/element.js"),
    ),
    ("/console/chart.js", SCRIPT, include_str!("page/chart.js")),
    ("/console/model.js", SCRIPT, include_str!("page/model.js")),
    (
        "/console/request.js",
        SCRIPT,
        include_str!("page/request.js"),
    ),
    ("/console/try.js", SCRIPT, include_str!("page/try.js")),
];

/// A route for each file.
pub(super) fn routes() -> impl Iterator<Item = Route> {
    let files = FILES.into_iter();
    files.map(|(path, kind, text)| (path, get(async move || file(kind, text))))
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 6] = [
        (CONTENT_TYPE, kind),
        // The next version of the server has another page.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, text).into_response()
}
