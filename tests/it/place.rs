//! What a server that is to be safe is started with: a model, and files that say who gets in.

use std::path::PathBuf;

use jitney::config::{RawSecurity, RawServer};
use jitney::server::Server;

use super::authority::Pair;
use super::node::Node;
use super::repository::Repository;

/// A repository with a model, and a folder of certificates and names.
pub(crate) struct Place {
    pub(crate) repository: Repository,
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            repository: Repository::of("", ""),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        // As Kubernetes does: never half of it.
        let half = path.with_extension("half");
        std::fs::write(&half, text).unwrap();
        std::fs::rename(half, &path).unwrap();
        path
    }

    pub(crate) fn put_pair(&self, pair: &Pair) {
        self.put("tls.crt", &pair.certificate);
        self.put("tls.key", &pair.key);
    }

    pub(crate) fn tls(&self) -> RawSecurity {
        RawSecurity {
            tls_cert: Some(self.folder.path().join("tls.crt")),
            tls_key: Some(self.folder.path().join("tls.key")),
            ..RawSecurity::default()
        }
    }

    pub(crate) async fn server(&self, security: RawSecurity) -> Server {
        let settings = RawServer {
            model_control: Some("explicit".to_owned()),
            load_model: vec!["m".to_owned()],
            security,
            ..RawServer::default()
        };
        Node::server(&self.repository.path(), settings).await
    }
}
