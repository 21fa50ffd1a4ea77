//! gRPC and gRPC-Web: the V2 service, health and reflection.

mod counted;
mod ending;
mod infers;
pub(super) mod orca;
mod service;
pub(super) mod status;
mod stream;
mod trailing;
pub(super) mod web;

use std::sync::Arc;

use tonic::service::Routes;

use super::api::Api;
use super::limits::Limits;
use crate::proto::DESCRIPTORS;
use crate::telemetry::Metrics;
use ending::Ending;
use infers::Infers;
use orca::LoadReports;
use service::InferenceService;
use trailing::Trailing;

/// Descriptors of grpc.health.v1 and our own service, for reflection.
const SERVICES: [&[u8]; 2] = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];

/// The services.
pub(super) fn routes(api: Api, limits: Limits, metrics: Arc<Metrics>) -> Routes {
    let health = api.readiness.service();
    let ends = api.readiness.ends();
    let reports = LoadReports {
        metrics,
        clock: api.engine.shared_clock(),
        ends: ends.clone(),
    };
    let service = InferenceService::new(api, limits.max_stream_requests);
    let inference = Infers::new(service, limits.max_message_bytes);
    Routes::new(Trailing(inference))
        .add_service(health)
        .add_service(reports.service())
        .add_service(Ending::new(reflection_v1(), ends.clone()))
        .add_service(Ending::new(reflection_v1alpha(), ends))
}

fn reflection_v1() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    reflection()
        .build_v1()
        .unwrap_or_else(|error| unreachable!("our own descriptors are sound: {error}"))
}

fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    reflection()
        .build_v1alpha()
        .unwrap_or_else(|error| unreachable!("our own descriptors are sound: {error}"))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    SERVICES.iter().fold(
        tonic_reflection::server::Builder::configure(),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    )
}
