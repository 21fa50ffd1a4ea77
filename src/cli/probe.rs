//! `jitney probe`: asks a running server whether it is ready, by its exit code.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::frontend::{LIVE, probe};
use crate::model::TlsFiles;

/// Asks a server on this machine whether it is ready; exits with 1 if it is not.
///
/// For an image's health check, where there is no shell and no other client.
#[derive(Debug, clap::Args)]
pub(super) struct Probe {
    /// Where it serves gRPC; 0.0.0.0 and [::] are asked over loopback.
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "JITNEY_GRPC_ADDRESS",
        default_value = "127.0.0.1:8001"
    )]
    grpc_address: SocketAddr,

    /// Ask by TLS: the file of the server's certificate, which is shown to a server that wants one.
    #[arg(
        long,
        value_name = "FILE",
        env = "JITNEY_TLS_CERT",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// The file of the certificate's key.
    #[arg(
        long,
        value_name = "FILE",
        env = "JITNEY_TLS_KEY",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Ask whether this model is ready, and not the server.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    model: String,

    /// Ask whether the process answers, whatever it has loaded.
    #[arg(long, conflicts_with = "model")]
    live: bool,

    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    timeout_ms: u32,
}

impl Probe {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let service = if self.live { LIVE } else { &self.model };
        let patience = Duration::from_millis(self.timeout_ms.into());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let files = self.tls_cert.zip(self.tls_key);
        let files = files.map(|(certificate, key)| TlsFiles {
            certificate,
            key,
            client_ca: None,
        });
        runtime.block_on(probe(self.grpc_address, files.as_ref(), service, patience))?;
        println!("serving");
        Ok(())
    }
}
