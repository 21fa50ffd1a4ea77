//! Models as they lie in a folder or a store: `<root>/<model>/<version>/model.onnx`, `model.toml` or
//! `config.pbtxt` beside the versions; and models that came with a load, kept like that.
//! Uses `config` to read the configuration and `model` for names and policies.
//! Never loads a model, and never leaves its root.

mod fetched;
mod fingerprint;
mod folder;
mod labels;
mod links;
mod needs;
mod remote;
mod uploads;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use fetched::Fetched;
pub use fingerprint::Fingerprint;
pub use folder::ModelFolder;
pub use links::FolderRules;
pub use needs::MOST_NESTED;
use remote::Mirror;
pub use remote::{RemoteError, RemoteSettings};
use rustix::io::Errno;
pub use uploads::{Upload, Uploads};
use url::Url;

use crate::backend::Artifact;
use crate::clock::Clock;
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
    /// What a client sent with a load cannot be taken.
    #[error("{0}")]
    Refused(String),
    /// More files came with loads than may be kept.
    #[error(
        "{bytes} bytes of files came, and {room} of max_uploaded_bytes are free; unload models that \
         came with files, or put them into the repository"
    )]
    Crowded {
        /// How much came.
        bytes: u64,
        /// How much would have been taken.
        room: u64,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Report),
    /// Ensembles that are made of each other.
    #[error("an ensemble cannot be made of itself: {0}")]
    Circle(String),
    /// Ensembles of ensembles, too deep.
    #[error("ensembles nest at most {MOST_NESTED} deep: {0}")]
    Nested(String),
    /// A store or the cache fails.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A bug of ours.
    #[error("reading the repository panicked: {0}")]
    Panicked(String),
}

/// Where models lie.
#[derive(Clone, Debug)]
enum Place {
    /// A folder.
    Folder(PathBuf, FolderRules),
    /// A store, and folders in the cache for what is taken from there.
    Store(Arc<Mirror>),
}

/// Models by name, in a folder or a store.
#[derive(Clone, Debug)]
pub struct Repository {
    /// What people know it by.
    root: PathBuf,
    place: Place,
}

impl Repository {
    /// The repository at `root`, which must be a folder that can be read.
    pub fn open(root: &Path, rules: FolderRules) -> Result<Self, RepositoryError> {
        fs::read_dir(root).map_err(|source| RepositoryError::Root {
            root: root.to_owned(),
            source,
        })?;
        Ok(Self {
            root: root.to_owned(),
            place: Place::Folder(root.to_owned(), rules),
        })
    }

