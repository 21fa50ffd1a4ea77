//! What a call's headers say of its trace and ask of its timing, and what its answer's say.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::api::Api;
use crate::serving::TraceContext;
use crate::telemetry::{Aside, SERVER_TIMING, TRACEPARENT, TRACERESPONSE};

/// Made once: a name that is not of the common ones is parsed for each look otherwise.
static PARENT: HeaderName = HeaderName::from_static(TRACEPARENT);
static TIMING: HeaderName = HeaderName::from_static(SERVER_TIMING);

impl Api {
    /// Where a call is in a trace; none if nothing is traced.
    pub(super) fn traced(&self, headers: &HeaderMap) -> Option<TraceContext> {
        let tracer = self.requests.tracer()?;
        let parent = headers.get(&PARENT);
        Some(tracer.context(parent.and_then(|value| value.to_str().ok())))
    }
}

/// Whether a client asks how long everything took.
pub(super) fn asks_for_timing(headers: &HeaderMap) -> bool {
    headers.get(&TIMING).is_some_and(|value| value == "1")
}

/// The headers that say it, of those that there is something to say in.
pub(super) fn aside(said: Aside) -> impl Iterator<Item = (&'static str, HeaderValue)> {
    let headers = [(TRACERESPONSE, said.response), (SERVER_TIMING, said.timing)];
    let values = headers.into_iter();
    values.filter_map(|(name, value)| Some((name, HeaderValue::try_from(value?).ok()?)))
}
