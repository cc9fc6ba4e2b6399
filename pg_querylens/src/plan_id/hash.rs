//! A hash of 64 bits that is the same in every process, on every machine and in every version.

/// 2^64 divided by the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[inline]
const fn finalize(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// An ordered hash of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hash(u64);

impl Hash {
    /// A hash that begins with what kind of thing is hashed.
    pub(crate) const fn new(kind: u64) -> Hash {
        Hash(finalize(kind.wrapping_add(GOLDEN)))
    }

    /// Continues with a number.
    #[inline]
    pub(crate) const fn add(self, value: u64) -> Hash {
        Hash(finalize(self.0.wrapping_add(GOLDEN) ^ value.wrapping_mul(GOLDEN)))
    }

    /// Continues with text.
    pub(crate) fn text(self, text: &[u8]) -> Hash {
        text.iter().fold(self.add(text.len() as u64), |hash, byte| hash.add(u64::from(*byte)))
    }

    /// The number.
    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

/// Numbers whose order does not matter, but whose number does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Multiset(u64);

impl Multiset {
    /// One more number.
    pub(crate) fn add(&mut self, value: u64) {
        self.0 = self.0.wrapping_add(finalize(value ^ GOLDEN));
    }

    /// A number for all of them.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_in_a_hash_only() {
        assert_ne!(Hash::new(1).add(2).add(3), Hash::new(1).add(3).add(2));
        let (mut forward, mut backward, mut twice) = (Multiset::default(), Multiset::default(), Multiset::default());
        forward.add(2);
        forward.add(3);
        backward.add(3);
        backward.add(2);
        twice.add(2);
        twice.add(2);
        assert_eq!(forward.value(), backward.value());
        assert_ne!(forward.value(), twice.value());
    }

    #[test]
    fn zero_and_the_length_of_a_text_count() {
        assert_ne!(Hash::new(0), Hash::new(0).add(0));
        assert_ne!(Hash::new(0).text(b"ab").text(b"c"), Hash::new(0).text(b"a").text(b"bc"));
    }

    #[test]
    fn values_stay_what_they_are() {
        // They are kept across restarts and versions: whoever changes this changes every plan id there is.
        assert_eq!(Hash::new(1).add(2).value(), Hash::new(1).add(2).value());
        assert_eq!(finalize(GOLDEN), 0xe220_a839_7b1d_cdaf);
    }
}
