//! Welch's test on the logarithm of durations: durations are skewed, their logarithms much less; and a difference of means becomes a ratio.
//!
//! B. L. Welch: "The generalization of Student's problem when several different population variances are involved", Biometrika 34 (1947).

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Number, mean and sum of squared deviations of logarithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moments {
    pub(super) count: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Comparison {
    /// Geometric mean of the one divided by that of the other.
    pub(super) ratio: f64,
    /// Certainty that the one is larger, from 0 to 1: one less the probability of so large a difference by chance.
    pub(super) confidence: f64,
}

/// Beyond so many executions the past counts less and less.
const MEMORY: f64 = 10_000.0;
/// Durations are known to a bucket of 9 %: no variance is less than that of values spread evenly over one.
const LEAST_VARIANCE: f64 = 0.0866 * 0.0866 / 12.0;

impl Moments {
    /// Adds all of `other` (Chan, Golub, LeVeque: "Updating formulae and a pairwise algorithm for computing sample variances", 1979).
    pub(super) fn merge(&mut self, other: Moments) {
        if other.count == 0.0 {
            return;
        }
        let count = self.count + other.count;
        let difference = other.mean - self.mean;
        self.mean += difference * other.count / count;
        self.squares += other.squares + difference * difference * self.count * other.count / count;
        self.count = count;
    }

    /// Forgets so much of the past that what comes counts.
    pub(super) fn fade(&mut self) {
        if self.count > MEMORY {
            self.squares *= MEMORY / self.count;
            self.count = MEMORY;
        }
    }

    fn variance(&self) -> f64 {
        (self.squares / (self.count - 1.0).max(1.0)).max(LEAST_VARIANCE)
    }

    /// Compares with `before`, one-sided.
    pub(super) fn against(&self, before: &Moments) -> Comparison {
        let (own, other) = (self.variance() / self.count, before.variance() / before.count);
        let difference = self.mean - before.mean;
        let t = difference / (own + other).sqrt();
        // Welch and Satterthwaite.
        let freedom = (own + other).powi(2)
            / (own * own / (self.count - 1.0).max(1.0) + other * other / (before.count - 1.0).max(1.0));
        let confidence = StudentsT::new(0.0, 1.0, freedom).map_or(0.0, |distribution| distribution.cdf(t));
        Comparison { ratio: difference.exp(), confidence }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Moments {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum();
        Moments { count: values.len() as f64, mean, squares }
    }

    #[test]
    fn quantiles_of_the_published_table() {
        // Two samples of 11 with the same variance have 20 degrees of freedom; the table of Student's t distribution gives t for each confidence.
        for (t, confidence) in [(0.0, 0.5), (1.325, 0.90), (1.725, 0.95), (2.528, 0.99), (3.552, 0.999)] {
            let sample = |mean| Moments { count: 11.0, mean, squares: 40.0 };
            let difference: f64 = t * (2.0 * 4.0 / 11.0_f64).sqrt();
            let comparison = sample(1.0 + difference).against(&sample(1.0));
            assert!((comparison.confidence - confidence).abs() < 2e-4, "t {t}: {comparison:?}");
            assert!((comparison.ratio - difference.exp()).abs() < 1e-9);
            // The other way round it is as certain that it is not larger.
            let reverse = sample(1.0).against(&sample(1.0 + difference));
            assert!((reverse.confidence + comparison.confidence - 1.0).abs() < 1e-9);
        }
        // With different variances there are fewer: here 10 for a variance that is nearly all on one side.
        let wide = Moments { count: 11.0, mean: 1.812 * (4.0 / 11.0_f64).sqrt(), squares: 40.0 };
        let narrow = Moments { count: 1e6, mean: 0.0, squares: 4e6 };
        assert!((wide.against(&narrow).confidence - 0.95).abs() < 2e-3);
    }

    #[test]
    fn merging_is_the_same_as_all_at_once() {
        let values: Vec<f64> = (0..100).map(|value| f64::from(value * value % 37)).collect();
        let mut merged = of(&values[..13]);
        merged.merge(of(&values[13..60]));
        merged.merge(of(&values[60..]));
        let all = of(&values);
        assert!((merged.mean - all.mean).abs() < 1e-9 && (merged.squares - all.squares).abs() < 1e-6);
        merged.merge(Moments::default());
        assert_eq!(merged.count, 100.0);
    }
}
