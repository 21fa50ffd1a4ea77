//! The `[metric_tags]` table of `model.toml`.

use jitney_settings::Table;

use crate::model::{MOST_TAGS, wrong_tag};

/// What the table says, which a reader of any names and values has read.
pub(super) fn check(table: &mut Table<'_, '_>, tags: &[(String, String)]) {
    for (name, value) in tags {
        if let Some(wrong) = wrong_tag(name, value) {
            table.contradict(name, wrong);
        }
    }
    if let Some((name, _)) = tags.get(MOST_TAGS) {
        let message = format!("found {} tags; allowed: at most {MOST_TAGS}", tags.len());
        table.contradict(name, message);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{read_model_config, read_model_policy};

    const WRONG: [(&str, &str); 2] = [
        ("a-b", "\"a-b\" is no name of a label"),
        ("model", "\"model\" is a label that metrics have already"),
    ];

    #[test]
    fn tags_that_are_no_labels_are_told() {
        let file = Path::new("m/model.toml");
        for (name, told) in WRONG {
            let source = format!("[metric_tags]\n{name} = \"x\"");
            let report = read_model_policy(file, &source).unwrap_err().to_string();
            assert!(report.contains("toml:2: metric_tags."), "{report}");
            assert!(report.contains(told), "{report}");
            let source = format!("metric_tags {{ key: \"{name}\" value: \"x\" }}");
            let report = read_model_config("m", Path::new("config.pbtxt"), &source);
            let report = report.unwrap_err().to_string();
            assert!(report.contains("pbtxt:1: metric_tags: "), "{report}");
            assert!(report.contains(told), "{report}");
        }
    }

    #[test]
    fn no_model_has_more_than_eight() {
        let keys = |count: usize| (0..count).map(|number| format!("t{number}"));
        let toml = |count| keys(count).map(|key| format!("{key} = \"x\"\n"));
        let toml = |count| format!("[metric_tags]\n{}", toml(count).collect::<String>());
        let text = |count| {
            let tag = |key| format!("metric_tags {{ key: \"{key}\" value: \"x\" }}\n");
            keys(count).map(tag).collect::<String>()
        };
        let (own, tritons) = (Path::new("model.toml"), Path::new("config.pbtxt"));
        assert!(read_model_policy(own, &toml(8)).is_ok());
        assert!(read_model_config("m", tritons, &text(8)).is_ok());
        let report = read_model_policy(own, &toml(9)).unwrap_err().to_string();
        assert!(
            report.contains("found 9 tags; allowed: at most 8"),
            "{report}"
        );
        let report = read_model_config("m", tritons, &text(9)).unwrap_err();
        assert!(report.to_string().contains("found 9 tags"), "{report}");
    }
}
