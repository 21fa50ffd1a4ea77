//! The `[labels]` table of `model.toml`.

use std::path::{Component, Path, PathBuf};

use crate::model::{LabelPolicy, OutputLabels};
use jitney_settings::Table;
use jitney_settings::rule::Parsed;

/// A path that leads to nothing outside the folder it starts from.
const FILE: Parsed<PathBuf> = Parsed {
    parse: |text| {
        let path = Path::new(text);
        let inside = |part| matches!(part, Component::Normal(_));
        let sound = !text.is_empty() && path.components().all(inside);
        sound.then(|| path.to_owned())
    },
    allowed: "a file in the model's folder, such as \"labels.txt\"",
};

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> LabelPolicy {
    let mut labels = Vec::new();
    for name in table.keys() {
        let file = table.value(name, FILE);
        labels.extend(file.map(|file| OutputLabels {
            output: name.to_owned(),
            file,
            labels: [].into(),
        }));
    }
    LabelPolicy(labels)
}
