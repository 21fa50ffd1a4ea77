//! The ports that are listened on, and what is served on each.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

use super::error::StartError;
use crate::config::ServerConfig;
use crate::frontend::{Protocols, Security};

/// Connections that may wait to be let in; the system may allow fewer (`net.core.somaxconn`).
///
/// Where it has no room for those that come at once, Linux answers with SYN cookies, and by these takes a
/// client whose first bytes were lost for one that sent nothing before the next.
const BACKLOG: u32 = 4096;

/// Every port, and what is served there. Those of one address are one.
pub(super) fn bind(config: &ServerConfig) -> Result<Vec<(TcpListener, Protocols)>, StartError> {
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
        bound.push((listen(flag, address)?, protocols));
    }
    Ok(bound)
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    open(address).map_err(|source| StartError::Bind {
        flag,
        address,
        source,
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A server that comes back gets its port back.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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
