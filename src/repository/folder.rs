//! One model's folder: `model.toml` or `config.pbtxt`, and a folder for each version.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Fingerprint, RepositoryError, labels};
use crate::backend::Artifact;
use crate::config::{read_model_config, read_model_config_json, read_model_policy};
use crate::model::{ModelPolicy, VersionId, VersionPolicy};

/// The file beside the versions that says how to serve them.
const CONFIGURATION: &str = "model.toml";
/// The file that says it where there is no `model.toml`, in Triton's form.
const TRITON: &str = "config.pbtxt";
/// More than any configuration takes, with an entry for each of thousands of tensors.
const MOST_CONFIGURATION: u64 = 1 << 20;
/// The model's file in a version's folder, if the policy names no other.
const MODEL: &str = "model.onnx";

/// One model as it lies in the repository.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What its configuration says, or the defaults.
    pub policy: ModelPolicy,
    /// What the policy was read from; none for the defaults.
    pub configuration: Option<PathBuf>,
    fingerprints: BTreeMap<u64, Fingerprint>,
    /// Keeps it where it is, if that is a cache.
    pub lease: Option<Arc<File>>,
}

impl ModelFolder {
    /// The folder at `path` of a model of this name: `model.toml` says how it is served, else
    /// `config.pbtxt`. With both, the latter is for other servers.
    pub fn read(path: &Path, model: &str) -> Result<Self, RepositoryError> {
        let (own, triton) = (path.join(CONFIGURATION), path.join(TRITON));
        let (policy, configuration) = match (text_of(&own)?, text_of(&triton)?) {
            (Some(source), _) => (read_model_policy(&own, &source)?, Some(own)),
            (None, Some(source)) => (read_model_config(model, &triton, &source)?, Some(triton)),
            (None, None) => (ModelPolicy::default(), None),
        };
        let mark = match configuration.as_ref().and_then(|file| file.file_name()) {
            Some(file) => Fingerprint::of(path, Path::new(file))?,
            None => Fingerprint::default(),
        };
        Self::with(path, policy, configuration, mark)
    }

    /// The folder at `path`, served as a client says: a ModelConfig in JSON in place of what is there.
    pub(super) fn read_as(path: &Path, model: &str, config: &str) -> Result<Self, RepositoryError> {
        let policy = read_model_config_json(model, config)?;
        Self::with(path, policy, None, Fingerprint::of_text(config))
    }

    fn with(
        path: &Path,
        mut policy: ModelPolicy,
        configuration: Option<PathBuf>,
        mut mark: Fingerprint,
    ) -> Result<Self, RepositoryError> {
        labels::read(path, &mut policy.labels)?;
        for labels in &policy.labels.0 {
            mark = mark.with(Fingerprint::of(path, &labels.file)?);
        }
        let mut fingerprints = BTreeMap::new();
        for version in numbered_folders(path)? {
            let own = Fingerprint::of(path, Path::new(&version.to_string()))?;
            fingerprints.insert(version, own.with(mark.clone()));
        }
        Ok(Self {
            path: path.to_owned(),
            policy,
            configuration,
            fingerprints,
            lease: None,
        })
    }

    /// The same, kept where it is for as long as the lease is.
    pub(super) fn leased(mut self, lease: Arc<File>) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Whether there is a `config.pbtxt` that is not read.
    pub fn passes_over_triton(&self) -> bool {
        let triton = self.path.join(TRITON);
        self.configuration.as_ref() != Some(&triton) && triton.is_file()
    }

    /// The versions that are there, ascending.
    pub fn versions(&self) -> Vec<u64> {
        self.fingerprints.keys().copied().collect()
    }

    /// Changes when the version's files, its configuration or label files do.
    pub fn fingerprint(&self, version: u64) -> Fingerprint {
        self.fingerprints.get(&version).cloned().unwrap_or_default()
    }

    /// The version as a backend takes it.
    pub fn artifact(&self, id: VersionId) -> Artifact {
        let folder = self.path.join(id.version.to_string());
        Artifact {
            id,
            file: folder.join(self.policy.file.as_deref().unwrap_or(MODEL)),
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
                format!(
                    "{path}: the configuration asks for versions {wanted:?}, and there are {there:?}"
                )
            }
            _ if self.policy.ensemble.is_some() => {
                format!("{path}: there is no version; make the folder {path}/1, which may be empty")
            }
            _ => format!("{path}: there is no version; put the model at {path}/1/{MODEL}"),
        }
    }
}

/// The text of a file, if it is there.
fn text_of(file: &Path) -> Result<Option<String>, RepositoryError> {
    let read = || {
        let mut text = String::new();
        let read = File::open(file)?
            .take(MOST_CONFIGURATION + 1)
            .read_to_string(&mut text)?;
        if read as u64 > MOST_CONFIGURATION {
            let why = format!("it has more than {MOST_CONFIGURATION} bytes");
            return Err(io::Error::other(why));
        }
        Ok(text)
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RepositoryError::File {
            path: file.to_owned(),
            source,
        }),
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
