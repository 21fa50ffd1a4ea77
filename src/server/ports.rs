//! The ports that are listened on, and what is served on each.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use super::error::StartError;
use crate::config::ServerConfig;
use crate::frontend::{Protocols, Security};

/// Every port, and what is served there. Those of one address are one.
pub(super) async fn bind(
    config: &ServerConfig,
) -> Result<Vec<(TcpListener, Protocols)>, StartError> {
    let mut ports: Vec<(&str, SocketAddr, Protocols)> = Vec::new();
    let mut serve = |flag, address: Option<SocketAddr>, what: fn(&mut Protocols) -> &mut bool| {
        let Some(address) = address else {
            return;
        };
        let known = ports.iter().position(|(_, known, _)| *known == address);
        let place = known.unwrap_or_else(|| {
            ports.push((flag, address, Protocols::default()));
            ports.len() - 1
        });
        if let Some((_, _, protocols)) = ports.get_mut(place) {
            *what(protocols) = true;
        }
    };
    serve("grpc-address", Some(config.grpc_address), |on| &mut on.grpc);
    serve("http-address", config.http_address, |on| &mut on.rest);
    serve("metrics-address", config.metrics_address, |on| {
        &mut on.metrics
    });
    let mut bound = Vec::new();
    for (flag, address, protocols) in ports {
        bound.push((listen(flag, address).await?, protocols));
    }
    Ok(bound)
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| StartError::Bind {
        flag,
        address,
        source,
    })
}

/// Says loudly what listens beyond the machine and is not safe there.
pub(super) fn warn_if_open(bound: &[(TcpListener, Protocols)], security: &Security) {
    let Some(lacks) = security.lacks() else {
        return;
    };
    for (listener, _) in bound {
        let address = listener.local_addr();
        let address = address
            .ok()
            .filter(|address| !address.ip().to_canonical().is_loopback());
        if let Some(address) = address {
            tracing::warn!(
                "OPEN TO THE WORLD: {address} listens beyond this machine {lacks}; see docs/security.md"
            );
        }
    }
}
