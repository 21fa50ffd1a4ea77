//! What ONNX Runtime and TensorRT make of models at load, kept on disk for the next one: optimized
//! graphs for the CPU, and TensorRT's engines.
//!
//! An optimized graph is made for a machine: it is kept by the model's content and by everything else
//! that it depends on, with the digest of its own content in its name. One that is not as it was
//! written, or that ONNX Runtime refuses, is removed, and the model itself is loaded.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::backend::Artifact;
use crate::clock::wall_nanoseconds;
use crate::device::DeviceId;
use crate::model::{OnnxRuntimePolicy, OptimizationLevel};

/// The folder, in that of the cache.
const FOLDER: &str = "graphs";
/// A larger model may not fit into a protobuf message once it is optimized, whose limit is 2 GB.
const MOST_MODEL_BYTES: u64 = 1 << 30;
/// Session options that say themselves what is written or read; then nothing is kept.
const OWN_FILES: [&str; 3] = ["optimized_model", "model_format", "ep.context"];

/// Where graphs and engines are kept.
#[derive(Clone, Debug)]
pub struct GraphCache {
    folder: PathBuf,
    max_bytes: u64,
}

/// What a model's graph is kept as.
pub(super) struct Kept<'a> {
    cache: &'a GraphCache,
    key: String,
}

impl GraphCache {
    /// A cache of so many bytes below a folder; none without bytes or folder.
    pub fn new(folder: &Path, max_bytes: u64) -> Option<Self> {
        let there = max_bytes > 0 && !folder.as_os_str().is_empty();
        there.then(|| Self {
            folder: folder.join(FOLDER),
            max_bytes,
        })
    }

    /// What the graph of a model is kept as; none if it cannot be kept, or would not be another.
    pub(super) fn graph(
        &self,
        artifact: &Artifact,
        device: DeviceId,
        policy: &OnnxRuntimePolicy,
        library: &str,
    ) -> Option<Kept<'_>> {
        let own = |key: &str| OWN_FILES.iter().any(|part| key.contains(part));
        let sets_files = policy.session.iter().any(|(key, _)| own(key));
        let plain = device == DeviceId::Cpu && policy.optimization != OptimizationLevel::Disable;
        if !plain || sets_files || !is_alone(artifact) {
            return None;
        }
        let about = format!("{library} {policy:?} {}", processor());
        let key = key_of(std::slice::from_ref(&artifact.file), &about)?;
        Some(Kept { cache: self, key })
    }

    /// Where TensorRT keeps what it makes of a model with all its files; none if that cannot be.
    pub(super) fn engines(
        &self,
        artifact: &Artifact,
        device: &str,
        policy: &OnnxRuntimePolicy,
        library: &str,
    ) -> Option<PathBuf> {
        policy.tensorrt.as_ref()?;
        let driver = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        let about = format!("{library} {policy:?} {device} {driver}");
        let folder = self.folder.join(key_of_all(&artifact.folder, &about)?);
        fs::create_dir_all(&folder).ok()?;
        touch(&folder);
        self.evict(0, &folder);
        Some(folder)
    }

    /// Makes room for so many more bytes; the longest unused go, but `not` this one. False if there is
    /// not that much.
    fn evict(&self, more: u64, not: &Path) -> bool {
        let mut known: Vec<(SystemTime, PathBuf, u64)> = self.entries();
        let mut taken: u64 = known.iter().map(|(_, _, bytes)| bytes).sum();
        known.sort();
        for (_, path, bytes) in known.iter().filter(|(_, path, _)| path != not) {
            if taken.saturating_add(more) <= self.max_bytes {
                break;
            }
            remove(path);
            taken = taken.saturating_sub(*bytes);
        }
        taken.saturating_add(more) <= self.max_bytes
    }

    /// What is kept, with when it was last used and its bytes.
    fn entries(&self) -> Vec<(SystemTime, PathBuf, u64)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| {
            let about = entry.metadata().ok()?;
            let path = entry.path();
            let bytes = match about.is_dir() {
                true => folder_bytes(&path),
                false => about.len(),
            };
            Some((about.modified().ok()?, path, bytes))
        });
        known.collect()
    }
}

