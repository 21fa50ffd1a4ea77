#![no_main]

#[path = "../targets/shared_memory.rs"]
mod shared_memory;

libfuzzer_sys::fuzz_target!(|sent: &[u8]| shared_memory::check(sent));
