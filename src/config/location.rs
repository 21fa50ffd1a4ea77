//! Where a repository is: a folder, or a store that a URL names.

use std::fmt;
use std::path::PathBuf;

use jitney_settings::Written;
use jitney_settings::rule::Rule;
use url::Url;

/// URLs of object stores. `file` is one of them and means a folder.
const STORES: [&str; 10] = [
    "s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss", "http", "https",
];
/// In these the part before `@` is a container, not a user.
const CONTAINERS: [&str; 2] = ["abfs", "abfss"];

/// Where a repository is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// An object store, and where in it.
    Store(Url),
}

impl Default for Location {
    fn default() -> Self {
        Self::Folder(PathBuf::new())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(formatter),
            Self::Store(url) => formatter.write_str(url.as_str().trim_end_matches('/')),
        }
    }
}

/// A folder, or a URL of a store.
pub(super) struct Place;

impl Rule for Place {
    type Output = Location;

    fn read(&self, written: Written<'_>) -> Option<Location> {
        parse(written.text()?).ok()
    }

    fn allowed(&self) -> String {
        "a folder, or a URL such as s3://BUCKET/PREFIX".to_owned()
    }

    fn check(&self, written: Written<'_>) -> Result<Location, String> {
        match written.text() {
            Some(text) => parse(text),
            None => Err(jitney_settings::rule::found(written, &self.allowed())),
        }
    }
}

fn parse(text: &str) -> Result<Location, String> {
    if text.is_empty() {
        return Err(format!("found \"\"; allowed: {}", Place.allowed()));
    }
    let Some((scheme, _)) = text.split_once("://") else {
        return Ok(Location::Folder(PathBuf::from(text)));
    };
    let known = scheme == "file" || STORES.contains(&scheme);
    if !known {
        return Err(format!(
            "found a URL of {scheme:?}; allowed: a folder, or a URL of file, {}",
            STORES.join(", ")
        ));
    }
    // The text is not repeated: it may hold a key.
    let url = Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    let container = CONTAINERS.contains(&scheme) && url.password().is_none();
    let user = !url.username().is_empty() || url.password().is_some();
    if (user && !container) || url.query().is_some() || url.fragment().is_some() {
        return Err(
            "a URL of a repository has no user, password, query or fragment; credentials come \
             from the environment (AWS_*, GOOGLE_*, AZURE_*)"
                .to_owned(),
        );
    }
    if scheme == "file" {
        let folder = url.to_file_path();
        return folder
            .map(Location::Folder)
            .map_err(|()| "a file URL names a folder of this machine: file:///PATH".to_owned());
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!(
            "the URL lacks a bucket or host: {scheme}://NAME/PREFIX"
        ));
    }
    Ok(Location::Store(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Location, String> {
        Place.check(Written::Plain(text))
    }

    #[test]
    fn a_path_and_a_file_url_are_folders() {
        for (text, folder) in [
            ("models", "models"),
            ("/srv/models", "/srv/models"),
            ("file:///srv/my%20models", "/srv/my models"),
        ] {
            assert_eq!(read(text), Ok(Location::Folder(folder.into())), "{text}");
        }
    }

    #[test]
    fn every_store_has_its_scheme() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/prefix",
            "gs://bucket/models",
            "az://container/models",
            "abfss://container@account.dfs.core.windows.net/models",
            "http://127.0.0.1:8080/models",
            "https://models.example/",
        ] {
            let location = read(text).unwrap();
            assert_eq!(location.to_string(), text.trim_end_matches('/'));
            assert!(matches!(location, Location::Store(_)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_and_no_secret_is() {
        for (text, told) in [
            ("", "allowed: a folder"),
            ("ftp://host/models", "\"ftp\""),
            ("s3:///models", "lacks a bucket"),
            ("file://elsewhere/models", "file:///PATH"),
            ("s3://key:secret@bucket/models", "AWS_*"),
            ("https://host/models?sig=secret", "no user, password, query"),
            ("https://[secret", "not a URL"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(told), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
