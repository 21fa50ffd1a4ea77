//! Models as they lie in a folder: `<root>/<model>/<version>/model.onnx`, `model.toml` beside the
//! versions. Uses `config` to read `model.toml` and `model` for names and policies.
//! Never loads a model, and never leaves its root.

mod fingerprint;
mod folder;
mod labels;
mod needs;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use fingerprint::Fingerprint;
pub use folder::ModelFolder;
pub use needs::MOST_NESTED;

use crate::config::Report;
use crate::model::check_name;

/// Why the repository or a model in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The root is not a folder that can be read.
    #[error("model repository {root}: {source}")]
    Root {
        /// The root.
        root: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// There is no folder of this name.
    #[error("there is no model {model:?} in {root}")]
    NoModel {
        /// The model's name.
        model: String,
        /// The root.
        root: PathBuf,
    },
    /// A file of the model cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// `model.toml` is wrong.
    #[error(transparent)]
    Configuration(#[from] Report),
    /// Ensembles that are made of each other.
    #[error("an ensemble cannot be made of itself: {0}")]
    Circle(String),
    /// Ensembles of ensembles, too deep.
    #[error("ensembles nest at most {MOST_NESTED} deep: {0}")]
    Nested(String),
    /// A bug of ours.
    #[error("reading the repository panicked: {0}")]
    Panicked(String),
}

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// The repository at `root`, which must be a folder that can be read.
    pub fn open(root: &Path) -> Result<Self, RepositoryError> {
        fs::read_dir(root).map_err(|source| RepositoryError::Root {
            root: root.to_owned(),
            source,
        })?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names of all models, sorted. Folders whose names cannot be a model's are passed over.
    pub fn names(&self) -> Result<Vec<String>, RepositoryError> {
        let failed = |source| RepositoryError::Root {
            root: self.root.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && check_name(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// One model's folder: its policy and the versions in it.
    pub fn read(&self, model: &str) -> Result<ModelFolder, RepositoryError> {
        ModelFolder::read(&self.folder(model)?)
    }

    /// What one model's files look like from outside: changes when any of them does.
    pub fn fingerprint(&self, model: &str) -> Result<Fingerprint, RepositoryError> {
        Fingerprint::of(&self.folder(model)?)
    }

    fn folder(&self, model: &str) -> Result<PathBuf, RepositoryError> {
        let folder = self.root.join(model);
        if check_name(model).is_ok() && folder.is_dir() {
            return Ok(folder);
        }
        Err(RepositoryError::NoModel {
            model: model.to_owned(),
            root: self.root.clone(),
        })
    }
}
