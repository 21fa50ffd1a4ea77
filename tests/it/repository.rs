//! A repository of the test's own, in a folder that goes when the test does.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The models that `tests/models/make.py` makes.
pub(crate) fn made_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// The file that keeps the runs of a simulated model of a repository from ending.
pub(crate) fn gate(repository: &Path, model: &str) -> PathBuf {
    repository.with_file_name(format!("{model}.closed"))
}

/// A simulated model's `model.toml`, in parts. It echoes rows of four numbers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Simulated<'a> {
    /// Keys of the model.
    pub(crate) policy: &'a str,
    /// Its `[[instances]]`.
    pub(crate) instances: &'a str,
    /// Keys of `[simulated]`, beside the tensors.
    pub(crate) simulated: &'a str,
}

impl Simulated<'_> {
    pub(crate) fn text(&self) -> String {
        // Nothing runs before the first request, so that a test can count runs.
        format!(
            r#"{}
batch_axis = "first"
{}
[warm_up]
runs = 0
[simulated]
inputs = [{{ name = "x", dtype = "FP32", shape = [-1, -1] }}]
outputs = [{{ name = "y", dtype = "FP32", shape = [-1, -1] }}]
{}
"#,
            self.policy, self.instances, self.simulated
        )
    }
}

/// A repository, and a desk beside it where what is moved into it is made ready.
pub(crate) struct Repository(TempDir);

impl Repository {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("models")
    }

    /// A path outside the repository.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn folder(&self, model: &str) -> PathBuf {
        self.path().join(model)
    }

    /// Adds a version of one of the made models.
    pub(crate) fn add(&self, model: &str, version: u64) {
        let made = made_models().join(model).join("1/model.onnx");
        self.add_file(model, version, &fs::read(made).unwrap());
    }

    /// Adds a version whose file holds this, in one step.
    pub(crate) fn add_file(&self, model: &str, version: u64, content: &[u8]) {
        let desk = self.beside("desk");
        fs::create_dir(&desk).unwrap();
        fs::write(desk.join("model.onnx"), content).unwrap();
        fs::create_dir_all(self.folder(model)).unwrap();
        fs::rename(desk, self.folder(model).join(version.to_string())).unwrap();
    }

    /// A repository of one simulated model, "m", of such a policy and behaviour.
    pub(crate) fn of(policy: &str, simulated: &str) -> Self {
        let repository = Self::new();
        let model = Simulated {
            policy,
            simulated,
            ..Simulated::default()
        };
        repository.simulate("m", model);
        repository
    }

    /// Adds a version of a simulated model, which has no file.
    pub(crate) fn simulate(&self, model: &str, simulated: Simulated<'_>) {
        fs::create_dir_all(self.folder(model).join("1")).unwrap();
        let gate = gate(&self.path(), model);
        let text = format!("{}waits_while_exists = {gate:?}\n", simulated.text());
        self.configure(model, &text);
    }

    /// Writes a model's `model.toml`, in one step.
    pub(crate) fn configure(&self, model: &str, text: &str) {
        let desk = self.beside("model.toml");
        fs::write(&desk, text).unwrap();
        fs::create_dir_all(self.folder(model)).unwrap();
        fs::rename(desk, self.folder(model).join("model.toml")).unwrap();
    }

    pub(crate) fn remove(&self, model: &str) {
        fs::remove_dir_all(self.folder(model)).unwrap();
    }
}
