//! One model's folder: `model.toml`, and a folder for each version.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fingerprint, RepositoryError, labels};
use crate::backend::Artifact;
use crate::config::read_model_policy;
use crate::model::{ModelPolicy, VersionId, VersionPolicy};

/// The file beside the versions that says how to serve them.
const CONFIGURATION: &str = "model.toml";
/// The model's file in a version's folder.
const MODEL: &str = "model.onnx";

/// One model as it lies in the repository.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What `model.toml` says, or the defaults.
    pub policy: ModelPolicy,
    fingerprints: BTreeMap<u64, Fingerprint>,
    lease: Option<Arc<File>>,
}

impl ModelFolder {
    pub(super) fn read(path: &Path) -> Result<Self, RepositoryError> {
        let configuration = path.join(CONFIGURATION);
        let mut policy = match fs::read_to_string(&configuration) {
            Ok(source) => read_model_policy(&configuration, &source)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => ModelPolicy::default(),
            Err(source) => {
                return Err(RepositoryError::File {
                    path: configuration,
                    source,
                });
            }
        };
        labels::read(path, &mut policy.labels)?;
        let mut policy_mark = Fingerprint::of(path, Path::new(CONFIGURATION))?;
        for labels in &policy.labels.0 {
            policy_mark = policy_mark.with(Fingerprint::of(path, &labels.file)?);
        }
        let mut fingerprints = BTreeMap::new();
        for version in numbered_folders(path)? {
            let mark = Fingerprint::of(path, Path::new(&version.to_string()))?;
            fingerprints.insert(version, mark.with(policy_mark.clone()));
        }
        Ok(Self {
            path: path.to_owned(),
            policy,
            fingerprints,
            lease: None,
        })
    }

    /// The same, kept where it is for as long as the lease is.
    pub(super) fn leased(mut self, lease: Arc<File>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// The versions that are there, ascending.
    pub fn versions(&self) -> Vec<u64> {
        self.fingerprints.keys().copied().collect()
    }

    /// Changes when the version's files, `model.toml` or label files do.
    pub fn fingerprint(&self, version: u64) -> Fingerprint {
        self.fingerprints.get(&version).cloned().unwrap_or_default()
    }

    /// The version as a backend takes it.
    pub fn artifact(&self, id: VersionId) -> Artifact {
        let folder = self.path.join(id.version.to_string());
        Artifact {
            id,
            file: folder.join(MODEL),
            folder,
            policy: self.policy.clone(),
            lease: self.lease.clone(),
        }
    }

    /// Why no version is chosen, in a sentence.
    pub fn nothing_to_serve(&self) -> String {
        let path = self.path.display();
        let there = self.versions();
        match &self.policy.versions {
            VersionPolicy::Specific(wanted) => {
                format!("{path}: model.toml asks for versions {wanted:?}, and there are {there:?}")
            }
            _ if self.policy.ensemble.is_some() => {
                format!("{path}: there is no version; make the folder {path}/1, which may be empty")
            }
            _ => format!("{path}: there is no version; put the model at {path}/1/{MODEL}"),
        }
    }
}

/// Folders named by a number of at least 1, without leading zeros, so that each number has one.
fn numbered_folders(path: &Path) -> Result<Vec<u64>, RepositoryError> {
    let failed = |source| RepositoryError::File {
        path: path.to_owned(),
        source,
    };
    let mut versions = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.parse::<u64>() {
            Ok(version) if version > 0 && version.to_string() == name && entry.path().is_dir() => {
                versions.push(version);
            }
            _ => {}
        }
    }
    Ok(versions)
}
