//! Where a server is, and how it is spoken to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

/// As large as the server's windows, so that neither side waits for the other's.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Where a server is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Such as `127.0.0.1:8001`.
    pub address: String,
    /// What carries the requests.
    pub protocol: Protocol,
    /// Whom to trust, if the connection is to be encrypted.
    pub tls: Option<Tls>,
}

/// What carries the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// A call of ModelInfer for each.
    #[default]
    Grpc,
    /// One ModelStreamInfer for each connection.
    GrpcStream,
    /// HTTP, with tensors as they are (the binary data extension).
    Rest,
    /// HTTP, with tensors as JSON.
    RestJson,
}

/// How a server proves who it is, and the client if it is asked to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of those who may vouch for the server, as PEM.
    pub authority: PathBuf,
    /// The name in the server's certificate, if it is not that of the address.
    pub name: Option<String>,
    /// The client's own certificate and key, as PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl From<&str> for Endpoint {
    fn from(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            protocol: Protocol::default(),
            tls: None,
        }
    }
}

impl From<&String> for Endpoint {
    fn from(address: &String) -> Self {
        address.as_str().into()
    }
}

impl From<&Endpoint> for Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone()
    }
}

impl Endpoint {
    /// A new connection.
    pub(super) async fn connect(&self) -> anyhow::Result<Channel> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{}", self.address);
        let mut endpoint = tonic::transport::Endpoint::from_shared(uri)?
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .tcp_nodelay(true);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.read()?)?;
        }
        let connected = endpoint.connect().await;
        connected.with_context(|| format!("cannot connect to {}", self.address))
    }
}

impl Tls {
    fn read(&self) -> anyhow::Result<ClientTlsConfig> {
        let authority = Certificate::from_pem(pem(&self.authority)?);
        let mut config = ClientTlsConfig::new().ca_certificate(authority);
        if let Some(name) = &self.name {
            config = config.domain_name(name);
        }
        if let Some((certificate, key)) = &self.identity {
            config = config.identity(Identity::from_pem(pem(certificate)?, pem(key)?));
        }
        Ok(config)
    }
}

fn pem(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
