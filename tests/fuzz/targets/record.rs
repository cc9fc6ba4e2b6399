//! Records as they lie in the ring buffer: whatever the bytes, decoding gives what lies within them.
#![no_main]

use agent_ebpf::{HEADER_LEN, decode, segments};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = decode(bytes) else { return };
    assert!(record.payload.len() + HEADER_LEN <= bytes.len());
    assert_eq!(record.payload.len(), record.header.captured as usize);
    let mut carried = 0;
    for (captured, true_len) in segments(record.payload) {
        assert!(captured.len() <= true_len);
        carried += captured.len() + 4;
    }
    assert!(carried <= record.payload.len());
});
