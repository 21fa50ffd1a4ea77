//! Which pages of other servers a browser lets ask this one (CORS): none unless the operator says so. And
//! since a browser sends some requests before it asks whether it may, which of those are taken.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use super::grpc::status::RETRY_PUSHBACK;
use super::rest::HEADER_LENGTH;
use crate::telemetry::{SERVER_TIMING, TRACERESPONSE};

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(7_200);

/// Where browsers say whose page asks (Fetch Metadata); older ones and plain HTTP have `origin` alone.
const SITE: &str = "sec-fetch-site";

/// Origins, such as `https://example.com:8443`, whose pages may ask; `*` is every one.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Those that are text for a header; others are no origins.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a String>) -> Self {
        let origins = origins.into_iter();
        Self(origins.filter_map(|origin| origin.parse().ok()).collect())
    }

    /// Whether a request may change anything: it is no browser's, or of a page of this server's, or of one that
    /// may ask. A page of any other server can send what HTML forms could send, without asking first.
    pub(super) fn let_pass<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers();
        // No page sends this type of content without asking first.
        let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if request.method().is_safe() || headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            return true;
        }
        let origin = headers.get(ORIGIN);
        match (headers.get(SITE).map(HeaderValue::as_bytes), origin) {
            (Some(b"same-origin" | b"none"), _) | (None, None) => true,
            (None, Some(origin)) if is_own(origin, request.uri().authority(), headers) => true,
            (_, Some(origin)) => self.0.iter().any(|one| one == "*" || one == origin),
            (Some(_), None) => false,
        }
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

/// Whether a page's origin is where the request went to. Only of addresses is that believed: a name of anybody's
/// can be made to lead here (DNS rebinding). By a name that has a certificate browsers say `same-origin`.
fn is_own(origin: &HeaderValue, authority: Option<&Authority>, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = authority.map(Authority::as_str).or(host);
    let origin = origin.to_str().ok().and_then(|text| text.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host) && is_address(host),
        _ => false,
    }
}

fn is_address(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.eq_ignore_ascii_case("localhost") || bare.unwrap_or(name).parse::<IpAddr>().is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/v2/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_page_of_another_server_changes_nothing() {
        let (none, one) = (
            Origins::default(),
            Origins::new([&"https://a.b".to_owned()]),
        );
        let host = ("host", "10.0.0.1:8000");
        let post = |headers: &[(&'static str, &'static str)]| {
            let request = asked(Method::POST, &[&[host], headers].concat());
            (none.let_pass(&request), one.let_pass(&request))
        };
        // No browser, this server's page, a person.
        assert_eq!(post(&[]), (true, true));
        assert_eq!(post(&[("content-type", "text/plain")]), (true, true));
        assert_eq!(post(&[("origin", "http://10.0.0.1:8000")]), (true, true));
        let own = [
            ("sec-fetch-site", "same-origin"),
            ("origin", "https://proxied"),
        ];
        assert_eq!(post(&own), (true, true));
        assert_eq!(post(&[("sec-fetch-site", "none")]), (true, true));
        // Others', of which one may.
        for origin in [
            "http://10.0.0.1:8001",
            "http://10.0.0.1",
            "https://e.x",
            "null",
            "10.0.0.1:8000",
        ] {
            assert_eq!(post(&[("origin", origin)]), (false, false), "{origin}");
        }
        assert_eq!(post(&[("origin", "https://a.b")]), (false, true));
        for site in ["cross-site", "same-site"] {
            let site = ("sec-fetch-site", site);
            assert_eq!(post(&[site]), (false, false));
            assert_eq!(
                post(&[site, ("origin", "http://10.0.0.1:8000")]),
                (false, false)
            );
            assert_eq!(post(&[site, ("origin", "https://a.b")]), (false, true));
        }
        let every = Origins::new([&"*".to_owned()]);
        assert!(every.let_pass(&asked(Method::POST, &[host, ("origin", "null")])));
    }

    #[test]
    fn a_name_of_anybodys_does_not_make_a_page_ours() {
        for (host, is_ours) in [
            ("127.0.0.1:8000", true),
            ("[::1]:8000", true),
            ("localhost:8000", true),
            ("10.0.0.1", true),
            ("rebound.example:8000", false),
            ("127.0.0.1.rebound.example:8000", false),
        ] {
            let origin = format!("http://{host}");
            let request = asked(Method::POST, &[("host", host), ("origin", &origin)]);
            assert_eq!(Origins::default().let_pass(&request), is_ours, "{host}");
        }
    }

    #[test]
    fn what_changes_nothing_and_what_browsers_ask_about_pass() {
        let none = Origins::default();
        let cross = ("sec-fetch-site", "cross-site");
        assert!(none.let_pass(&asked(Method::GET, &[cross])));
        for kind in ["application/grpc", "application/grpc-web+proto"] {
            let request = asked(Method::POST, &[cross, ("content-type", kind)]);
            assert!(none.let_pass(&request), "{kind}");
        }
        // gRPC's calls are told by their paths, so that any type of content gets there.
        let request = asked(Method::POST, &[cross, ("content-type", "text/plain")]);
        assert!(!none.let_pass(&request));
    }
}
