//! Files that clients send with a load, kept for as long as the model is served.

mod root;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{ModelFolder, RepositoryError};
use root::{Root, clear_abandoned, private_folder};

/// Folders in each other that a path may name; a model has no reason for more.
const MOST_DEPTH: usize = 8;
/// Files that one load may bring.
const MOST_FILES: usize = 1000;

/// Models whose files are kept at a time.
const MOST_UPLOADS: usize = 1000;

/// Where such files are kept: a folder of the server's own, made when it is first needed and removed
/// with the server.
#[derive(Debug)]
pub struct Uploads {
    limit: u64,
    /// Where the folder is made.
    parent: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    root: Option<Root>,
    bytes: u64,
    count: usize,
    next: u64,
}

/// The files of one load. Dropping it removes them.
#[derive(Debug)]
pub struct Upload {
    uploads: Arc<Uploads>,
    path: PathBuf,
    bytes: u64,
}

impl Uploads {
    /// Takes in up to so many bytes at a time. Removes what servers have left that were killed: nobody
    /// counts it against their limits.
    pub fn new(limit: u64) -> Arc<Self> {
        Self::below(&std::env::temp_dir(), limit)
    }

    fn below(parent: &Path, limit: u64) -> Arc<Self> {
        clear_abandoned(parent);
        Arc::new(Self {
            limit,
            parent: parent.to_owned(),
            kept: Mutex::default(),
        })
    }

    /// Writes files, each with its path in the model's folder, such as `1/model.onnx`; gives that
    /// folder, to be served by this ModelConfig in JSON.
    pub fn take<C: AsRef<[u8]>>(
        self: &Arc<Self>,
        model: &str,
        config: &str,
        files: &[(String, C)],
    ) -> Result<(ModelFolder, Upload), RepositoryError> {
        if files.len() > MOST_FILES {
            let message = format!("{} files came; at most {MOST_FILES} are taken", files.len());
            return Err(RepositoryError::Refused(message));
        }
        files.iter().try_for_each(|(path, _)| check_path(path))?;
        let bytes = files
            .iter()
            .map(|(_, content)| content.as_ref().len() as u64);
        let upload = self.reserve(model, bytes.sum())?;
        for (path, content) in files {
            let path = upload.path.join(path);
            write(&path, content.as_ref()).map_err(failed(&path))?;
        }
        let folder = ModelFolder::read_as(&upload.path, model, config)?;
        Ok((folder, upload))
    }

