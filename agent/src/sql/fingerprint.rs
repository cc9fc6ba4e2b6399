//! The identity of a statement.

use twox_hash::XxHash3_64;

use crate::model::Digest;

/// XXH3-64 with seed 0 (xxHash specification 0.2.0) of the normalised text: anyone can compute it again from the text. It depends on no key, platform or
/// version. The two values that [`Digest`] reserves become their complements.
pub(super) fn fingerprint(text: &[u8]) -> u64 {
    match XxHash3_64::oneshot(text) {
        reserved @ (Digest::UNKNOWN | Digest::OTHER) => !reserved,
        hash => hash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // XXH3_64bits of the empty string and of "a", seed 0, as the reference implementation computes them.
        assert_eq!(fingerprint(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(fingerprint(b"a"), 0xe6c6_32b6_1e96_4e1f);
    }
}
