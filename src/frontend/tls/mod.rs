//! TLS: certificates that are read anew when their files change, and handshakes, bounded in number and time.
//! Uses rustls, and the files that the operator names.
//! Never says what a client may do: it says whose certificate it has.

mod handshakes;
mod material;
mod probing;
mod subject;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::contents::Contents;
use super::patience::Patience;
use crate::clock::wall_nanoseconds;
use crate::model::{Subject, TlsFiles};
use crate::telemetry::{DoorCounts, Handshake};
use crate::wire::TlsEntry;
use handshakes::Handshakes;
use material::{Material, server_config};
pub(super) use probing::client_config;

/// What makes TLS of connections.
pub(super) struct Tls {
    files: TlsFiles,
    /// Whom the certificate named when the server began.
    names: Vec<String>,
    config: ArcSwap<ServerConfig>,
    /// What was read last, whether or not it was good.
    read: Mutex<Contents>,
    handshakes: Handshakes,
    patience: Patience,
    counts: Arc<DoorCounts>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(formatter)
    }
}

impl Tls {
    /// Reads the files. Handshakes take as long as `patience` lasts, and `most` are in progress.
    pub(super) fn open(
        files: &TlsFiles,
        most: usize,
        patience: Patience,
        counts: Arc<DoorCounts>,
    ) -> Result<Self, String> {
        let mut read = Contents::default();
        let material = Material::read(files, &mut read)?;
        let config = server_config(&material)?;
        note(&files.certificate, &material, &counts);
        Ok(Self {
            files: files.clone(),
            names: material.names(),
            config: ArcSwap::from_pointee(config),
            read: Mutex::new(read),
            handshakes: Handshakes::new(most),
            patience,
            counts,
        })
    }

    /// What a client has to bring.
    pub(super) fn entry(&self) -> TlsEntry {
        let file = &self.files.certificate;
        TlsEntry {
            // A person may be in any folder.
            certificate: std::path::absolute(file).unwrap_or_else(|_| file.clone()),
            names: self.names.clone(),
            wants_certificate: self.files.client_ca.is_some(),
        }
    }

    /// Looks whether the files have changed, and takes what is new for those who connect from now on. What
    /// is broken is told once, and changes nothing.
    pub(super) fn look(&self) {
        let mut read = Contents::default();
        let material = Material::read(&self.files, &mut read);
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == read {
            return;
        }
        *last = read;
        let changed = material.and_then(|material| {
            self.config.store(Arc::new(server_config(&material)?));
            note(&self.files.certificate, &material, &self.counts);
            Ok(())
        });
        let file = self.files.certificate.display();
        match changed {
            Ok(()) => tracing::info!(%file, "TLS: the certificate was read anew"),
            Err(error) => {
                tracing::error!(%file, "TLS: the old certificate stays in use: {error}");
            }
        }
    }

    /// Makes a handshake; none if it fails, takes too long, or has to make room.
    pub(super) async fn accept<S>(&self, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let (_place, mut crowded) = self.handshakes.begin();
        let (stream, outcome) = tokio::select! {
            made = acceptor.accept(stream) => match made {
                Ok(stream) => (Some(stream), Handshake::Done),
                Err(error) => {
                    tracing::debug!("TLS: a handshake failed: {error}");
                    (None, Handshake::Failed)
                }
            },
            () = self.patience.begin() => (None, Handshake::Slow),
            _ = &mut crowded => (None, Handshake::Crowded),
        };
        self.counts.handshake(outcome);
        stream
    }
}

/// Whom the client's certificate names; nobody if it has none.
pub(super) fn subjects<S>(stream: &TlsStream<S>) -> Vec<Subject> {
    let (_, connection) = stream.get_ref();
    let chain = connection.peer_certificates().unwrap_or_default();
    chain
        .first()
        .map(|leaf| subject::of(leaf))
        .unwrap_or_default()
}

/// Tells until when a certificate is good.
fn note(file: &Path, material: &Material, counts: &DoorCounts) {
    let Some(not_after) = material.not_after() else {
        return;
    };
    counts.certificate(not_after.max(1));
    if not_after < wall_nanoseconds() / 1_000_000_000 {
        tracing::warn!(file = %file.display(), "TLS: the certificate has expired");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::clock::MonotonicClock;

    /// A certificate that ends in such a year, and its key.
    fn pair(year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(["a.test".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_broken_pair_changes_nothing_and_a_whole_one_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
            client_ca: None,
        };
        let write = |file: &Path, text: &str| std::fs::write(file, text).unwrap();
        let (first, first_key) = pair(2040);
        let (second, second_key) = pair(2041);
        write(&files.certificate, &first);
        write(&files.key, &first_key);
        let clock = Arc::new(MonotonicClock::start());
        let patience = Patience::new(clock, Duration::ZERO);
        let tls = Tls::open(&files, 1, patience, Arc::default()).unwrap();
        let changes = || {
            let before = tls.config.load_full();
            tls.look();
            !Arc::ptr_eq(&before, &tls.config.load_full())
        };
        assert!(!changes());
        // The new certificate with the old key, then none.
        write(&files.certificate, &second);
        assert!(!changes());
        std::fs::remove_file(&files.key).unwrap();
        assert!(!changes());
        write(&files.key, &second_key);
        assert!(changes());
        assert!(!changes());
        write(&files.certificate, "no certificate");
        assert!(!changes());
    }
}
