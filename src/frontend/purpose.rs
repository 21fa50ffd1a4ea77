//! What a call is for, told from its path: those that ask for health are made by whoever looks after the process, and
//! nobody need say who that is. So they are answered when the server is full, and fill nothing that others need.

/// The call by which clients are told each change of health.
pub(super) const WATCH: &str = "/grpc.health.v1.Health/Watch";

const PROBES: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
];

/// Calls of gRPC whose clients may say nothing for as long as they like between two messages.
const STREAMS: [&str; 3] = [
    "/inference.GRPCInferenceService/ModelStreamInfer",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whatever the server is there for.
    Work,
    /// Health at this moment.
    Probe,
    /// Health for as long as the client likes.
    Watch,
}

impl Purpose {
    pub(super) fn of(path: &str) -> Self {
        if path == WATCH {
            return Self::Watch;
        }
        let is_probe = PROBES.contains(&path)
            || path.starts_with("/v2/health/")
            || path
                .strip_prefix("/v2/models/")
                .is_some_and(|below| below.ends_with("/ready"));
        match is_probe {
            true => Self::Probe,
            false => Self::Work,
        }
    }
}

/// Whether the client of a call of gRPC sends any number of messages.
pub(super) fn is_stream(path: &str) -> bool {
    STREAMS.contains(&path)
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::frontend::identity::is_open;
    use crate::proto::DESCRIPTORS;

    #[test]
    fn who_need_not_be_known_asks_for_health_and_nobody_else_does() {
        let mut open = 0;
        for set in [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let pool = DescriptorPool::decode(set).unwrap();
            for rpc in pool
                .services()
                .flat_map(|service| service.methods().collect::<Vec<_>>())
            {
                let path = format!("/{}/{}", rpc.parent_service().full_name(), rpc.name());
                let is_work = Purpose::of(&path) == Purpose::Work;
                assert_eq!(is_work, !is_open(&http::Method::POST, &path), "{path}");
                assert_eq!(is_stream(&path), rpc.is_client_streaming(), "{path}");
                open += usize::from(!is_work);
            }
        }
        assert_eq!(open, 5);
        for path in [
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/m/ready",
            "/v2/models/m/versions/1/ready",
        ] {
            assert!(is_open(&http::Method::GET, path));
            assert_eq!(Purpose::of(path), Purpose::Probe, "{path}");
        }
        for path in [
            "/v2/models/ready",
            "/v2/models/m/infer",
            "/v2",
            "/v2/models/m",
        ] {
            assert_eq!(Purpose::of(path), Purpose::Work, "{path}");
        }
    }
}
