//! What the fuzz targets are given at the start, and what comes of it by chance.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::fs::{read, read_dir};
use std::path::Path;

use super::mutation::dice::Dice;
use targets::{config_pbtxt, model_toml, protobuf_request, rest_body, shared_memory};

const CASES: u64 = 300;

/// Tries every file of a corpus as it is, and many times spoilt.
fn try_all(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut files = 0;
    for file in read_dir(folder.join(target)).unwrap() {
        let seed = read(file.unwrap().path()).unwrap();
        check(&seed);
        for case in 0..CASES {
            let mut dice = Dice::new(case);
            let mut spoilt = seed.clone();
            for _ in 0..=dice.below(4) {
                dice.spoil(&mut spoilt);
            }
            check(&spoilt);
        }
        files += 1;
    }
    assert!(files > 3, "{files} files");
}

#[test]
fn protobuf_requests_are_understood_or_refused() {
    try_all("protobuf_request", protobuf_request::check);
}

#[test]
fn rest_bodies_are_understood_or_refused() {
    try_all("rest_body", rest_body::check);
}

#[test]
fn model_tomls_are_understood_or_refused() {
    try_all("model_toml", model_toml::check);
}

#[test]
fn config_pbtxts_are_understood_or_refused() {
    try_all("config_pbtxt", config_pbtxt::check);
}

#[test]
fn shared_memory_keeps_to_its_bounds() {
    try_all("shared_memory", shared_memory::check);
}
