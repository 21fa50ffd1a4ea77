//! A story as spans: the request, its stages, its steps, and its batch.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::{attribute, scope, text};
use crate::serving::{Stage, TraceContext, Trip};
use crate::telemetry::story::Story;

/// Members of a batch that its span links to: the bound that OpenTelemetry has by default.
const MOST_LINKS: usize = 128;
/// Bytes of a client's name for its request that are told.
const MOST_ID: usize = 256;
/// The flags of a span: it is sampled, and says whether its parent is elsewhere.
const FLAGS: u32 = 0x101;
/// Its parent is in another program.
const REMOTE: u32 = 0x200;

/// Spans, as one message.
pub(super) fn message(spans: Vec<Span>, resource: Resource) -> ExportTraceServiceRequest {
    let scope_spans = ScopeSpans {
        scope: Some(scope()),
        spans,
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

/// The spans of a request that a client sent, and those of the batches that it is the first to tell of.
pub(super) fn of(story: &Story) -> Vec<Span> {
    let mut spans = Vec::new();
    add(&mut spans, story, SpanKind::Server);
    spans
}

fn add(spans: &mut Vec<Span>, story: &Story, kind: SpanKind) {
    let Some(context) = story.context else {
        return;
    };
    spans.push(request(story, &context, kind));
    for (stage, from, took) in &story.stages {
        // Nothing is to be decoded of a step.
        if *stage != Stage::Decode || kind == SpanKind::Server {
            spans.push(part(story, &context, *stage, *from, *took));
        }
    }
    if let Some(trip) = &story.trip
        && let Some(own) = trip.context
        && trip.is_news()
    {
        spans.push(batch(story, trip, &own));
    }
    for step in &story.steps {
        add(spans, step, SpanKind::Internal);
    }
}

fn span(context: &TraceContext, name: String, kind: SpanKind, times: (u64, u64)) -> Span {
    let parent = match context.parent {
        0 => Vec::new(),
        parent => parent.to_be_bytes().to_vec(),
    };
    Span {
        trace_id: context.trace.to_be_bytes().to_vec(),
        span_id: context.span.to_be_bytes().to_vec(),
        parent_span_id: parent,
        flags: FLAGS,
        name,
        kind: kind.into(),
        start_time_unix_nano: times.0,
        end_time_unix_nano: times.1,
        ..Span::default()
    }
}

fn request(story: &Story, context: &TraceContext, kind: SpanKind) -> Span {
    let name = match (story.step.as_str(), story.model.as_str()) {
        ("", "") => "infer".to_owned(),
        ("", model) => format!("infer {model}"),
        (step, _) => step.to_owned(),
    };
    let mut span = span(
        context,
        name,
        kind,
        times(story, Duration::ZERO, story.total),
    );
    if kind == SpanKind::Server && context.parent != 0 {
        span.flags |= REMOTE;
    }
    span.attributes = of_version(story);
    span.attributes.extend([
        whole("jitney.rows", story.rows),
        truth("jitney.cached", story.cached),
        truth("jitney.slow", story.total > story.objective),
        text("jitney.code", story.code.map_or("OK", |code| code.name())),
    ]);
    if !story.id.is_empty() {
        let end = story.id.floor_char_boundary(MOST_ID);
        let id = story.id.get(..end).unwrap_or_default();
        span.attributes.push(text("jitney.request.id", id));
    }
    if let Some(trip) = &story.trip {
        span.attributes.extend(of_batch(trip));
    }
    if let Some(code) = story.code {
        span.attributes.push(text("error.type", code.name()));
        span.status = code.is_ours().then(|| failure(code.name()));
    }
    span
}

fn part(story: &Story, whole: &TraceContext, stage: Stage, from: Duration, took: Duration) -> Span {
    let (name, times) = (stage.name().to_owned(), times(story, from, from + took));
    let mut span = span(&whole.child(), name, SpanKind::Internal, times);
    let trip = story.trip.as_deref().filter(|_| stage == Stage::Execute);
    if let Some(batch) = trip.and_then(|trip| trip.context) {
        span.links.push(link(&batch));
    }
    span
}

fn batch(story: &Story, trip: &Trip, context: &TraceContext) -> Span {
    let at = |moment| story.wall_nanoseconds + nanoseconds(moment - story.arrived);
    let times = (at(trip.left), at(trip.ended));
    let name = format!("batch {}", story.model);
    let mut span = span(context, name, SpanKind::Internal, times);
    span.attributes = of_version(story);
    span.attributes.extend(of_batch(trip));
    span.attributes.extend([
        whole("jitney.batch.members", trip.members.len()),
        whole("jitney.batch.stayed", trip.stayed),
        attribute("jitney.batch.padding", Value::DoubleValue(trip.padding())),
    ]);
    let members = trip.members.iter().filter_map(|member| member.context);
    let links: Vec<Link> = members.map(|context| link(&context)).collect();
    let more = links.len().saturating_sub(MOST_LINKS);
    span.dropped_links_count = u32::try_from(more).unwrap_or(u32::MAX);
    span.links = links.into_iter().take(MOST_LINKS).collect();
    span
}

fn of_version(story: &Story) -> Vec<KeyValue> {
    match story.model.as_str() {
        "" => Vec::new(),
        model => vec![
            text("jitney.model", model),
            text("jitney.version", &story.version.to_string()),
        ],
    }
}

fn of_batch(trip: &Trip) -> [KeyValue; 5] {
    [
        text("jitney.device", &trip.device),
        attribute("jitney.batch.number", Value::IntValue(trip.number as i64)),
        whole("jitney.batch.rows", trip.rows),
        whole("jitney.batch.run_rows", trip.run_rows),
        text("jitney.batch.reason", trip.reason.name()),
    ]
}

fn link(to: &TraceContext) -> Link {
    Link {
        trace_id: to.trace.to_be_bytes().to_vec(),
        span_id: to.span.to_be_bytes().to_vec(),
        ..Link::default()
    }
}

fn failure(message: &str) -> Status {
    Status {
        message: message.to_owned(),
        code: StatusCode::Error.into(),
    }
}

fn times(story: &Story, from: Duration, until: Duration) -> (u64, u64) {
    let at = |after| story.wall_nanoseconds + nanoseconds(after);
    (at(from), at(until))
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn whole(key: &str, value: usize) -> KeyValue {
    attribute(key, Value::IntValue(value as i64))
}

fn truth(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}