impl Kept<'_> {
    /// The graph, if it is there as it was written.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.cache.folder).ok()?.flatten();
        let begins = format!("{}-", self.key);
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(&begins) else {
                continue;
            };
            let Some(digest) = rest.strip_suffix(".onnx") else {
                continue;
            };
            let path = entry.path();
            if self::digest(&path).is_ok_and(|found| found == digest) {
                touch(&path);
                return Some(path);
            }
            tracing::warn!(file = %path.display(), "a kept graph is not what was written; removed");
            remove(&path);
        }
        None
    }

    /// The graph does not load.
    pub(super) fn refuse(&self, path: &Path, reason: &str) {
        tracing::warn!(file = %path.display(), reason, "a kept graph does not load; removed");
        remove(path);
    }

    /// Where the graph is to be written; nobody else writes there.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.cache.folder)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}.{number}.draft", self.key, std::process::id());
        Ok(Draft(self.cache.folder.join(name)))
    }

    /// Takes in what was written, unless there is no room for it.
    pub(super) fn keep(&self, draft: &Draft) {
        let keep = || -> io::Result<()> {
            let bytes = fs::metadata(&draft.0)?.len();
            // The draft itself is among what is there.
            if bytes > self.cache.max_bytes || !self.cache.evict(0, &draft.0) {
                return Err(io::Error::other(format!(
                    "{bytes} bytes, and graph_cache_bytes is {}",
                    self.cache.max_bytes
                )));
            }
            let name = format!("{}-{}.onnx", self.key, digest(&draft.0)?);
            fs::rename(&draft.0, self.cache.folder.join(name))
        };
        if let Err(error) = keep() {
            tracing::warn!(file = %draft.0.display(), %error, "an optimized graph is not kept");
        }
    }
}

/// A file that is being written; gone when dropped, unless it was kept.
pub(super) struct Draft(pub(super) PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A digest of files' content, and of what else counts.
fn key_of(files: &[PathBuf], about: &str) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(about.as_bytes());
    for file in files {
        let content = digest(file).ok()?;
        hasher.update(format!("\n{content}").as_bytes());
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// The same of every file of a folder; none if there are folders in it.
fn key_of_all(folder: &Path, about: &str) -> Option<String> {
    let entries = fs::read_dir(folder).ok()?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.ok()?.path());
    }
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    key_of(&files, &format!("{about} {names:?}"))
}

/// Whether a model is one file, which what is made of it does not depend on any other for.
fn is_alone(artifact: &Artifact) -> bool {
    let small = fs::metadata(&artifact.file).is_ok_and(|about| about.len() <= MOST_MODEL_BYTES);
    let mut beside = fs::read_dir(&artifact.folder)
        .into_iter()
        .flatten()
        .flatten();
    small && beside.all(|entry| entry.path() == artifact.file)
}

/// What the processor can do, as the system says.
fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = about.split("\n\n").next().unwrap_or_default();
    let says = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().trim();
        ["model name", "flags", "Features", "CPU part"].contains(&name)
    };
    let says: Vec<&str> = first.lines().filter(says).collect();
    format!("{} {}", std::env::consts::ARCH, says.join(" "))
}

fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Notes that something was used.
fn touch(path: &Path) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall_nanoseconds());
    // What cannot be noted goes a little earlier.
    let _ = File::open(path).and_then(|file| file.set_modified(now));
}

fn remove(path: &Path) {
    let _ = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
}

