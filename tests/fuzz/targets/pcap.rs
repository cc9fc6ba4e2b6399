//! See `querylens_fuzz::pcap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| querylens_fuzz::pcap(input));
