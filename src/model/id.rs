//! A model's name and version, and which names are safe as a folder's name.

use std::fmt;
use std::sync::Arc;

/// One version of one model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionId {
    /// The model's name, which is its folder's name.
    pub model: Arc<str>,
    /// The version's number, at least 1.
    pub version: u64,
}

impl fmt::Display for VersionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} version {}", self.model, self.version)
    }
}

/// Why a name cannot be a model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "model name {name:?} is not usable: 1 to 255 letters, digits, '.', '_' or '-' are, not starting with '.'"
)]
pub struct InvalidName {
    name: String,
}

/// Accepts names that can be a folder's on every file system and leave the repository on none.
pub fn check_name(name: &str) -> Result<(), InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let sound =
        (1..=255).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed);
    if sound {
        Ok(())
    } else {
        Err(InvalidName {
            name: name.chars().take(64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_the_repository() {
        for name in ["digits", "mobilenet_v2-7", "a.b"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for name in ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", ".git", "ä"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