    /// The repository in the store at `url`, of which nothing is asked yet.
    pub fn open_store(
        url: &Url,
        settings: RemoteSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RepositoryError> {
        let mirror = Mirror::open(url, settings, clock)?;
        Ok(Self {
            root: PathBuf::from(url.as_str().trim_end_matches('/')),
            place: Place::Store(Arc::new(mirror)),
        })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Waits for a store to answer, or for the cache to stand in for it, and for what is new there
    /// to come to rest.
    pub async fn first_look(&self, interval: Duration) {
        if let Place::Store(mirror) = &self.place {
            mirror.first_look(interval).await;
        }
    }

    /// Looks at a store; what it then says holds until the next look. A folder is looked at whenever
    /// it is asked.
    pub async fn look(&self) -> Result<(), RepositoryError> {
        match &self.place {
            Place::Folder(..) => Ok(()),
            Place::Store(mirror) => Ok(mirror.look().await?),
        }
    }

    /// Looks at one model of a store, until it rests.
    pub async fn look_at(&self, model: &str) -> Result<(), RepositoryError> {
        match &self.place {
            Place::Folder(..) => Ok(()),
            Place::Store(mirror) => Ok(mirror.look_at(model).await?),
        }
    }

    /// Brings what a store has of a model to this machine, and says how much of it has come.
    pub async fn bring(&self, model: &str, fetched: &Fetched) -> Result<(), RepositoryError> {
        match &self.place {
            Place::Folder(..) => Ok(()),
            Place::Store(mirror) => Ok(mirror.bring(model, fetched).await?),
        }
    }

    /// Says that a model is not served: what the cache has of it may go when room is needed.
    pub fn release(&self, model: &str) {
        if let Place::Store(mirror) = &self.place {
            mirror.release(model);
        }
    }

    /// Says that a version is no model that can be read: what came from a store may not be what is there, and is
    /// fetched anew when it is brought next. Waits for the disk.
    pub fn doubt(&self, artifact: &Artifact) {
        if let (Place::Store(mirror), Some(lease)) = (&self.place, &artifact.lease) {
            let id = &artifact.id;
            mirror.doubt(&id.model, Some(id.version), Some(lease));
        }
    }

    /// The same of a model's configuration.
    pub fn doubt_configuration(&self, model: &str) {
        if let Place::Store(mirror) = &self.place {
            mirror.doubt(model, None, None);
        }
    }

    /// The time to the next look, where they are `interval` apart if all is well.
    pub fn pause(&self, interval: Duration) -> Duration {
        match &self.place {
            Place::Folder(..) => interval,
            Place::Store(mirror) => mirror.pause(interval),
        }
    }

    /// Whether what changed is whole when it is seen; if not, it has to be seen at rest.
    pub fn is_whole(&self) -> bool {
        matches!(self.place, Place::Store(_))
    }

    /// Whether a model that could not be brought may be tried again.
    pub fn is_due(&self, model: &str) -> bool {
        match &self.place {
            Place::Folder(..) => true,
            Place::Store(mirror) => mirror.is_due(model),
        }
    }

    /// The names of all models, sorted. Folders whose names cannot be a model's are passed over.
    pub fn names(&self) -> Result<Vec<String>, RepositoryError> {
        match &self.place {
            Place::Folder(root, _) => names(root),
            Place::Store(mirror) => Ok(mirror.names()),
        }
    }

    /// One model's folder: its policy and the versions in it.
    pub fn read(&self, model: &str) -> Result<ModelFolder, RepositoryError> {
        match &self.place {
            Place::Folder(root, rules) => {
                ModelFolder::read(&self.folder(root, *rules, model)?, model)
            }
            Place::Store(mirror) => mirror
                .read(model)
                .unwrap_or_else(|| Err(self.no_model(model))),
        }
    }

    /// The same folder, served by this ModelConfig in JSON in place of its own configuration.
    pub fn read_as(&self, model: &str, config: &str) -> Result<ModelFolder, RepositoryError> {
        match &self.place {
            Place::Folder(root, rules) => {
                ModelFolder::read_as(&self.folder(root, *rules, model)?, model, config)
            }
            Place::Store(mirror) => mirror
                .read_as(model, config)
                .unwrap_or_else(|| Err(self.no_model(model))),
        }
    }

    /// What one model's files look like from outside: changes when any of them does.
    pub fn fingerprint(&self, model: &str) -> Result<Fingerprint, RepositoryError> {
        match &self.place {
            Place::Folder(root, rules) => {
                Fingerprint::of(&self.folder(root, *rules, model)?, Path::new(""))
            }
            Place::Store(mirror) => Ok(mirror.fingerprint(model)),
        }
    }

    /// The folder of a model, in which nothing leads out of the repository.
    fn folder(
        &self,
        root: &Path,
        rules: FolderRules,
        model: &str,
    ) -> Result<PathBuf, RepositoryError> {
        let folder = root.join(model);
        let is_there = check_name(model).is_ok() && leads_to_folder(&folder);
        if !is_there {
            return Err(self.no_model(model));
        }
        rules.check(root, &folder)?;
        Ok(folder)
    }

    fn no_model(&self, model: &str) -> RepositoryError {
        RepositoryError::NoModel {
            model: model.to_owned(),
            root: self.root.clone(),
        }
    }
}

fn names(root: &Path) -> Result<Vec<String>, RepositoryError> {
    let failed = |source| RepositoryError::Root {
        root: root.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if check_name(&name).is_ok() && may_be_folder(&entry) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn may_be_folder(entry: &fs::DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_dir() => true,
        Ok(kind) if !kind.is_symlink() => false,
        _ => leads_to_folder(&entry.path()),
    }
}

/// Whether there is a folder, as far as can be told. What cannot be looked at for now, because a file server
/// is away or says no, is there: it is its own trouble, and is not gone from the repository.
fn leads_to_folder(path: &Path) -> bool {
    const NOTHING: [Errno; 3] = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP];
    match fs::metadata(path) {
        Ok(about) => about.is_dir(),
        Err(error) => !NOTHING.map(Some).contains(&Errno::from_io_error(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_not_gone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for model in ["a", "moved"] {
            fs::create_dir_all(root.join(model).join("1")).unwrap();
        }
        fs::write(root.join("file"), "").unwrap();
        symlink("a", root.join("link")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("file/below", root.join("below")).unwrap();
        // No file system has a name of this length: to look there fails, and not with "no such file".
        symlink("x".repeat(1_000), root.join("away")).unwrap();
        let rules = FolderRules {
            follow_links: false,
            max_entries: 10,
        };
        let repository = Repository::open(root, rules).unwrap();
        assert_eq!(repository.names().unwrap(), ["a", "away", "link", "moved"]);
        let said = |model| repository.fingerprint(model).unwrap_err();
        assert!(matches!(said("away"), RepositoryError::File { .. }));
        assert!(matches!(said("dangling"), RepositoryError::NoModel { .. }));
        assert!(matches!(said("file"), RepositoryError::NoModel { .. }));
    }
}
