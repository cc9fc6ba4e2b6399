//! See `querylens_fuzz::sql_normalise`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::sql_normalise(input));
