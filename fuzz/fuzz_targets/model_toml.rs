#![no_main]

#[path = "../targets/model_toml.rs"]
mod model_toml;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| model_toml::check(sent));
