//! Mean and variance of durations, exact under merging.

/// Count, sum, extremes, mean and sum of squared deviations of durations. All zero is "none yet".
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    /// How many.
    pub(crate) count: u64,
    /// Sum, in nanoseconds.
    pub(crate) total: u64,
    /// Shortest, in nanoseconds.
    pub(crate) min: u64,
    /// Longest, in nanoseconds.
    pub(crate) max: u64,
    /// Sum of squared deviations from the mean, in square nanoseconds (Welford 1962).
    pub(crate) m2: f64,
}

impl Moments {
    /// One more duration.
    #[inline]
    pub(crate) fn add(&mut self, nanos: u64) {
        let before = self.mean();
        self.min = if self.count == 0 { nanos } else { self.min.min(nanos) };
        self.max = self.max.max(nanos);
        self.count += 1;
        self.total = self.total.saturating_add(nanos);
        let value = nanos as f64;
        if self.count > 1 {
            self.m2 += (value - before) * (value - self.mean());
        }
    }

    /// What another one has seen (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979).
    pub(crate) fn merge(&mut self, other: &Moments) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (mine, theirs) = (self.count as f64, other.count as f64);
        let apart = other.mean() - self.mean();
        self.m2 += other.m2 + apart * apart * mine * theirs / (mine + theirs);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.total = self.total.saturating_add(other.total);
    }

    /// In nanoseconds; 0 if there are none.
    #[inline]
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.total as f64 / self.count as f64 }
    }

    /// Variance of the sample, in square nanoseconds; 0 for fewer than two.
    pub(crate) fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { (self.m2 / (self.count - 1) as f64).max(0.0) }
    }

    /// Standard deviation of the population, as pg_stat_statements shows it, in nanoseconds.
    pub(crate) fn deviation(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.m2.max(0.0) / self.count as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        moments
    }

    #[test]
    fn they_are_those_of_the_definition() {
        let moments = of(&[2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!((moments.count, moments.total, moments.min, moments.max), (8, 40, 2, 9));
        assert!((moments.mean() - 5.0).abs() < 1e-12);
        assert!((moments.deviation() - 2.0).abs() < 1e-12);
        assert!((moments.variance() - 32.0 / 7.0).abs() < 1e-12);
    }

    #[test]
    fn merging_parts_gives_the_whole() {
        let values: Vec<u64> = (0..100).map(|i| 1_000_000 + (i * i * 7919) % 50_021).collect();
        let whole = of(&values);
        for cut in [0, 1, 37, 99, 100] {
            let mut parts = of(&values[..cut]);
            parts.merge(&of(&values[cut..]));
            assert_eq!(
                (parts.count, parts.total, parts.min, parts.max),
                (whole.count, whole.total, whole.min, whole.max)
            );
            assert!((parts.m2 - whole.m2).abs() < whole.m2 * 1e-9, "{} {}", parts.m2, whole.m2);
        }
    }
}
