//! Label files of a model, read and confined to its folder.

use std::fs;
use std::io::{Error, Read};
use std::path::Path;
use std::sync::Arc;

use super::RepositoryError;
use crate::model::LabelPolicy;

/// More than the names of any model's classes take.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Reads every file that a policy names.
pub(super) fn read(folder: &Path, policy: &mut LabelPolicy) -> Result<(), RepositoryError> {
    for labels in &mut policy.0 {
        let path = folder.join(&labels.file);
        let read = lines(folder, &path);
        labels.labels = read.map_err(|source| RepositoryError::File { path, source })?;
    }
    Ok(())
}

fn lines(folder: &Path, path: &Path) -> Result<Arc<[String]>, Error> {
    if !path.canonicalize()?.starts_with(folder.canonicalize()?) {
        return Err(Error::other("it is a link to outside the model's folder"));
    }
    if !path.is_file() {
        return Err(Error::other("it is not a file"));
    }
    let mut text = String::new();
    let read = fs::File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        return Err(Error::other(format!("it has more than {MOST_BYTES} bytes")));
    }
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::model::OutputLabels;

    fn read_one(folder: &Path, file: &str) -> Result<Vec<String>, String> {
        let mut policy = LabelPolicy(vec![OutputLabels {
            output: "y".to_owned(),
            file: PathBuf::from(file),
            labels: [].into(),
        }]);
        read(folder, &mut policy).map_err(|error| error.to_string())?;
        Ok(policy.of("y").to_vec())
    }

    #[test]
    fn a_line_is_a_label() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("m");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a"), "cat\r\n\na dog\n").unwrap();
        symlink("a", folder.join("b")).unwrap();
        let labels = read_one(&folder, "b").unwrap();
        assert_eq!(labels, ["cat", "", "a dog"]);
        fs::write(outer.path().join("out"), "secret").unwrap();
        symlink("../out", folder.join("c")).unwrap();
        assert!(
            read_one(&folder, "c")
                .unwrap_err()
                .contains("outside the model's folder")
        );
        assert!(read_one(&folder, "d").unwrap_err().contains("No such file"));
        assert!(read_one(&folder, ".").unwrap_err().contains("not a file"));
        fs::write(folder.join("e"), b"\xff").unwrap();
        assert!(read_one(&folder, "e").unwrap_err().contains("UTF-8"));
    }
}
