//! Hands libFuzzer's inputs to the check of the same name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rill_fuzz::selection::check(data));
