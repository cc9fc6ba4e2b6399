//! Means with an interval, and what belongs to comparing in pairs.

use serde_json::{Value, json};

/// A mean and its two-sided 95 % interval by Student's t distribution; without an interval where there is but one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    /// The mean.
    pub(crate) mean: f64,
    /// Lower and upper end.
    pub(crate) interval: Option<(f64, f64)>,
}

impl Estimate {
    /// Of independent values; `None` of none.
    pub(crate) fn of(values: &[f64]) -> Option<Estimate> {
        let count = values.len();
        let mean = (count > 0).then(|| values.iter().sum::<f64>() / count as f64)?;
        let interval = (count > 1).then(|| {
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
            let half = t_quantile(count - 1) * (variance / count as f64).sqrt();
            (mean - half, mean + half)
        });
        Some(Estimate { mean, interval })
    }

    /// Ratio of the two of each pair (first / second): the geometric mean, since ratios multiply. Pairs must be positive.
    pub(crate) fn ratio(pairs: &[(f64, f64)]) -> Option<Estimate> {
        let logarithms: Vec<f64> = pairs.iter().map(|(a, b)| (a / b).ln()).collect();
        let Estimate { mean, interval } = Estimate::of(&logarithms)?;
        Some(Estimate { mean: mean.exp(), interval: interval.map(|(low, high)| (low.exp(), high.exp())) })
    }

    /// Difference of the two of each pair (first - second).
    pub(crate) fn difference(pairs: &[(f64, f64)]) -> Option<Estimate> {
        Estimate::of(&pairs.iter().map(|(a, b)| a - b).collect::<Vec<_>>())
    }

    /// Lower end.
    pub(crate) fn low(&self) -> Option<f64> {
        self.interval.map(|(low, _)| low)
    }

    /// Upper end.
    pub(crate) fn high(&self) -> Option<f64> {
        self.interval.map(|(_, high)| high)
    }
}

/// Slope of the straight line through points (least squares) with its 95 % interval; `None` of fewer than three points or of one place.
pub(crate) fn slope(points: &[(f64, f64)]) -> Option<Estimate> {
    let count = points.len();
    if count < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count as f64;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if spread == 0.0 {
        return None;
    }
    let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|(x, y)| (y - mean_y - slope * (x - mean_x)).powi(2)).sum();
    let half = t_quantile(count - 2) * (rest / (count - 2) as f64 / spread).sqrt();
    Some(Estimate { mean: slope, interval: Some((slope - half, slope + half)) })
}

/// The middle value; the upper one of two.
pub(crate) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A number as JSON with this many decimals.
pub(crate) fn rounded(value: f64, decimals: i32) -> Value {
    let scale = 10f64.powi(decimals);
    json!((value * scale).round() / scale)
}

/// 97.5 % quantile of Student's t distribution.
///
/// By its expansion around the normal quantile (Abramowitz and Stegun, 26.7.5), which is off by less than 0.2 % from three degrees on.
fn t_quantile(degrees: usize) -> f64 {
    const NORMAL: f64 = 1.959_963_985;
    match degrees {
        0 => f64::INFINITY,
        1 => 12.706,
        2 => 4.303,
        _ => {
            let (z, n) = (NORMAL, degrees as f64);
            let g1 = (z.powi(3) + z) / 4.0;
            let g2 = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
            let g3 = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
            let g4 = 79.0 * z.powi(9) + 776.0 * z.powi(7) + 1482.0 * z.powi(5) - 1920.0 * z.powi(3) - 945.0 * z;
            z + g1 / n + g2 / n.powi(2) + g3 / n.powi(3) + g4 / 92_160.0 / n.powi(4)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(value: f64, expected: f64, relative: f64) {
        assert!((value - expected).abs() <= relative * expected.abs(), "{value} is not {expected}");
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, expected) in
            [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
        {
            assert_close(t_quantile(degrees), expected, 0.002);
        }
    }

    #[test]
    fn a_mean_has_the_interval_of_the_textbook() {
        // Five values, standard deviation sqrt(2.5): half width 2.776 * sqrt(2.5 / 5).
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!(estimate.mean, 3.0);
        assert_close(estimate.high().unwrap() - 3.0, 1.963, 0.004);
        assert_close(3.0 - estimate.low().unwrap(), 1.963, 0.004);
        assert_eq!(Estimate::of(&[7.0]), Some(Estimate { mean: 7.0, interval: None }));
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn what_both_of_a_pair_share_cancels_out() {
        // The machine's speed doubles from pair to pair; the first is always a tenth slower.
        let pairs = [(90.0, 100.0), (180.0, 200.0), (360.0, 400.0)];
        let ratio = Estimate::ratio(&pairs).unwrap();
        assert_close(ratio.mean, 0.9, 1e-9);
        assert_close(ratio.low().unwrap(), 0.9, 1e-9);
        // Ratios multiply: half and double are one.
        assert_close(Estimate::ratio(&[(1.0, 2.0), (2.0, 1.0)]).unwrap().mean, 1.0, 1e-9);
        assert_eq!(Estimate::difference(&pairs).unwrap().mean, -70.0 / 3.0);
    }

    #[test]
    fn a_line_has_its_slope_and_noise_an_interval_around_it() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 5.0 + 2.0 * f64::from(x))).collect();
        let exact = slope(&line).unwrap();
        assert_close(exact.mean, 2.0, 1e-9);
        let noisy: Vec<_> = line.iter().map(|(x, y)| (*x, y + if x % 2.0 == 0.0 { 1.0 } else { -1.0 })).collect();
        let estimate = slope(&noisy).unwrap();
        assert!(estimate.low().unwrap() < 2.0 && 2.0 < estimate.high().unwrap(), "{estimate:?}");
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
        assert_eq!(slope(&line[..2]), None);
    }

    #[test]
    fn numbers_are_rounded_and_medians_found() {
        assert_eq!(rounded(1.23456, 3), json!(1.235));
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut []), None);
    }
}
