//! What is asked of those who ask: TLS, who they are, and how much they may.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::{ClientLimits, TlsFiles};

/// The flags of this part.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RawSecurity {
    /// File of the server's certificate in PEM, with those between it and its authority [default: no TLS]
    ///
    /// Every port then speaks TLS alone. The file is read anew when it changes; a broken one leaves the
    /// old one in use.
    #[arg(long, value_name = "FILE", env = "JITNEY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// File of the certificate's private key in PEM
    #[arg(long, value_name = "FILE", env = "JITNEY_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// File of authorities in PEM: clients have to have a certificate of theirs [default: none]
    #[arg(long, value_name = "FILE", env = "JITNEY_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,

    /// Milliseconds that a TLS handshake may take, 10 to 3600000 [default: 5000]
    #[arg(long, value_name = "MS", env = "JITNEY_HANDSHAKE_TIMEOUT_MS")]
    pub handshake_timeout_ms: Option<String>,

    /// TLS handshakes in progress, 1 to 1000000 [default: 1024]
    ///
    /// One more ends the oldest of them. They take half of --max-connections at most.
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_HANDSHAKES")]
    pub max_handshakes: Option<String>,

    /// TOML file that says who may ask for what: tokens, certificates, JWT [default: everybody, everything]
    ///
    /// docs/security.md has its form; `jitney token` makes tokens for it. It is read anew when it changes.
    #[arg(long, value_name = "FILE", env = "JITNEY_IDENTITY")]
    pub identity: Option<PathBuf>,

    /// Let everybody load, unload, profile and change settings: true or false [default: false]
    ///
    /// Matters where the server listens beyond this machine without --identity. On loopback everybody
    /// may, and with --identity those who have the role operate.
    #[arg(long, value_name = "BOOL", env = "JITNEY_OPEN_CONTROL")]
    pub open_control: Option<String>,

    /// Requests a second from each client, above 0 to 1000000 [default: not limited]
    ///
    /// A client is who --identity says it is, or else an address (of IPv6, a network of /64).
    #[arg(long, value_name = "RATE", env = "JITNEY_CLIENT_RATE")]
    pub client_rate: Option<String>,

    /// Requests that a client may send at once after a pause, 1 to 1000000 [default: a second's, at least 1]
    #[arg(long, value_name = "COUNT", env = "JITNEY_CLIENT_BURST")]
    pub client_burst: Option<String>,

    /// Requests in progress from each client, 1 to 1000000 [default: not limited]
    #[arg(long, value_name = "COUNT", env = "JITNEY_CLIENT_CONCURRENCY")]
    pub client_concurrency: Option<String>,

    /// Clients that are told apart by these limits, 1 to 1000000 [default: 10000]
    ///
    /// Who comes on top shares one place with all others who do.
    #[arg(long, value_name = "COUNT", env = "JITNEY_MAX_CLIENTS")]
    pub max_clients: Option<String>,
}

/// What is asked of those who ask.
#[derive(Clone, Debug, PartialEq)]
pub struct SecurityConfig {
    /// TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes in progress.
    pub max_handshakes: usize,
    /// The file that says who may ask for what; none if everybody may.
    pub identity: Option<PathBuf>,
    /// Whether everybody may change what the server does, wherever from.
    pub open_control: bool,
    /// What one client may ask.
    pub clients: ClientLimits,
}
