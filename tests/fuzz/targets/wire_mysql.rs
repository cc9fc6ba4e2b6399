//! The MySQL machine: whatever happens on a connection, and however its bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::check(querylens::model::Engine::Mysql, input));
