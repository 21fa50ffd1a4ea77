//! A question to a running server's health, for images in which no other program could ask it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{self, Endpoint};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::tls::client_config;
use crate::model::TlsFiles;

/// Why a server, or what was asked about, is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody answers there.
    #[error("no server answers at {0}")]
    Away(SocketAddr, #[source] transport::Error),
    /// It answers otherwise than with its health.
    #[error("the server at {0} does not tell the health of {1:?}: {2}")]
    Refused(SocketAddr, String, Code),
    /// Its certificate and key, by which it is asked, cannot be read.
    #[error("cannot speak TLS: {0}")]
    Tls(String),
    /// It answers that it is not.
    #[error("the server at {0} is not serving")]
    NotServing(SocketAddr),
}

/// Asks the server at an address whether a service of it is serving: the empty name is the server,
/// [`LIVE`](super::readiness::LIVE) its process, others are models. Gives up after `patience`. A server that
/// speaks TLS is shown its own certificate, in case that it wants one.
pub async fn probe(
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    service: &str,
    patience: Duration,
) -> Result<(), ProbeError> {
    let address = reachable(address);
    let away = |error| ProbeError::Away(address, error);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(away)?;
    let endpoint = endpoint.connect_timeout(patience).timeout(patience);
    let channel = match tls {
        None => endpoint.connect().await,
        Some(files) => {
            let config = client_config(files).map_err(ProbeError::Tls)?;
            let connector = TlsConnector::from(Arc::new(config));
            let connect = tower::service_fn(move |_| secured(connector.clone(), address));
            endpoint.connect_with_connector(connect).await
        }
    };
    let channel = channel.map_err(away)?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let refused = |status: Status| ProbeError::Refused(address, service.to_owned(), status.code());
    let answer = answer.map_err(refused)?;
    match answer.into_inner().status == ServingStatus::Serving as i32 {
        true => Ok(()),
        false => Err(ProbeError::NotServing(address)),
    }
}

async fn secured(
    connector: TlsConnector,
    address: SocketAddr,
) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::IpAddress(address.ip().into());
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}

/// Who listens on every interface is asked over the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(loopback, address.port())
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn every_interface_is_asked_over_loopback() {
        let cases = [
            ("0.0.0.0:8001", "127.0.0.1:8001"),
            ("[::]:8001", "[::1]:8001"),
            ("127.0.0.3:9", "127.0.0.3:9"),
        ];
        for (bound, asked) in cases {
            let found = reachable(bound.parse().unwrap());
            assert_eq!(found, asked.parse().unwrap());
        }
    }
}
