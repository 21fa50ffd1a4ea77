//! Where traces and metrics are sent, by our own settings and by the variables that OpenTelemetry's
//! programs share (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use std::time::Duration;

use jitney_settings::rule::{OneOf, Parsed};
use url::{Url, form_urlencoded};

/// The port of OTLP/HTTP.
const HTTP_PORT: u16 = 4318;

/// Where traces and metrics are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpConfig {
    /// The receiver.
    pub endpoint: Url,
    /// Whether by OTLP/HTTP, and not by OTLP/gRPC.
    pub http: bool,
    /// Headers that the receiver wants.
    pub headers: Vec<(String, String)>,
    /// What is said of the server.
    pub resource: Vec<(String, String)>,
    /// The share of requests that is told in traces.
    pub trace_ratio: f64,
    /// Between metrics and metrics.
    pub metrics_interval: Duration,
}

/// A receiver's URL.
pub(super) const RECEIVER: Parsed<Url> = Parsed {
    parse: |text| {
        let url = Url::parse(text).ok()?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        let known = matches!(url.scheme(), "http" | "https") && is_plain;
        (known && url.username().is_empty() && url.password().is_none()).then_some(url)
    },
    allowed: "a URL such as http://localhost:4317, without user, password, query or fragment",
};

/// Whether it is spoken to over HTTP.
pub(super) const PROTOCOLS: OneOf<'_, bool> =
    OneOf(&[("grpc", false), ("http", true), ("http/protobuf", true)]);

/// What a receiver on a port speaks, if nobody says.
pub(super) fn usual_protocol(endpoint: &Url) -> bool {
    endpoint.port() == Some(HTTP_PORT)
}

/// Whether the environment turns OpenTelemetry off for every program in it.
pub(super) fn is_off(variable: impl Fn(&str) -> Option<String>) -> bool {
    variable("OTEL_SDK_DISABLED").is_some_and(|said| said.eq_ignore_ascii_case("true"))
}

/// What the environment says of the server: its name goes before its attributes.
pub(super) fn resource(variable: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut given = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        given.retain(|(key, _)| key != "service.name");
        given.push(("service.name".to_owned(), name));
    }
    given
}

/// `KEY=VALUE,KEY=VALUE`, with `%XX` for what is special.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let plain = pair.trim().replace('&', "%26").replace('+', "%2B");
        let (key, value) = form_urlencoded::parse(plain.as_bytes()).next()?;
        let (key, value) = (key.trim(), value.trim());
        (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environments_words_are_read_as_others_read_them() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let set = |name: &str| match name {
            "OTEL_RESOURCE_ATTRIBUTES" => Some("service.name=x, k8s.pod=a%2Cb+c,=,".to_owned()),
            "OTEL_SERVICE_NAME" => Some("mine".to_owned()),
            _ => None,
        };
        let expected = owned(&[("k8s.pod", "a,b+c"), ("service.name", "mine")]);
        assert_eq!(resource(set), expected);
        assert_eq!(resource(|_| None), Vec::new());
        let key = pairs("api-key=a=b&c");
        assert_eq!(key, owned(&[("api-key", "a=b&c")]));
    }

    #[test]
    fn the_environment_may_turn_it_off() {
        for (said, off) in [
            ("true", true),
            ("True", true),
            ("false", false),
            ("1", false),
            ("", false),
        ] {
            assert_eq!(is_off(|_| Some(said.to_owned())), off, "{said}");
        }
        assert!(!is_off(|_| None));
    }

    #[test]
    fn the_port_says_what_is_spoken() {
        for (url, http) in [
            ("http://host:4317", false),
            ("http://host:4318", true),
            ("http://host:4318/x", true),
            ("http://host", false),
        ] {
            let url = (RECEIVER.parse)(url).unwrap();
            assert_eq!(usual_protocol(&url), http, "{url}");
        }
        for wrong in [
            "host:4317",
            "ftp://host",
            "http://",
            "http://u:p@host",
            "http://h?x",
        ] {
            assert!((RECEIVER.parse)(wrong).is_none(), "{wrong}");
        }
    }
}
