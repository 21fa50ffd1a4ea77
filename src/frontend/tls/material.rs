//! Certificates and keys as files have them, and what rustls makes of them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::subject;
use crate::frontend::contents::Contents;
use crate::model::TlsFiles;

/// What the files say.
pub(in crate::frontend) struct Material<'a> {
    files: &'a TlsFiles,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    client_ca: Option<Vec<CertificateDer<'static>>>,
}

impl<'a> Material<'a> {
    /// Reads every file, also after one of them has failed.
    pub(super) fn read(files: &'a TlsFiles, contents: &mut Contents) -> Result<Self, String> {
        let certificate = contents.read(&files.certificate);
        let key = contents.read(&files.key);
        let client_ca = files.client_ca.as_ref().map(|file| contents.read(file));
        Ok(Self {
            files,
            chain: certificates(&files.certificate, &certificate?)?,
            key: PrivateKeyDer::from_pem_slice(&key?).map_err(|error| {
                let file = files.key.display();
                format!("{file}: no private key in PEM: {error}")
            })?,
            client_ca: match (&files.client_ca, client_ca) {
                (Some(file), Some(pem)) => Some(certificates(file, &pem?)?),
                _ => None,
            },
        })
    }

    /// The hosts and addresses that the certificate names.
    pub(super) fn names(&self) -> Vec<String> {
        let leaf = self.chain.first();
        leaf.map(|leaf| subject::hosts(leaf)).unwrap_or_default()
    }

    /// Until when the certificate is good, in seconds since the Unix epoch.
    pub(super) fn not_after(&self) -> Option<u64> {
        subject::not_after(self.chain.first()?)
    }
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let file = file.display();
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{file}: no certificate in PEM")),
        Err(error) => Err(format!("{file}: no certificates in PEM: {error}")),
    }
}

/// How the server speaks TLS.
pub(super) fn server_config(material: &Material<'_>) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match (&material.client_ca, &material.files.client_ca) {
        (Some(authorities), Some(file)) => {
            let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
            let roots = roots(authorities).map_err(|error| told(&error))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| told(&error))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let config = builder.with_single_cert(material.chain.clone(), material.key.clone_key());
    let mut config = config.map_err(|error| {
        let (certificate, key) = (&material.files.certificate, &material.files.key);
        format!("{} with {}: {error}", certificate.display(), key.display())
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone())?;
    }
    Ok(roots)
}
