//! See `querylens_fuzz::wire_postgres`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::wire_postgres(input));
