//! Latency histogram: OTLP exponential, scale 3, over seconds; see [`agent_ebpf::histogram`] for the buckets.

use std::time::Duration;

pub use agent_ebpf::histogram::{BUCKETS, OFFSET, SCALE};
use agent_ebpf::histogram::{bucket, upper_bound};

/// Durations by bucket. Keeps buckets that are in use only: a statement mostly fills a dozen, and one slow execution far from them adds one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Ascending.
    filled: Vec<Filled>,
    count: u64,
    sum_nanos: u128,
    min_nanos: u64,
    max_nanos: u64,
}

/// A bucket in use and its count in one word: [`BUCKETS`] numbers fit the highest 8 bits; the count keeps 56, a billion a second for two years, and stops there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Filled(u64);

/// Buckets for which room is made with the first, four octaves: what a statement fills in the course of hours is paid at once, so that memory does not creep.
const ROOM: usize = 32;
const COUNT_BITS: u32 = 56;
const MAX_COUNT: u64 = (1 << COUNT_BITS) - 1;
const _: () = assert!(BUCKETS <= 1 << (u64::BITS - COUNT_BITS));

impl Filled {
    fn new(bucket: usize, count: u64) -> Filled {
        Filled((bucket as u64) << COUNT_BITS | count.min(MAX_COUNT))
    }

    fn bucket(self) -> usize {
        (self.0 >> COUNT_BITS) as usize
    }