    /// An empty folder for so much.
    fn reserve(self: &Arc<Self>, model: &str, bytes: u64) -> Result<Upload, RepositoryError> {
        let mut kept = self.lock();
        if kept.count >= MOST_UPLOADS {
            let message = format!(
                "the files of {MOST_UPLOADS} models are kept; unload some of those models first"
            );
            return Err(RepositoryError::Refused(message));
        }
        let room = self.limit.saturating_sub(kept.bytes);
        if bytes > room {
            return Err(RepositoryError::Crowded { bytes, room });
        }
        let number = kept.next;
        kept.next += 1;
        let name = format!("{number}-{model}");
        let path = kept
            .folder(&self.parent, &name)
            .map_err(failed(&self.parent))?;
        kept.bytes += bytes;
        kept.count += 1;
        Ok(Upload {
            uploads: Arc::clone(self),
            path,
            bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// A new folder of this name, in a root that is made if there is none.
    fn folder(&mut self, parent: &Path, name: &str) -> io::Result<PathBuf> {
        if let Some(root) = &self.root {
            let path = root.path().join(name);
            match private_folder(&path) {
                // Somebody has cleaned up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                made => return made.map(|()| path),
            }
        }
        let root = self.root.insert(Root::make(parent)?);
        let path = root.path().join(name);
        private_folder(&path).map(|()| path)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let mut kept = self.uploads.lock();
        kept.bytes -= self.bytes;
        kept.count -= 1;
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RepositoryError {
    move |source| RepositoryError::File {
        path: path.to_owned(),
        source,
    }
}

/// Refuses paths that could lead out of the folder.
fn check_path(path: &str) -> Result<(), RepositoryError> {
    let sound = |part: &str| {
        !part.is_empty()
            && part.len() <= 255
            && !part.starts_with('.')
            && !part.contains(['\\', '\0'])
    };
    let parts: Vec<&str> = path.split('/').collect();
    if parts.len() <= MOST_DEPTH && parts.iter().all(|part| sound(part)) {
        return Ok(());
    }
    let path: String = path.chars().take(64).collect();
    Err(RepositoryError::Refused(format!(
        "file {path:?}: allowed: a path in the model's folder, such as \"1/model.onnx\", without \
         \"..\" and without names that start with '.'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "{\"backend\": \"onnxruntime\"}";

    fn files(path: &str, bytes: usize) -> Vec<(String, Vec<u8>)> {
        vec![(path.to_owned(), vec![7; bytes])]
    }

    #[test]
    fn files_are_there_for_as_long_as_they_are_held() {
        let uploads = Uploads::new(10);
        let (folder, upload) = uploads
            .take("m", CONFIG, &files("3/model.onnx", 6))
            .unwrap();
        assert_eq!(folder.versions(), [3]);
        let file = folder.path.join("3/model.onnx");
        assert_eq!(fs::read(&file).unwrap(), [7; 6]);
        let crowded = uploads
            .take("m", CONFIG, &files("1/model.onnx", 5))
            .unwrap_err();
        assert!(
            crowded
                .to_string()
                .contains("5 bytes of files came, and 4 of"),
            "{crowded}"
        );
        drop(upload);
        assert!(!folder.path.exists());
        let (folder, upload) = uploads
            .take("m", CONFIG, &files("1/model.onnx", 10))
            .unwrap();
        let root = folder.path.parent().unwrap().to_owned();
        drop(upload);
        assert!(root.exists());
        drop(uploads);
        assert!(!root.exists());
    }

    #[test]
    fn a_root_that_somebody_has_removed_is_made_again() {
        let temporary = tempfile::tempdir().unwrap();
        let uploads = Uploads::below(temporary.path(), 10);
        let came = files("1/model.onnx", 6);
        let (folder, upload) = uploads.take("m", CONFIG, &came).unwrap();
        drop(upload);
        fs::remove_dir(folder.path.parent().unwrap()).unwrap();
        let (folder, _upload) = uploads.take("m", CONFIG, &came).unwrap();
        assert_eq!(fs::read(folder.path.join("1/model.onnx")).unwrap(), [7; 6]);
    }

    #[test]
    fn what_a_killed_server_has_left_goes_and_what_a_living_one_has_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let living = Uploads::below(temporary.path(), 10);
        let came = files("1/model.onnx", 6);
        let (kept, _upload) = living.take("m", CONFIG, &came).unwrap();
        let root = kept.path.parent().unwrap();
        // Its lock went with the process that held it.
        let mut left = root.as_os_str().to_owned();
        left.push("0");
        fs::create_dir_all(Path::new(&left).join("0-m/1")).unwrap();
        let foreign = temporary.path().join("notes");
        fs::create_dir(&foreign).unwrap();
        let _next = Uploads::below(temporary.path(), 10);
        assert!(!Path::new(&left).exists());
        assert!(kept.path.join("1/model.onnx").exists() && foreign.exists());
    }

    #[test]
    fn nothing_is_kept_of_a_load_that_is_refused() {
        let uploads = Uploads::new(10);
        assert!(
            uploads
                .take("m", "{\"backend\": 7}", &files("1/model.onnx", 9))
                .is_err()
        );
        assert!(uploads.take("m", CONFIG, &files("1/model.onnx", 9)).is_ok());
    }

    #[test]
    fn no_path_leads_out() {
        for path in [
            "",
            "/",
            "/etc/x",
            "../x",
            "1/../../x",
            "1//x",
            "1/",
            ".x",
            "1/.x",
            "1/..",
            "a\\b",
            "1/\0",
            "1/2/3/4/5/6/7/8/9",
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in ["1/model.onnx", "labels.txt", "1/2/x"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }
}
