//! See `querylens_fuzz::wire_mysql`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::wire_mysql(input));
