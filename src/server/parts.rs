//! The configuration in the words of each part that is built from it.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::error::StartError;
use super::machine::Machine;
use crate::clock::Clock;
use crate::config::{ConsoleAccess, Location, ModelControl, OtlpConfig, ServerConfig, read_access};
use crate::frontend::{Console, Limits, Policy, Protocols, Security};
use crate::repository::{FolderRules, RemoteSettings, RepositoryError};
use crate::serving::{Control, Repository, SharedMemory};
use crate::telemetry::otlp::{Destination, Exporter, Protocol};
use crate::telemetry::{Breaches, DoorCounts, Shelf, Tracer};
use crate::wire::Entry;

/// What sends traces and metrics, and who decides which, if they are sent anywhere.
pub(super) fn exporter(
    config: &ServerConfig,
    machine: &Machine,
) -> Result<Option<(Exporter, Arc<Tracer>)>, StartError> {
    let Some(otlp) = &config.otlp else {
        return Ok(None);
    };
    let (exporter, tracer) = Exporter::new(&destination(otlp), Arc::clone(&machine.clock))?;
    Ok(Some((exporter, Arc::new(tracer))))
}

fn destination(otlp: &OtlpConfig) -> Destination {
    Destination {
        endpoint: otlp.endpoint.clone(),
        protocol: match otlp.http {
            true => Protocol::Http,
            false => Protocol::Grpc,
        },
        headers: otlp.headers.clone(),
        resource: otlp.resource.clone(),
        trace_ratio: otlp.trace_ratio,
        metrics_interval: otlp.metrics_interval,
    }
}

/// The repository that `config` names, in a folder or a store.
pub fn repository(
    config: &ServerConfig,
    clock: &Arc<dyn Clock>,
) -> Result<Repository, RepositoryError> {
    let settings = RemoteSettings {
        cache_dir: config.cache_dir.clone(),
        cache_bytes: config.cache_bytes,
        rest: config.repository_rest,
        max_objects: config.max_repository_objects,
    };
    match &config.repository {
        Location::Folder(root) => {
            let rules = FolderRules {
                follow_links: config.follow_links,
                max_entries: config.max_repository_objects,
            };
            Repository::open(root, rules)
        }
        Location::Store(url) => Repository::open_store(url, settings, Arc::clone(clock)),
    }
}

pub(super) fn shared_memory(
    config: &ServerConfig,
    machine: &Machine,
) -> Result<SharedMemory, StartError> {
    let inventory = Arc::clone(&machine.inventory);
    let opened = SharedMemory::open(config.shared_memory.clone(), inventory);
    opened.map_err(|source| StartError::SharedMemory {
        prefix: config.shared_memory.prefix.clone().unwrap_or_default(),
        source,
    })
}

/// What stands before every port.
pub(super) fn security(
    config: &ServerConfig,
    machine: &Machine,
    counts: &Arc<DoorCounts>,
) -> Result<Security, StartError> {
    let asked = config.security.clone();
    let policy = Policy {
        tls: asked.tls,
        handshake_timeout: asked.handshake_timeout,
        // Others have to get in while handshakes hang.
        max_handshakes: asked.max_handshakes.min(config.max_connections / 2),
        identity: asked.identity,
        read_access: |file, text| read_access(file, text).map_err(|report| report.to_string()),
        open_control: asked.open_control,
        clients: asked.clients,
    };
    let clock = Arc::clone(&machine.clock);
    Ok(Security::open(policy, clock, Arc::clone(counts))?)
}

/// Where breaches are written, if anywhere.
pub(super) fn shelf(config: &ServerConfig) -> Option<Shelf> {
    let folder = config.breach_dir.as_ref()?;
    Some(Shelf::new(folder, config.max_breach_files))
}

/// What the console tells beside what others know; none if there is none.
pub(super) fn console(
    config: &ServerConfig,
    bound: &[(TcpListener, Protocols)],
    breaches: &Breaches,
    entry: Entry,
) -> Option<Console> {
    let mut bound = bound.iter();
    let grpc = bound.find(|(_, protocols)| protocols.grpc);
    let address = grpc.and_then(|(listener, _)| listener.local_addr().ok());
    let address = address.unwrap_or(config.grpc_address);
    (config.console != ConsoleAccess::Off).then(|| Console {
        breaches: breaches.clone(),
        controls: config.console == ConsoleAccess::Control,
        grpc_port: address.port(),
        entry,
    })
}

pub(super) fn control(control: ModelControl) -> Control {
    match control {
        ModelControl::Start => Control::Start,
        ModelControl::Explicit => Control::Explicit,
        ModelControl::Watch => Control::Watch,
    }
}

pub(super) fn limits(config: &ServerConfig) -> Limits {
    Limits {
        max_connections: config.max_connections,
        max_message_bytes: config.max_message_bytes,
        max_concurrent_streams: config.max_concurrent_streams,
        max_requests: config.max_requests,
        max_in_flight_bytes: config.max_in_flight_bytes,
        max_stream_requests: config.max_stream_requests,
        read_timeout: config.read_timeout,
        write_timeout: config.write_timeout,
        max_connection_age: config.max_connection_age,
        max_connection_age_grace: config.max_connection_age_grace,
        orca_trailers: config.orca_trailers,
    }
}
