//! What the classes of a model's outputs are called.

use std::path::PathBuf;
use std::sync::Arc;

/// Names for the elements of outputs, each output's in a file of the model's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelPolicy(pub Vec<OutputLabels>);

/// The names for one output's elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLabels {
    /// The output's name.
    pub output: String,
    /// The file, from the model's folder on: a line for each element.
    pub file: PathBuf,
    /// What the file says; empty until the repository has read it.
    pub labels: Arc<[String]>,
}

impl LabelPolicy {
    /// The names for an output's elements; empty if it has none.
    pub fn of(&self, output: &str) -> &[String] {
        let found = self.0.iter().find(|labels| labels.output == output);
        found.map_or(&[], |labels| &labels.labels)
    }
}
