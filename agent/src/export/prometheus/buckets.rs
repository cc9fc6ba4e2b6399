//! Bounds of the classic histogram.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::histogram::{BUCKETS, Histogram, OFFSET};

/// Bounds of the latency histogram as powers of two in seconds: 2^first_power, …, 2^last_power. They coincide with buckets of the
/// agent's own histogram, so that no count is an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Buckets {
    first_power: i8,
    last_power: i8,
    per_octave: u8,
}

/// Bounds of the latency histogram, powers of two in seconds.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename = "Buckets")]
struct Unchecked {
    /// Least bound as a power of two in seconds, -19 to 11. Default: -16 (15 µs).
    #[schemars(range(min = -19, max = 11))]
    first_power: i8,
    /// Greatest finite bound as a power of two in seconds, -19 to 11. Default: 5 (32 s).
    #[schemars(range(min = -19, max = 11))]
    last_power: i8,
    /// Bounds for each doubling: 1, 2, 4 or 8. Default: 1.
    per_octave: u8,
}

impl Default for Unchecked {
    fn default() -> Unchecked {
        Unchecked { first_power: -16, last_power: 5, per_octave: 1 }
    }
}

impl Default for Buckets {
    fn default() -> Buckets {
        let Unchecked { first_power, last_power, per_octave } = Unchecked::default();
        Buckets { first_power, last_power, per_octave }
    }
}

impl From<Buckets> for Unchecked {
    fn from(Buckets { first_power, last_power, per_octave }: Buckets) -> Unchecked {
        Unchecked { first_power, last_power, per_octave }
    }
}

impl TryFrom<Unchecked> for Buckets {
    type Error = String;

    fn try_from(Unchecked { first_power, last_power, per_octave }: Unchecked) -> Result<Buckets, String> {
        // The last bucket of the agent's histogram also holds everything longer: its bound is none.
        let (least, greatest) = ((OFFSET + 1).div_euclid(8) + 1, (OFFSET + BUCKETS as i32 - 1).div_euclid(8));
        for (key, power) in [("first_power", first_power), ("last_power", last_power)] {
            if !(least..=greatest).contains(&power.into()) {
                return Err(format!(
                    "`{key}` is {power}, but the agent can tell durations apart only between 2^{least} and 2^{greatest} s"
                ));
            }
        }
        if first_power > last_power {
            return Err(format!("`first_power` ({first_power}) is above `last_power` ({last_power})"));
        }
        if !matches!(per_octave, 1 | 2 | 4 | 8) {
            return Err(format!("`per_octave` is {per_octave}; the agent's histogram allows 1, 2, 4 or 8"));
        }
        Ok(Buckets { first_power, last_power, per_octave })
    }
}

impl Buckets {
    /// Bounds in eighths of a power of two, lowest first.
    fn eighths(self) -> impl Iterator<Item = i32> {
        let step = 8 / usize::from(self.per_octave);
        (i32::from(self.first_power) * 8..=i32::from(self.last_power) * 8).step_by(step)
    }

    /// (bound in seconds, durations up to and including it), lowest first, without the infinite one.
    pub(super) fn count(self, durations: &Histogram) -> Vec<(f64, u64)> {
        let mut buckets = durations.buckets().peekable();
        let mut below = 0;
        self.eighths()
            .map(|eighths| {
                // Bucket b ends at 2^((b + OFFSET + 1) / 8) seconds, inclusive.
                let last = eighths - OFFSET - 1;
                while let Some((_, count)) = buckets.next_if(|(bucket, _)| *bucket as i32 <= last) {
                    below += count;
                }
                (2f64.powf(f64::from(eighths) / 8.0), below)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn buckets(json: &str) -> Result<Buckets, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn no_count_is_an_estimate() {
        for json in ["{}", r#"{"per_octave":8}"#, r#"{"first_power":-19,"last_power":11,"per_octave":4}"#] {
            let buckets = buckets(json).unwrap();
            // Durations on both sides of every bound.
            let mut nanos: Vec<u64> = Vec::new();
            for eighths in buckets.eighths() {
                let bound = (2f64.powf(f64::from(eighths) / 8.0) * 1e9).floor() as u64;
                nanos.extend([bound - 1, bound, bound + 1]);
            }
            let mut histogram = Histogram::default();
            nanos.iter().for_each(|nanos| histogram.record(Duration::from_nanos(*nanos)));
            for (bound, count) in buckets.count(&histogram) {
                let expected = nanos.iter().filter(|nanos| **nanos as f64 / 1e9 <= bound).count();
                assert_eq!(count, expected as u64, "{json}: le={bound}");
            }
        }
    }

    #[test]
    fn default_bounds_are_powers_of_two_from_15_us_to_32_s() {
        let bounds: Vec<f64> =
            Buckets::default().count(&Histogram::default()).iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds, (-16..=5).map(|power| 2f64.powi(power)).collect::<Vec<_>>());
    }

    #[test]
    fn impossible_bounds_are_refused_with_their_reason() {
        for (json, reason) in [
            (r#"{"first_power":-20}"#, "`first_power` is -20"),
            (r#"{"last_power":12}"#, "`last_power` is 12"),
            (r#"{"first_power":3,"last_power":2}"#, "is above"),
            (r#"{"per_octave":3}"#, "`per_octave` is 3"),
            (r#"{"bounds":3}"#, "unknown field"),
        ] {
            let error = buckets(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }
}