    fn count(self) -> u64 {
        self.0 & MAX_COUNT
    }
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.add_bucket(bucket(nanos), 1);
        self.min_nanos = if self.count == 0 { nanos } else { self.min_nanos.min(nanos) };
        self.max_nanos = self.max_nanos.max(nanos);
        self.count += 1;
        self.sum_nanos += u128::from(nanos);
    }

    /// Adds durations that were counted elsewhere: how many by bucket, their sum, and the shortest and longest of them.
    pub fn add(&mut self, buckets: &[(usize, u64)], sum: Duration, (shortest, longest): (Duration, Duration)) {
        let count: u64 = buckets.iter().map(|(_, count)| count).sum();
        if count == 0 {
            return;
        }
        let filled = buckets.iter().filter(|(_, count)| *count > 0);
        filled.for_each(|(index, count)| self.add_bucket((*index).min(BUCKETS - 1), *count));
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.min_nanos = if self.count == 0 { nanos(shortest) } else { self.min_nanos.min(nanos(shortest)) };
        self.max_nanos = self.max_nanos.max(nanos(longest));
        self.count += count;
        self.sum_nanos += sum.as_nanos();
    }

    fn add_bucket(&mut self, bucket: usize, count: u64) {
        match self.filled.binary_search_by_key(&bucket, |filled| filled.bucket()) {
            Ok(at) => self.filled[at] = Filled::new(bucket, self.filled[at].count().saturating_add(count)),
            Err(at) => {
                if self.filled.is_empty() {
                    self.filled.reserve_exact(ROOM);
                }
                self.filled.insert(at, Filled::new(bucket, count));
            }
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Histogram) {
        if other.count == 0 {
            return;
        }
        for (index, count) in other.buckets() {
            self.add_bucket(index, count);
        }
        self.min_nanos = if self.count == 0 { other.min_nanos } else { self.min_nanos.min(other.min_nanos) };
        self.max_nanos = self.max_nanos.max(other.max_nanos);
        self.count += other.count;
        self.sum_nanos += other.sum_nanos;
    }

    /// What was added since `earlier`, an older state of this histogram. The shortest and longest of it are known to within their buckets.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let mut new = Histogram::default();
        let mut before = earlier.buckets().peekable();
        for (index, count) in self.buckets() {
            while before.next_if(|(older, _)| *older < index).is_some() {}
            let old = before.next_if(|(older, _)| *older == index).map_or(0, |(_, count)| count);
            if count > old {
                new.add_bucket(index, count - old);
                new.count += count - old;
            }
        }
        let (Some(first), Some(last)) = (new.filled.first(), new.filled.last()) else { return Histogram::default() };
        let (first, last) = (first.bucket(), last.bucket());
        let shortest = if first == 0 { 0 } else { upper_bound(first - 1) };
        new.min_nanos = shortest.max(self.min_nanos);
        new.max_nanos = if last == BUCKETS - 1 { self.max_nanos } else { upper_bound(last).min(self.max_nanos) };
        new.sum_nanos = self.sum_nanos.saturating_sub(earlier.sum_nanos);
        new
    }

    /// Number of durations.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of all durations.
    pub fn sum(&self) -> Duration {
        let secs = u64::try_from(self.sum_nanos / 1_000_000_000).unwrap_or(u64::MAX);
        Duration::new(secs, (self.sum_nanos % 1_000_000_000) as u32)
    }

    /// Shortest duration, exact; zero if there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.min_nanos)
    }

    /// Longest duration, exact; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_nanos)
    }

    /// Mean; zero if there is none.
    pub fn mean(&self) -> Duration {
        match self.count {
            0 => Duration::ZERO,
            count => Duration::from_nanos((self.sum_nanos / u128::from(count)) as u64),
        }
    }

    /// The buckets in use as (bucket, count), lowest first. Bucket `b` has OTLP index `b + OFFSET`.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.filled.iter().map(|filled| (filled.bucket(), filled.count()))
    }

    /// Mean of the natural logarithm of the durations in seconds, and the sum of squared deviations from it; each duration counts as the geometric middle of its
    /// bucket. `None` if there is none.
    pub fn log_moments(&self) -> Option<(f64, f64)> {
        if self.count == 0 {
            return None;
        }
        let count = self.count as f64;
        // Bucket `b` reaches from 2^((b + OFFSET) / 8) to 2^((b + OFFSET + 1) / 8) seconds.
        let log =
            |bucket: usize| (bucket as f64 + f64::from(OFFSET) + 0.5) / f64::from(1 << SCALE) * std::f64::consts::LN_2;
        let mean = self.buckets().map(|(bucket, number)| number as f64 * log(bucket)).sum::<f64>() / count;
        let squares = self.buckets().map(|(bucket, number)| number as f64 * (log(bucket) - mean).powi(2)).sum();
        Some((mean, squares))
    }

    /// Quantile `q` in 0..=1, interpolated within its bucket (error at most the bucket's width, 9 %); zero if there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        if self.count == 0 {
            return Duration::ZERO;
        }
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).max(1.0);
        let mut below = 0u64;
        for (index, count) in self.buckets() {
            if (below + count) as f64 >= rank {
                let low = if index == 0 { 0 } else { upper_bound(index - 1) };
                let high = if index == BUCKETS - 1 { self.max_nanos } else { upper_bound(index) };
                let within = (rank - below as f64) / count as f64;
                let nanos = low as f64 + (high.saturating_sub(low)) as f64 * within;
                return Duration::from_nanos((nanos as u64).clamp(self.min_nanos, self.max_nanos));
            }
            below += count;
        }
        self.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000u64 {
            histogram.record(Duration::from_micros(micros));
        }
        for (q, truth) in [(0.01, 100.0), (0.5, 5_000.0), (0.99, 9_900.0)] {
            let got = histogram.quantile(q).as_secs_f64() * 1e6;
            assert!((got / truth - 1.0).abs() < 0.0906, "q{q}: {got} µs, truth {truth} µs");
        }
        assert_eq!(histogram.max(), Duration::from_micros(10_000));
        assert_eq!(histogram.mean(), Duration::from_nanos(5_000_500));
    }

    #[test]
    fn moments_of_the_logarithm() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.log_moments(), None);
        let durations = [0.001, 0.002, 0.004, 0.008];
        durations.iter().for_each(|secs| histogram.record(Duration::from_secs_f64(*secs)));
        let (mean, squares) = histogram.log_moments().expect("there are some");
        assert!((mean.exp() / 0.001 / 8f64.sqrt() - 1.0).abs() < 0.05, "{mean}");
        // Deviations of 1.5, 0.5, 0.5, 1.5 octaves.
        assert!((squares / 5.0 / std::f64::consts::LN_2.powi(2) - 1.0).abs() < 0.1, "{squares}");
    }

    #[test]
    fn since_is_what_was_added() {
        let mut all = Histogram::default();
        [3, 70_000, 12].iter().for_each(|micros| all.record(Duration::from_micros(*micros)));
        let before = all.clone();
        assert_eq!(all.since(&before), Histogram::default());
        let mut new = Histogram::default();
        for micros in [2_000_000, 12, 800] {
            all.record(Duration::from_micros(micros));
            new.record(Duration::from_micros(micros));
        }
        let since = all.since(&before);
        assert_eq!((since.count(), since.sum()), (3, new.sum()));
        assert!(since.buckets().eq(new.buckets()), "{since:?}");
        let ratio = |a: Duration, b: Duration| (a.as_secs_f64() / b.as_secs_f64() - 1.0).abs();
        assert!(ratio(since.min(), new.min()) < 0.0906 && ratio(since.max(), new.max()) < 0.0906, "{since:?}");
    }

    #[test]
    fn buckets_in_use_are_kept_and_no_others() {
        let mut histogram = Histogram::default();
        histogram.add(&[(200, 3), (7, 0), (255, u64::MAX >> 8), (3, 1)], Duration::from_secs(1), Default::default());
        histogram.add(&[(255, 9), (100, 5)], Duration::from_secs(1), Default::default());
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets, [(3, 1), (100, 5), (200, 3), (255, MAX_COUNT)]);
    }

    #[test]
    fn merge_equals_recording_everything_in_one() {
        let (mut a, mut b, mut all) = (Histogram::default(), Histogram::default(), Histogram::default());
        for micros in [3, 70_000, 12, 900, 5] {
            a.record(Duration::from_micros(micros));
            all.record(Duration::from_micros(micros));
        }
        for micros in [1, 2_000_000, 12] {
            b.record(Duration::from_micros(micros));
            all.record(Duration::from_micros(micros));
        }
        a.merge(&b);
        assert_eq!(a, all);
    }
}
