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

/// Durations below 2^LOW ns are in the first bucket, those from 2^(HIGH + 1) ns on in the last one.
const LOW: u32 = 10;
const HIGH: u32 = 41;
/// Steps into which [`FIRST`] divides an octave; within one of them, at most one bucket ends.
const STEPS: usize = 16;

/// The bucket of the shortest duration of each step of each octave from [`LOW`] on.
static FIRST: [u8; (HIGH - LOW + 1) as usize * STEPS] = {
    let mut first = [0; (HIGH - LOW + 1) as usize * STEPS];
    let (mut at, mut bucket) = (0, 0);
    while at < first.len() {
        let octave = LOW + (at / STEPS) as u32;
        let shortest = (1 << octave) + ((at % STEPS) as u64 * (1 << octave) / STEPS as u64);
        while bucket < BUCKETS - 1 && shortest > UPPER[bucket] {
            bucket += 1;
        }
        first[at] = bucket as u8;
        at += 1;
    }
    first
};

/// The bucket of a duration in nanoseconds: `0..BUCKETS`. Hardly a branch for the kernel's verifier to follow, and few cache lines of tables.
#[inline(always)]
pub fn bucket(nanos: u64) -> usize {
    let clamped = if nanos >> LOW == 0 { 1 << LOW } else { nanos };
    let clamped = if clamped >> (HIGH + 1) != 0 { (1 << (HIGH + 1)) - 1 } else { clamped };
    let octave = highest_bit(clamped);
    let step = (clamped >> ((octave - STEPS.ilog2()) & 63)) as usize & (STEPS - 1);
    let place = ((octave - LOW) as usize * STEPS + step) & (FIRST.len() - 1);
    let first = FIRST[place] as usize;
    let above = first < BUCKETS - 1 && nanos > UPPER[first];
    (first + above as usize) & (BUCKETS - 1)
}

/// Position of the highest bit of a number that is not 0: eBPF has no instruction for it. The bits below are filled, then a de Bruijn sequence tells
/// how many there are (Leiserson, Prokop, Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word", 1998).
#[inline(always)]
fn highest_bit(number: u64) -> u32 {
    const SEQUENCE: u64 = 0x03f7_9d71_b4cb_0a89;
    static POSITION: [u8; 64] = {
        let mut position = [0; 64];
        let mut bit = 0;
        while bit < 64 {
            position[(SEQUENCE.wrapping_mul(1 << bit) >> 58) as usize] = bit as u8;
            bit += 1;
        }
        position
    };
    let mut filled = number;
    let mut shift = 1;
    while shift < 64 {
        filled |= filled >> shift;
        shift *= 2;
    }
    let highest = filled ^ (filled >> 1);
    u32::from(POSITION[(SEQUENCE.wrapping_mul(highest) >> 58) as usize & 63])
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

    #[test]
    fn the_highest_bit_is_found() {
        for bit in 0..64 {
            assert_eq!(highest_bit(1 << bit), bit);
            assert_eq!(highest_bit(u64::MAX >> (63 - bit)), bit);
        }
    }
}
