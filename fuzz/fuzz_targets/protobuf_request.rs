#![no_main]

#[path = "../targets/protobuf_request.rs"]
mod protobuf_request;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| protobuf_request::check(sent));
