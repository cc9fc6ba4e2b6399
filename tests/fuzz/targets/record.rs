//! See `querylens_fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::record(input));
