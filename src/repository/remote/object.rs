//! One object of a model, as the store lists it, and where it belongs.

use std::collections::BTreeMap;

use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::model::check_name;

/// Deeper objects than this have no reason to be in a model's folder.
const MOST_SEGMENTS: usize = 8;
/// The longest name of a file that file systems take.
const LONGEST_SEGMENT: usize = 255;

/// One object of a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Object {
    /// Its path below the model's folder, segments separated by `/`.
    pub(super) path: String,
    /// Bytes.
    pub(super) size: u64,
    /// What the store calls its content.
    pub(super) e_tag: Option<String>,
    /// When it was written, by the store's clock: nanoseconds since the Unix epoch.
    pub(super) modified: i64,
}

impl Object {
    /// What it belongs to.
    pub(super) fn unit(&self) -> Unit {
        let first = self.path.split_once('/').map(|(first, _)| first);
        first.and_then(version).map_or(Unit::Root, Unit::Version)
    }
}

/// What changes as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Unit {
    /// What is beside the versions: configuration, labels.
    Root,
    /// The objects of one version.
    Version(u64),
}

/// The objects of one model by what they belong to, or why they cannot be files.
pub(super) type Found = Result<BTreeMap<Unit, Vec<Object>>, String>;

/// What a store holds, by model.
#[derive(Debug, Default)]
pub(super) struct Listing(pub(super) BTreeMap<String, Found>);

impl Listing {
    /// Everything that was listed below `prefix`.
    pub(super) fn of(prefix: &Path, mut listed: Vec<ObjectMeta>) -> Self {
        listed.sort_by(|one, other| one.location.cmp(&other.location));
        let mut listing = Self::default();
        let mut rest = listed.as_slice();
        while let [meta, later @ ..] = rest {
            rest = later;
            let marker = meta.size == 0 && later.first().is_some_and(|next| below(meta, next));
            if !marker {
                listing.add(prefix, meta);
            }
        }
        listing
    }

    // Objects that are beside the models, or whose first part cannot be a model's name, are passed
    // over, as folders are.
    fn add(&mut self, prefix: &Path, meta: &ObjectMeta) {
        let whole = meta.location.as_ref();
        let relative = whole.strip_prefix(prefix.as_ref()).unwrap_or_default();
        let relative = relative.strip_prefix('/').unwrap_or(relative);
        let Some((model, path)) = relative.split_once('/') else {
            return;
        };
        // A version's folder as browsers of stores make one: an object without content.
        if check_name(model).is_err() || (meta.size == 0 && version(path).is_some()) {
            return;
        }
        let found = self.0.entry(model.to_owned());
        let found = found.or_insert_with(|| Ok(BTreeMap::new()));
        if let Err(reason) = check_path(path) {
            *found = Err(format!("object {whole:?} {reason}"));
        }
        if let Ok(units) = found {
            let object = Object {
                path: path.to_owned(),
                size: meta.size,
                e_tag: meta.e_tag.clone(),
                modified: meta.last_modified.timestamp_nanos_opt().unwrap_or_default(),
            };
            units.entry(object.unit()).or_default().push(object);
        }
    }
}

fn below(folder: &ObjectMeta, other: &ObjectMeta) -> bool {
    let rest = other
        .location
        .as_ref()
        .strip_prefix(folder.location.as_ref());
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// A version's number, of at least 1 and without leading zeros.
fn version(segment: &str) -> Option<u64> {
    let version: u64 = segment.parse().ok()?;
    (version > 0 && version.to_string() == segment).then_some(version)
}

/// Whether a path stays below its model's folder, as files of ordinary names; else why not.
pub(super) fn check_path(path: &str) -> Result<(), &'static str> {
    if path.split('/').count() > MOST_SEGMENTS {
        return Err("is deeper than a model's folder may be");
    }
    for segment in path.split('/') {
        if matches!(segment, "" | "." | "..") || segment.contains(['\\', '\0']) {
            return Err("does not name a file below the model's folder");
        }
        if segment.len() > LONGEST_SEGMENT || segment.chars().any(char::is_control) {
            return Err("has a name that no file of a model has");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(objects: &[(&str, u64)]) -> Listing {
        let metas = objects.iter().map(|(path, size)| ObjectMeta {
            location: Path::from_iter(path.split('/')),
            last_modified: Default::default(),
            size: *size,
            e_tag: None,
            version: None,
        });
        Listing::of(&Path::from("at"), metas.collect())
    }

    fn paths(found: &Found, unit: Unit) -> Vec<&str> {
        let objects = &found.as_ref().unwrap()[&unit];
        objects.iter().map(|object| object.path.as_str()).collect()
    }

    #[test]
    fn objects_are_sorted_by_model_and_version() {
        let listing = listing(&[
            ("at/m/2/model.onnx", 3),
            ("at/m/1/model.onnx", 3),
            ("at/m/1/deep/weights", 3),
            ("at/m/model.toml", 3),
            ("at/m/01/model.onnx", 3),
            ("at/README", 3),
            ("at/.hidden/1/model.onnx", 3),
        ]);
        assert_eq!(listing.0.keys().collect::<Vec<_>>(), ["m"]);
        let found = &listing.0["m"];
        assert_eq!(paths(found, Unit::Version(2)), ["2/model.onnx"]);
        assert_eq!(
            paths(found, Unit::Version(1)),
            ["1/deep/weights", "1/model.onnx"]
        );
        assert_eq!(paths(found, Unit::Root), ["01/model.onnx", "model.toml"]);
    }

    #[test]
    fn what_stands_for_a_folder_is_no_file() {
        let listing = listing(&[
            ("at/m", 0),
            ("at/m/1", 0),
            ("at/m/1/model.onnx", 3),
            ("at/m/1/deep", 0),
            ("at/m/1/deep/weights", 3),
            ("at/m/2", 0),
        ]);
        let units = listing.0["m"].as_ref().unwrap();
        assert_eq!(units.keys().collect::<Vec<_>>(), [&Unit::Version(1)]);
        assert_eq!(
            paths(&listing.0["m"], Unit::Version(1)),
            ["1/deep/weights", "1/model.onnx"]
        );
    }

    #[test]
    fn no_object_leaves_its_models_folder() {
        for path in ["..", "a/../../b", "/a", "a//b", ".", "a\\b", "a\nb", "a\0"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        assert!(check_path(&"a/".repeat(8)).is_err());
        assert!(check_path(&"a".repeat(256)).is_err());
        for path in ["1/model.onnx", "labels.txt", "1/..data", "1/Größe"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
        let long = format!("at/m/1/{}", "a".repeat(256));
        let listing = listing(&[("at/m/1/model.onnx", 3), (&long, 3), ("at/n/1/b", 3)]);
        let reason = listing.0["m"].as_ref().unwrap_err();
        assert!(reason.contains("aaa\" has a name that"), "{reason}");
        assert!(listing.0["n"].is_ok());
    }
}
