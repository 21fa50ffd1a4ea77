#![no_main]

#[path = "../targets/config_pbtxt.rs"]
mod config_pbtxt;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| config_pbtxt::check(sent));
