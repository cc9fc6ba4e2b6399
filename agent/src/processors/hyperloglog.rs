//! How many distinct values there were, in bounded memory.
//!
//! HyperLogLog (Flajolet, Fusy, Gandouet, Meunier: "HyperLogLog: the analysis of a near-optimal cardinality estimation algorithm", 2007) with 2^12
//! registers: a standard error of 1.04 / sqrt(4096) = 1.6 %. Few values are kept as they are, and their number is exact. Our own, since the sketches are kept
//! over restarts: their form must not change with a library's version.

use serde::{Deserialize, Serialize};

/// log2 of the number of registers.
const PRECISION: u32 = 12;
const REGISTERS: usize = 1 << PRECISION;
/// Hashes that are kept as they are; as many bytes as the registers take.
const EXACT: usize = 256;

/// A sketch of a set of 64-bit hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Kept", into = "Kept")]
pub(super) enum HyperLogLog {
    /// The hashes, sorted.
    Exact(Vec<u64>),
    /// The largest rank of each register.
    Sketch(Box<[u8]>),
}

/// The form that is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Exact(Vec<u64>),
    Sketch(String),
}

impl From<HyperLogLog> for Kept {
    fn from(set: HyperLogLog) -> Kept {
        match set {
            HyperLogLog::Exact(hashes) => Kept::Exact(hashes),
            // A rank is at most 53: one printable character each.
            HyperLogLog::Sketch(registers) => {
                Kept::Sketch(registers.iter().map(|rank| char::from(b'0' + rank)).collect())
            }
        }
    }
}

impl TryFrom<Kept> for HyperLogLog {
    type Error = String;

    fn try_from(kept: Kept) -> Result<HyperLogLog, String> {
        match kept {
            Kept::Exact(mut hashes) => {
                hashes.sort_unstable();
                hashes.dedup();
                if hashes.len() > EXACT {
                    return Err(format!("a set of {} values, at most {EXACT} are kept exactly", hashes.len()));
                }
                Ok(HyperLogLog::Exact(hashes))
            }
            Kept::Sketch(text) => {
                let rank = |byte: u8| byte.checked_sub(b'0').filter(|rank| u32::from(*rank) <= 65 - PRECISION);
                let registers: Option<Box<[u8]>> = text.bytes().map(rank).collect();
                registers
                    .filter(|registers| registers.len() == REGISTERS)
                    .map(HyperLogLog::Sketch)
                    .ok_or_else(|| format!("a sketch is {REGISTERS} ranks"))
            }
        }
    }
}

impl Default for HyperLogLog {
    fn default() -> HyperLogLog {
        HyperLogLog::Exact(Vec::new())
    }
}

impl HyperLogLog {
    /// Adds a value by its hash; whether that may have changed the number.
    pub(super) fn insert(&mut self, hash: u64) -> bool {
        match self {
            HyperLogLog::Exact(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return false };
                if hashes.len() < EXACT {
                    hashes.insert(at, hash);
                } else {
                    let mut registers = vec![0; REGISTERS].into_boxed_slice();
                    hashes.iter().chain([&hash]).for_each(|hash| {
                        raise(&mut registers, *hash);
                    });
                    *self = HyperLogLog::Sketch(registers);
                }
                true
            }
            HyperLogLog::Sketch(registers) => raise(registers, hash),
        }
    }

    /// Number of distinct values: exact up to 256, estimated beyond.
    pub(super) fn count(&self) -> u64 {
        let registers = match self {
            HyperLogLog::Exact(hashes) => return hashes.len() as u64,
            HyperLogLog::Sketch(registers) => registers,
        };
        let count = REGISTERS as f64;
        let sum: f64 = registers.iter().map(|rank| (-f64::from(*rank)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let empty = registers.iter().filter(|rank| **rank == 0).count();
        // Small numbers by linear counting, as in the paper (§4, "small range correction").
        let estimate = if raw <= 2.5 * count && empty > 0 { count * (count / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

/// Raises the register of `hash`; whether it was lower.
fn raise(registers: &mut [u8], hash: u64) -> bool {
    let register = (hash >> (64 - PRECISION)) as usize;
    let rest = hash << PRECISION;
    let rank = (rest.leading_zeros().min(64 - PRECISION) + 1) as u8;
    let lower = registers[register] < rank;
    registers[register] = registers[register].max(rank);
    lower
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// SplitMix64: well mixed hashes of 0, 1, 2, ...
    fn hash(value: u64) -> u64 {
        let mut z = value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn few_are_exact_and_many_within_five_standard_errors() {
        for truth in [0, 1, 255, 256, 257, 1_000, 10_000, 200_000, 1_000_000] {
            let mut set = HyperLogLog::default();
            for value in (0..truth).chain(0..truth.min(1000)) {
                set.insert(hash(value));
            }
            let error = (set.count() as f64 - truth as f64).abs() / (truth as f64).max(1.0);
            let allowed = if truth <= EXACT as u64 { 0.0 } else { 5.0 * 1.04 / 64.0 };
            assert!(error <= allowed, "{truth}: {} ({error})", set.count());
        }
    }

    #[test]
    fn a_kept_sketch_is_the_same_and_a_broken_one_is_refused() {
        for truth in [3, 5_000] {
            let mut set = HyperLogLog::default();
            (0..truth).for_each(|value| {
                set.insert(hash(value));
            });
            let kept = serde_json::to_string(&set).unwrap();
            assert!(kept.len() < 6_000, "{} bytes", kept.len());
            assert_eq!(serde_json::from_str::<HyperLogLog>(&kept).unwrap(), set);
        }
        for broken in [r#"{"sketch":"000"}"#.to_owned(), format!(r#"{{"sketch":"{}"}}"#, "~".repeat(REGISTERS))] {
            assert!(serde_json::from_str::<HyperLogLog>(&broken).is_err());
        }
    }
}
