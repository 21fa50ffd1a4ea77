//! Who asks, and what each may have: tokens, JWT and certificates; roles; limits of each client.
//! Uses the operator's file, the headers of a call, and what its connection says.
//! Never reads a body: whoever may not ask costs a look at the headers.

pub(super) mod clients;
mod guard;
mod jwt;
mod known;
mod needs;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::contents::Contents;
use crate::model::{Access, Roles};
pub(super) use guard::{Guard, GuardLayer, Rules};
use jwt::Jwt;
use known::Known;
pub(super) use known::Peer;

#[cfg(test)]
pub(super) use needs::is_listed;

/// Whether a call needs nothing, so that it need not be known who asks.
#[cfg(test)]
pub(super) fn is_open(method: &http::Method, path: &str) -> bool {
    needs::need(method, path) == Some(needs::Need::Nothing)
}

/// Somebody who is known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// By what name.
    pub(super) name: Arc<str>,
    /// What the caller may do.
    pub(super) roles: Roles,
}

/// Reads the text of an operator's file, with a name for messages.
pub type ReadAccess = fn(&Path, &str) -> Result<Access, String>;

/// Everybody who is known, by a file that is read anew when it changes.
pub(super) struct Identity {
    file: PathBuf,
    read_access: ReadAccess,
    known: ArcSwap<Known>,
    /// What was read last, whether or not it was good.
    read: Mutex<Contents>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(formatter)
    }
}

impl Identity {
    /// Reads the file, and that of the issuer's keys if it names one.
    pub(super) fn open(file: &Path, read_access: ReadAccess) -> Result<Self, String> {
        let mut read = Contents::default();
        let known = known(file, read_access, &mut read)?;
        Ok(Self {
            file: file.to_owned(),
            read_access,
            known: ArcSwap::from_pointee(known),
            read: Mutex::new(read),
        })
    }

    /// Looks whether the files have changed. What is broken is told once, and changes nothing.
    pub(super) fn look(&self) {
        let mut read = Contents::default();
        let known = known(&self.file, self.read_access, &mut read);
        let mut last = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == read {
            return;
        }
        *last = read;
        let file = self.file.display();
        match known {
            Ok(known) => {
                self.known.store(Arc::new(known));
                tracing::info!(%file, "identity: who is known was read anew");
            }
            Err(error) => tracing::error!(%file, "identity: who was known stays so: {error}"),
        }
    }

    /// Whether anybody is known by a certificate.
    pub(super) fn needs_certificates(&self) -> bool {
        self.known.load().needs_certificates()
    }

    /// Everybody, as it is now.
    pub(super) fn known(&self) -> Arc<Known> {
        self.known.load_full()
    }
}

fn known(file: &Path, read: ReadAccess, contents: &mut Contents) -> Result<Known, String> {
    let source = String::from_utf8(contents.read(file)?);
    let source = source.map_err(|_| format!("{}: is not UTF-8", file.display()))?;
    let access = read(file, &source)?;
    let jwt = access.jwt.as_ref().map(|policy| {
        let keys = contents.read(&policy.keys)?;
        Jwt::new(policy.clone(), &keys)
            .map_err(|error| format!("{}: {error}", policy.keys.display()))
    });
    Ok(Known::new(access, jwt.transpose()?))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::config::read_access;

    #[test]
    fn a_broken_file_changes_nothing_and_a_mended_one_everything() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity.toml");
        let put = |secret: &str| {
            let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
            let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
            let digest: String = digest.collect();
            let text = format!("[[tokens]]\nname = \"a\"\nroles = []\nsha256 = \"{digest}\"");
            std::fs::write(&file, text).unwrap();
        };
        put("first");
        let identity = Identity::open(&file, |file, text| {
            read_access(file, text).map_err(|report| report.to_string())
        });
        let identity = identity.unwrap();
        let knows = |secret: &str| {
            identity.look();
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-api-key"),
                secret.parse().unwrap(),
            )]);
            identity.known().caller(&headers, None, 0).is_ok()
        };
        assert!(knows("first"));
        std::fs::write(&file, "[[tokens]").unwrap();
        assert!(knows("first"));
        std::fs::remove_file(&file).unwrap();
        assert!(knows("first"));
        put("second");
        assert!(knows("second") && !knows("first"));
    }
}
