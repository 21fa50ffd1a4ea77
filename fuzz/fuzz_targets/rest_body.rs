#![no_main]

#[path = "../targets/rest_body.rs"]
mod rest_body;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| rest_body::check(sent));
