//! Texts of statements, of every engine: a normalised text is bounded and normalises to itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use querylens::{model::Engine, sql::Normaliser};

/// `sql` cuts a normalised text at 8 KiB; what marks the cut comes on top.
const BOUND: usize = (8 << 10) + 64;

fuzz_target!(|input: &[u8]| {
    let Some((first, text)) = input.split_first() else { return };
    let engine = [Engine::Postgresql, Engine::Mysql, Engine::Mariadb][usize::from(first & 0x7f) % 3];
    let mut normaliser = Normaliser::default();
    let digest = normaliser.digest(engine, text, first & 0x80 != 0);
    assert!(digest.text.len() <= BOUND, "{} bytes", digest.text.len());
    assert!(digest.summary.len() <= 255, "{} bytes", digest.summary.len());
    if &*digest.text == "<unparsable>" || digest.text.ends_with(" ...") {
        return;
    }
    let again = normaliser.digest(engine, digest.text.as_bytes(), false);
    assert_eq!((&digest.text, digest.fingerprint), (&again.text, again.fingerprint));
});
