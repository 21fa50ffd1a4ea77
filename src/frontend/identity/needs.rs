//! What each call needs, of both protocols: the one place that says so. A call that is not here is for
//! operators alone, and tests hold the table and what is served together.

use http::Method;

use crate::model::Role;

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: whoever looks after the process has no secret (Kubernetes' probes).
    Nothing,
    /// To be known, with any role.
    Name,
    /// A role.
    One(Role),
}

use Need::{Name, Nothing};
const INFER: Need = Need::One(Role::Infer);
const OBSERVE: Need = Need::One(Role::Observe);
const OPERATE: Need = Need::One(Role::Operate);

/// Calls of gRPC, by package and service: methods, and what they need.
type Calls = (&'static str, &'static [(&'static str, Need)]);

#[rustfmt::skip] // a table
const GRPC: &[Calls] = &[
    ("inference.GRPCInferenceService", &[
        ("ServerLive", Nothing),
        ("ServerReady", Nothing),
        ("ModelReady", Nothing),
        ("ServerMetadata", Name),
        ("ModelMetadata", Name),
        ("ModelInfer", INFER),
        ("ModelStreamInfer", INFER),
        ("ModelConfig", OBSERVE),
        ("ModelStatistics", OBSERVE),
        ("RepositoryIndex", OBSERVE),
        ("RepositoryModelLoad", OPERATE),
        ("RepositoryModelUnload", OPERATE),
        ("SystemSharedMemoryStatus", OBSERVE),
        ("SystemSharedMemoryRegister", OPERATE),
        ("SystemSharedMemoryUnregister", OPERATE),
        ("CudaSharedMemoryStatus", OBSERVE),
        ("CudaSharedMemoryRegister", OPERATE),
        ("CudaSharedMemoryUnregister", OPERATE),
        // One call reads and writes, and its body is not looked at here.
        ("TraceSetting", OPERATE),
        ("LogSettings", OPERATE),
    ]),
    ("grpc.health.v1.Health", &[("Check", Nothing), ("Watch", Nothing)]),
    // Clients that balance have it.
    ("xds.service.orca.v3.OpenRcaService", &[("StreamCoreMetrics", Name)]),
    ("grpc.reflection.v1.ServerReflection", &[("ServerReflectionInfo", Name)]),
    ("grpc.reflection.v1alpha.ServerReflection", &[("ServerReflectionInfo", Name)]),
];

/// Routes: path, what GET needs, what POST needs. Of two that fit, the first counts.
type Route = (&'static str, Option<Need>, Option<Need>);

#[rustfmt::skip] // a table
const REST: &[Route] = &[
    ("/v2", Some(Name), None),
    ("/v2/openapi.json", Some(Name), None),
    ("/v2/health/live", Some(Nothing), None),
    ("/v2/health/ready", Some(Nothing), None),
    ("/v2/models/stats", Some(OBSERVE), None),
    ("/v2/models/{model}", Some(Name), None),
    ("/v2/models/{model}/ready", Some(Nothing), None),
    ("/v2/models/{model}/config", Some(OBSERVE), None),
    ("/v2/models/{model}/stats", Some(OBSERVE), None),
    ("/v2/models/{model}/infer", None, Some(INFER)),
    ("/v2/models/{model}/trace/setting", Some(OBSERVE), Some(OPERATE)),
    ("/v2/models/{model}/versions/{version}", Some(Name), None),
    ("/v2/models/{model}/versions/{version}/ready", Some(Nothing), None),
    ("/v2/models/{model}/versions/{version}/config", Some(OBSERVE), None),
    ("/v2/models/{model}/versions/{version}/stats", Some(OBSERVE), None),
    ("/v2/models/{model}/versions/{version}/infer", None, Some(INFER)),
    ("/v2/repository/index", None, Some(OBSERVE)),
    ("/v2/repository/models/{model}/load", None, Some(OPERATE)),
    ("/v2/repository/models/{model}/unload", None, Some(OPERATE)),
    ("/v2/logging", Some(OBSERVE), Some(OPERATE)),
    ("/v2/trace/setting", Some(OBSERVE), Some(OPERATE)),
    ("/v2/systemsharedmemory/status", Some(OBSERVE), None),
    ("/v2/systemsharedmemory/unregister", None, Some(OPERATE)),
    ("/v2/systemsharedmemory/region/{region}/status", Some(OBSERVE), None),
    ("/v2/systemsharedmemory/region/{region}/register", None, Some(OPERATE)),
    ("/v2/systemsharedmemory/region/{region}/unregister", None, Some(OPERATE)),
    ("/v2/cudasharedmemory/status", Some(OBSERVE), None),
    ("/v2/cudasharedmemory/unregister", None, Some(OPERATE)),
    ("/v2/cudasharedmemory/region/{region}/status", Some(OBSERVE), None),
    ("/v2/cudasharedmemory/region/{region}/register", None, Some(OPERATE)),
    ("/v2/cudasharedmemory/region/{region}/unregister", None, Some(OPERATE)),
    ("/metrics", Some(OBSERVE), None),
    ("/console", Some(OBSERVE), None),
    ("/console/console.css", Some(OBSERVE), None),
    ("/console/console.js", Some(OBSERVE), None),
    ("/console/element.js", Some(OBSERVE), None),
    ("/console/chart.js", Some(OBSERVE), None),
    ("/console/model.js", Some(OBSERVE), None),
    ("/console/request.js", Some(OBSERVE), None),
    ("/console/try.js", Some(OBSERVE), None),
    ("/console/example", Some(OBSERVE), Some(OBSERVE)),
    ("/console/state", Some(OBSERVE), None),
    ("/console/slow", Some(OBSERVE), None),
    ("/console/decisions", Some(OBSERVE), None),
    ("/console/breaches", Some(OBSERVE), None),
    ("/console/profile", None, Some(OPERATE)),
];

/// What a call needs; none if it is not in the table.
pub(super) fn need(method: &Method, path: &str) -> Option<Need> {
    let below = path.strip_prefix('/')?;
    if let Some((service, method)) = below.split_once('/')
        && let Some((_, methods)) = GRPC.iter().find(|(name, _)| *name == service)
    {
        let mut methods = methods.iter();
        return methods
            .find(|(name, _)| *name == method)
            .map(|(_, need)| *need);
    }
    let (_, get, post) = REST.iter().find(|(route, _, _)| fits(route, path))?;
    match *method {
        Method::GET | Method::HEAD => *get,
        Method::POST => *post,
        _ => None,
    }
}

/// Whether a path is of a route: part by part, as it came, which is how the routes themselves compare.
fn fits(route: &str, path: &str) -> bool {
    let (mut parts, mut found) = (route.split('/'), path.split('/'));
    loop {
        match (parts.next(), found.next()) {
            (None, None) => return true,
            (Some(part), Some(found)) if part == found => {}
            (Some(part), Some(found)) if part.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}

/// Whether a route, as it is written, has an entry of its own for a method.
#[cfg(test)]
pub(in crate::frontend) fn is_listed(method: &Method, route: &str) -> bool {
    let listed = REST.iter().find(|(listed, _, _)| fits(listed, route));
    listed.is_some_and(|(listed, _, _)| *listed == route) && need(method, route).is_some()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;
    use crate::proto::DESCRIPTORS;

    #[test]
    fn every_rpc_has_its_need_and_there_is_no_other() {
        let mut served = Vec::new();
        for set in [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            let pool = DescriptorPool::decode(set).unwrap();
            for service in pool.services() {
                let name = service.full_name().to_owned();
                served.extend(
                    service
                        .methods()
                        .map(|rpc| format!("/{name}/{}", rpc.name())),
                );
            }
        }
        for version in ["v1", "v1alpha"] {
            served.push(format!(
                "/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            ));
        }
        let mut listed = Vec::new();
        for (service, methods) in GRPC {
            listed.extend(methods.iter().map(|(rpc, _)| format!("/{service}/{rpc}")));
        }
        served.sort();
        listed.sort();
        assert_eq!(listed, served);
    }

    #[test]
    fn the_need_is_of_the_call_and_no_neighbour() {
        let get = |path| need(&Method::GET, path);
        let post = |path| need(&Method::POST, path);
        assert_eq!(get("/v2/models/stats"), Some(OBSERVE));
        assert_eq!(get("/v2/models/st%61ts"), Some(Name));
        assert_eq!(get("/v2/models/a/ready"), Some(Nothing));
        assert_eq!(post("/v2/models/a/versions/1/infer"), Some(INFER));
        assert_eq!(get("/v2/logging"), Some(OBSERVE));
        assert_eq!(post("/v2/logging"), Some(OPERATE));
        assert_eq!(need(&Method::HEAD, "/metrics"), Some(OBSERVE));
        let load = "/inference.GRPCInferenceService/RepositoryModelLoad";
        assert_eq!((get(load), post(load)), (Some(OPERATE), Some(OPERATE)));
        for path in [
            "",
            "/",
            "/v2/",
            "//v2",
            "/v2/models//ready",
            "/v2/models/a/ready/",
            "/metrics/",
            "/console/",
            "/inference.GRPCInferenceService/Other",
            "/inference.GRPCInferenceService/ModelReady/x",
            "/other.Service/ModelReady",
        ] {
            assert_eq!((get(path), post(path)), (None, None), "{path:?}");
        }
        assert_eq!(need(&Method::PUT, "/v2/health/live"), None);
    }
}
