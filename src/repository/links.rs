//! Keeps a repository in its folder: whatever a link in a model's folder leads to has to be in the
//! repository, too, and to be a file or a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::RepositoryError;
use super::fingerprint::MOST_DEPTH;

/// What may be in a repository that is a folder.
#[derive(Clone, Copy, Debug)]
pub struct FolderRules {
    /// Whether links may lead out of it.
    pub follow_links: bool,
    /// Files and folders that one model may have.
    pub max_entries: usize,
}

impl FolderRules {
    /// Looks at everything in a model's folder in the repository at `root`. Whoever may write there can
    /// change it afterwards.
    pub(super) fn check(self, root: &Path, folder: &Path) -> Result<(), RepositoryError> {
        let root = root.canonicalize().map_err(|source| failed(root, source))?;
        let mut look = Look {
            rules: self,
            root,
            entries: 0,
        };
        look.at(folder, 0)
    }
}

/// One look at a model's folder.
struct Look {
    rules: FolderRules,
    root: PathBuf,
    entries: usize,
}

impl Look {
    /// As deep as fingerprints look; links to folders that are in each other end there, too.
    fn at(&mut self, path: &Path, depth: usize) -> Result<(), RepositoryError> {
        self.entries += 1;
        if self.entries > self.rules.max_entries {
            let most = self.rules.max_entries;
            return Err(refused(
                path,
                format!("the model has more than {most} files (max_repository_objects)"),
            ));
        }
        let Some(about) = self.about(path)? else {
            return Ok(());
        };
        if !about.is_dir() {
            return match about.is_file() {
                true => Ok(()),
                false => Err(refused(
                    path,
                    "it is neither a file nor a folder".to_owned(),
                )),
            };
        }
        if depth >= MOST_DEPTH {
            return Ok(());
        }
        for entry in fs::read_dir(path).map_err(|source| failed(path, source))? {
            let entry = entry.map_err(|source| failed(path, source))?;
            self.at(&entry.path(), depth + 1)?;
        }
        Ok(())
    }

    /// What is at `path`, or where it leads to; nothing for a link to nothing.
    fn about(&self, path: &Path) -> Result<Option<fs::Metadata>, RepositoryError> {
        let about = fs::symlink_metadata(path).map_err(|source| failed(path, source))?;
        if !about.is_symlink() {
            return Ok(Some(about));
        }
        match path.canonicalize() {
            Ok(end) if self.rules.follow_links || end.starts_with(&self.root) => {
                let about = fs::metadata(&end).map_err(|source| failed(path, source))?;
                Ok(Some(about))
            }
            Ok(end) => Err(refused(path, outside(&end))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(path, error)),
        }
    }
}

fn outside(end: &Path) -> String {
    format!(
        "it is a link to {}, which is not in the repository: put it there, or let links lead out of \
         it (--follow-links true)",
        end.display()
    )
}

fn refused(path: &Path, why: String) -> RepositoryError {
    failed(path, io::Error::other(why))
}

fn failed(path: &Path, source: io::Error) -> RepositoryError {
    RepositoryError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    const RULES: FolderRules = FolderRules {
        follow_links: false,
        max_entries: 20,
    };

    /// A folder with a repository `models` and a file beside it, and the model's version in it.
    fn made() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("models");
        let version = root.join("m/1");
        fs::create_dir_all(&version).unwrap();
        fs::write(folder.path().join("secret"), "s").unwrap();
        fs::write(root.join("shared"), "x").unwrap();
        (folder, root, version)
    }

    fn refusal(rules: FolderRules, root: &Path) -> Option<String> {
        let outcome = rules.check(root, &root.join("m"));
        outcome.err().map(|error| error.to_string())
    }

    #[test]
    fn links_stay_in_the_repository() {
        let (folder, root, version) = made();
        symlink("../../shared", version.join("model.onnx")).unwrap();
        symlink("nowhere", version.join("dangling")).unwrap();
        assert_eq!(refusal(RULES, &root), None);
        // The repository itself may be reached by a link.
        let link = folder.path().join("link");
        symlink(&root, &link).unwrap();
        assert_eq!(refusal(RULES, &link), None);
        for (name, target) in [
            ("1/weights", "../../../secret"),
            ("model.toml", "/etc/hostname"),
        ] {
            let link = root.join("m").join(name);
            symlink(target, &link).unwrap();
            let said = refusal(RULES, &root).unwrap();
            assert!(
                said.contains(name) && said.contains("--follow-links"),
                "{said}"
            );
            let follow = FolderRules {
                follow_links: true,
                ..RULES
            };
            assert_eq!(refusal(follow, &root), None);
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn folders_behind_links_are_looked_into() {
        let (folder, root, version) = made();
        fs::create_dir(root.join("other")).unwrap();
        symlink(folder.path().join("secret"), root.join("other/file")).unwrap();
        symlink("../../other", version.join("part")).unwrap();
        assert!(refusal(RULES, &root).unwrap().contains("part/file"));
        // And the model's folder may be one.
        symlink(folder.path(), root.join("whole")).unwrap();
        let said = RULES.check(&root, &root.join("whole")).unwrap_err();
        assert!(said.to_string().contains("not in the repository"), "{said}");
    }

    #[test]
    fn what_would_never_end_is_refused() {
        let (_folder, root, version) = made();
        for number in 0..20 {
            symlink(".", version.join(number.to_string())).unwrap();
        }
        let said = refusal(RULES, &root).unwrap();
        assert!(said.contains("more than 20 files"), "{said}");
        let (_folder, root, version) = made();
        let _socket = UnixListener::bind(version.join("model.onnx")).unwrap();
        let said = refusal(RULES, &root).unwrap();
        assert!(said.contains("neither a file nor a folder"), "{said}");
        let (_folder, root, version) = made();
        symlink("loop", version.join("loop")).unwrap();
        assert!(refusal(RULES, &root).unwrap().contains("loop"));
    }
}
