//! What the flags of TLS, identity and clients' limits mean together.

use std::path::PathBuf;
use std::time::Duration;

use jitney_settings::Problem;
use jitney_settings::rule::{Between, Truth, whole};

use super::{MANY, Settings};
use crate::config::security::{RawSecurity, SecurityConfig};
use crate::model::{ClientLimits, TlsFiles};

/// Requests a second: a client that may ask none is none.
const RATES: Between = Between(0.001..=1e6);
const BURSTS: Between = Between(1.0..=1e6);

impl Settings<'_, '_, '_> {
    pub(super) fn security(&mut self, raw: RawSecurity) -> SecurityConfig {
        let five_seconds = Duration::from_secs(5);
        let certificate = self.perhaps_path("tls_cert", raw.tls_cert);
        let key = self.perhaps_path("tls_key", raw.tls_key);
        let client_ca = self.perhaps_path("tls_client_ca", raw.tls_client_ca);
        SecurityConfig {
            tls: self.tls(certificate, key, client_ca),
            handshake_timeout: self.time(
                "handshake_timeout_ms",
                raw.handshake_timeout_ms,
                10.0,
                five_seconds,
            ),
            max_handshakes: self.count("max_handshakes", raw.max_handshakes, MANY, 1_024),
            identity: self.perhaps_path("identity", raw.identity),
            open_control: self.one("open_control", raw.open_control, Truth, false),
            clients: self.clients(
                raw.client_rate,
                raw.client_burst,
                raw.client_concurrency,
                raw.max_clients,
            ),
        }
    }

    fn clients(
        &mut self,
        rate: Option<String>,
        burst: Option<String>,
        concurrency: Option<String>,
        clients: Option<String>,
    ) -> ClientLimits {
        let rate = self.perhaps("client_rate", rate, RATES);
        let burst = self.perhaps("client_burst", burst, BURSTS);
        if burst.is_some() && rate.is_none() && self.0.is_sound() {
            let message = "is of client_rate, which is missing";
            self.0
                .note(Problem::loose("client_burst", message.to_owned()));
        }
        ClientLimits {
            rate,
            burst: burst.or(rate).unwrap_or(1.0).max(1.0),
            concurrency: self.perhaps("client_concurrency", concurrency, whole(MANY)),
            max_clients: self.count("max_clients", clients, MANY, 10_000),
        }
    }

    /// A certificate and its key, or neither.
    fn tls(
        &mut self,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Option<TlsFiles> {
        let missing = match (&certificate, &key, &client_ca) {
            (Some(_), Some(_), _) | (None, None, None) => None,
            (Some(_), None, _) => Some(("tls_key", "tls_cert")),
            (None, Some(_), _) => Some(("tls_cert", "tls_key")),
            (None, None, Some(_)) => Some(("tls_cert", "tls_client_ca")),
        };
        if let Some((key, of)) = missing {
            let message = format!("missing; {of} needs it");
            self.0.note(Problem::loose(key, message));
        }
        Some(TlsFiles {
            certificate: certificate?,
            key: key?,
            client_ca,
        })
    }
}
