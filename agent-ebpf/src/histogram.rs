//! The latency histogram that kernel and userspace share.
//!
//! An OTLP exponential histogram of scale 3 (`base = 2^(1/8)`, 9.05 % wide buckets, OpenTelemetry metrics data
//! model §ExponentialHistogram) over seconds, restricted to [`BUCKETS`] buckets, computed on integer nanoseconds with
//! integer operations only, so that the kernel can do it and both sides agree on every value.

/// OTLP scale of the histogram: eight buckets an octave.
pub const SCALE: i32 = 3;
/// OTLP index of bucket 0: its upper bound is `2^((OFFSET + 1) / 8)` seconds, about 1.04 µs.
pub const OFFSET: i32 = -160;
/// Number of buckets: 2^-20 s (0.95 µs) up to 2^12 s (68 min). What lies outside is counted in the first or last one.
pub const BUCKETS: usize = 256;

/// `UPPER[i]` is the greatest whole number of nanoseconds that falls into bucket `i` (upper bounds are inclusive).
static UPPER: [u64; BUCKETS] = upper_bounds();

/// 2^(k/8) for k in 0..8, as fixed point with 62 fractional bits.
const EIGHTH_ROOTS: [u64; 8] = [
    0x4000_0000_0000_0000,
    0x45ca_e0f1_f545_eb73,
    0x4c1b_f828_c6dc_54b7,
    0x52ff_6b54_d8a8_9c75,
    0x5a82_7999_fcef_3242,
    0x62b3_9508_aa83_6d6e,
    0x6ba2_7e65_6b4e_b57a,
    0x7560_6373_ee92_1c97,
];

const fn upper_bounds() -> [u64; BUCKETS] {
    let mut bounds = [0; BUCKETS];
    let mut i = 0;
    while i < BUCKETS {
        // Upper bound of OTLP index n is base^(n + 1).
        let n = i as i32 + OFFSET + 1;
        let octave = n.div_euclid(8);
        let root = EIGHTH_ROOTS[n.rem_euclid(8) as usize] as u128;
        let scaled = root * 1_000_000_000;
        let shift = 62 - octave;
        bounds[i] = (scaled >> shift) as u64;
        i += 1;
    }
    bounds
}

/// The bucket of a duration in nanoseconds: `0..BUCKETS`.
#[inline(always)]
pub fn bucket(nanos: u64) -> usize {
    bucket_by(nanos, |low| low)
}

/// As [`bucket`]; `forget` is the identity, of whose result the verifier knows nothing, or it would follow each of 256 ways by itself.
#[inline(always)]
pub fn bucket_by(nanos: u64, forget: impl Fn(usize) -> usize) -> usize {
    // Eight halvings of a sorted table: constant time and no loop for the verifier to prove.
    let mut low = 0usize;
    let mut step = BUCKETS / 2;
    while step > 0 {
        if nanos > UPPER[(low + step - 1) & (BUCKETS - 1)] {
            low += step;
        }
        low = forget(low);
        step /= 2;
    }
    low & (BUCKETS - 1)
}

/// The greatest duration, in nanoseconds, that falls into `bucket`; the last bucket also holds everything longer.
pub fn upper_bound(bucket: usize) -> u64 {
    UPPER[bucket.min(BUCKETS - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_otlp_ones() {
        for (bucket, bound) in UPPER.iter().enumerate() {
            let exact = 2f64.powf(f64::from(bucket as i32 + OFFSET + 1) / 8.0) * 1e9;
            assert!(
                (*bound as f64 - exact).abs() <= 1.0 + exact * 1e-15,
                "bucket {bucket}: {bound} ns, exactly {exact} ns"
            );
        }
    }

    #[test]
    fn a_bound_is_in_its_bucket_and_the_next_nanosecond_in_the_next() {
        for index in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper_bound(index)), index);
            assert_eq!(bucket(upper_bound(index) + 1), index + 1);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }
}
