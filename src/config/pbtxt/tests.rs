//! Every file of `tests/pbtxt` means the `model.toml` beside it, or is wrong in the ways that the text
//! beside it lists. With `JITNEY_REWRITE=1` in the environment these are written anew, to be read.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{read_model_policy, write_model_policy};
use crate::model::{BatchAxis, InstanceGroup};

fn corpus(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(folder);
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "pbtxt"))
        .collect();
    paths.sort();
    assert!(paths.len() > 2, "{paths:?}");
    paths
}

fn read(path: &Path) -> Result<ModelPolicy, String> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let source = fs::read_to_string(path).unwrap();
    read_model_config(name, Path::new("config.pbtxt"), &source).map_err(|report| report.to_string())
}

/// Compares with what is in the file beside `path`.
fn assert_beside(path: &Path, kind: &str, found: &str) {
    let beside = path.with_extension(kind);
    if std::env::var_os("JITNEY_REWRITE").is_some() {
        fs::write(&beside, found).unwrap();
    }
    let expected = fs::read_to_string(&beside).unwrap();
    assert_eq!(found, expected, "{}", beside.display());
}

#[test]
fn a_file_means_the_model_toml_beside_it() {
    for path in corpus("pbtxt") {
        let policy = read(&path).unwrap();
        let written = write_model_policy(&policy);
        assert_beside(&path, "toml", &written);
        let again = read_model_policy(Path::new("model.toml"), &written);
        assert_eq!(again, Ok(policy), "{}", path.display());
    }
}

#[test]
fn a_wrong_file_is_told_its_mistakes_at_once() {
    for path in corpus("pbtxt/wrong") {
        let report = read(&path).unwrap_err();
        assert_beside(&path, "txt", &format!("{report}\n"));
    }
}

fn said(source: &str) -> ModelPolicy {
    read_model_config("m", Path::new("config.pbtxt"), source)
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_first_dimension_counts_rows_if_the_file_says_so() {
    let axis = |source| said(source).batch.axis;
    let input = "input { name: \"x\" data_type: TYPE_FP32 dims: 4 }";
    assert_eq!(axis(""), BatchAxis::Auto);
    assert_eq!(axis("max_batch_size: 0"), BatchAxis::Unbatched);
    assert_eq!(axis("max_batch_size: 1"), BatchAxis::First);
    assert_eq!(axis(input), BatchAxis::Unbatched);
    assert_eq!(axis("max_batch_size: 4"), BatchAxis::Auto);
    assert_eq!(
        axis("max_batch_size: 4 dynamic_batching { }"),
        BatchAxis::First
    );
}

#[test]
fn automatic_instances_go_where_the_server_was_told() {
    let groups = said("instance_group { count: 2 }").instances;
    let expected = InstanceGroup {
        count: 2,
        ..InstanceGroup::default()
    };
    assert_eq!(groups, [expected]);
}

#[test]
fn a_mark_at_the_start_is_passed_over_and_lines_may_end_as_on_windows() {
    let policy = said("\u{feff}max_batch_size: 4\r\nmodel_warmup [\r\n]\r\n");
    assert_eq!(policy.batch.max_batch_size, 4);
    let wrong = read_model_config("m", Path::new("f"), "name: \"m\"\r\nx: 1\r\n").unwrap_err();
    assert!(wrong.to_string().starts_with("f:2: "), "{wrong}");
}

#[test]
fn json_means_the_same() {
    let json = r#"{"max_batch_size": 8, "input": [{"name": "x", "dataType": "TYPE_FP32", "dims": ["4"]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 100}, "version_policy": {"all": {}}}"#;
    let policy = read_model_config_json("m", json).unwrap();
    let text = "max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: 4 }\
        dynamic_batching { max_queue_delay_microseconds: 100 } version_policy { all { } }";
    assert_eq!(policy, said(text));
    let unbatched = read_model_config_json("m", r#"{"maxBatchSize": 0}"#).unwrap();
    assert_eq!(unbatched.batch.axis, BatchAxis::Unbatched);
    for (json, expected) in [
        (
            "{\"max_batch\": 1}",
            "config: is not a ModelConfig in JSON: ",
        ),
        ("{} {}", "config: is not a ModelConfig in JSON: "),
        ("[", "config: is not a ModelConfig in JSON: "),
        (
            "{\"name\": \"n\"}",
            "name: found \"n\"; the model is called \"m\"",
        ),
        (
            "{\"cc_model_filenames\": {\"7.5\": \"x\"}}",
            "cc_model_filenames: is refused: ",
        ),
    ] {
        let found = read_model_config_json("m", json).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn no_text_makes_it_panic_or_hang() {
    let deep = "dynamic_batching {".repeat(100_000);
    let wide = "input [ ".to_owned() + &"{ dims: 1 },".repeat(2000);
    let many = "x: 1\n".repeat(10_000);
    for source in [
        &deep,
        &wide,
        &many,
        "\0",
        "input",
        "input:",
        "a [",
        "}",
        "'",
        "1",
        "\u{feff}\u{feff}",
    ] {
        assert!(read_model_config("m", Path::new("f"), source).is_err());
    }
    let long = " ".repeat(2 << 20);
    assert!(read_model_config("m", Path::new("f"), &long).is_err());
}