/// TensorRT writes no folders in its own.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    lengths.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelPolicy, VersionId};

    fn artifact(folder: &Path, content: &str) -> Artifact {
        let file = folder.join("model.onnx");
        fs::write(&file, content).unwrap();
        Artifact {
            id: VersionId {
                model: "m".into(),
                version: 1,
            },
            folder: folder.to_owned(),
            file,
            policy: ModelPolicy::default(),
            lease: None,
        }
    }

    fn kept<'a>(cache: &'a GraphCache, artifact: &Artifact) -> Option<Kept<'a>> {
        let policy = OnnxRuntimePolicy::default();
        cache.graph(artifact, DeviceId::Cpu, &policy, "1.2")
    }

    fn keep(kept: &Kept<'_>, content: &str) {
        let draft = kept.draft().unwrap();
        fs::write(&draft.0, content).unwrap();
        kept.keep(&draft);
    }

    #[test]
    fn a_graph_is_kept_for_just_what_it_was_made_of() {
        let (models, cached) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = GraphCache::new(cached.path(), 1_000).unwrap();
        let model = artifact(models.path(), "one");
        let first = kept(&cache, &model).unwrap();
        assert_eq!(first.find(), None);
        keep(&first, "graph");
        let path = first.find().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "graph");
        let policy = OnnxRuntimePolicy {
            optimization: OptimizationLevel::Basic,
            ..OnnxRuntimePolicy::default()
        };
        let other = cache.graph(&model, DeviceId::Cpu, &policy, "1.2").unwrap();
        assert_eq!(other.find(), None);
        let policy = OnnxRuntimePolicy::default();
        let other = cache.graph(&model, DeviceId::Cpu, &policy, "1.3").unwrap();
        assert_eq!(other.find(), None);
        let other = artifact(models.path(), "two");
        assert_eq!(kept(&cache, &other).unwrap().find(), None);
        // Weights in a file of their own stay there.
        fs::write(models.path().join("weights"), "").unwrap();
        assert!(kept(&cache, &other).is_none());
        assert!(
            cache
                .graph(&model, DeviceId::Cuda(0), &policy, "1.2")
                .is_none()
        );
    }

    #[test]
    fn engines_are_of_all_of_a_models_files() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let key = |folder: &Path| key_of_all(folder, "about");
        for folder in [&one, &two] {
            artifact(folder.path(), "graph");
            fs::write(folder.path().join("weights"), "1").unwrap();
        }
        assert!(key(one.path()).is_some());
        assert_eq!(key(one.path()), key(two.path()));
        assert_ne!(key(one.path()), key_of_all(one.path(), "another driver"));
        fs::write(two.path().join("weights"), "2").unwrap();
        assert_ne!(key(one.path()), key(two.path()));
        fs::write(two.path().join("weights"), "1").unwrap();
        fs::rename(two.path().join("weights"), two.path().join("others")).unwrap();
        assert_ne!(key(one.path()), key(two.path()));
        fs::create_dir(two.path().join("folder")).unwrap();
        assert_eq!(key(two.path()), None);
    }

    #[test]
    fn a_graph_that_was_changed_is_removed() {
        let (models, cached) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = GraphCache::new(cached.path(), 1_000).unwrap();
        let model = artifact(models.path(), "one");
        let kept = kept(&cache, &model).unwrap();
        keep(&kept, "graph");
        let path = kept.find().unwrap();
        fs::write(&path, "grape").unwrap();
        assert_eq!(kept.find(), None);
        assert!(!path.exists());
    }

    #[test]
    fn the_longest_unused_make_room() {
        let (models, cached) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cache = GraphCache::new(cached.path(), 10).unwrap();
        for (model, age) in [("one", 2), ("two", 1)] {
            let model = artifact(models.path(), model);
            let kept = kept(&cache, &model).unwrap();
            keep(&kept, "1234");
            let path = kept.find().unwrap();
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 - age);
            File::open(path).unwrap().set_modified(then).unwrap();
        }
        let found = |model| {
            let model = artifact(models.path(), model);
            kept(&cache, &model).unwrap().find().is_some()
        };
        keep(
            &kept(&cache, &artifact(models.path(), "three")).unwrap(),
            "1234",
        );
        assert_eq!(["one", "two", "three"].map(found), [false, true, true]);
        // What does not fit at all takes nobody's place.
        keep(
            &kept(&cache, &artifact(models.path(), "four")).unwrap(),
            "12345678901",
        );
        assert_eq!(["two", "three", "four"].map(found), [true, true, false]);
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 2);
    }
}
