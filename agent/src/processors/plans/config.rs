//! Settings of the plan attribute extractor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// What is read out of plans, and when a statement counts as slower than before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Longer plans are not read.
    #[schemars(range(min = 1, max = MAX_BYTES))]
    pub max_plan_bytes: usize,
    /// Send plans, without literals; their attributes are sent whatever stands here.
    pub plan_text: bool,
    /// Statements whose plans and speed are remembered, all servers together; the one seen longest ago makes room.
    #[schemars(range(min = 1, max = MAX_STATEMENTS))]
    pub max_statements: usize,
    /// Plans that are remembered of a statement; the one seen longest ago makes room.
    #[schemars(range(min = 2, max = MAX_PLANS))]
    pub max_plans_per_query: usize,
    /// How long a plan is remembered after it was last seen.
    pub plan_history: HumanDuration,
    /// When a statement counts as slower.
    pub regression_detection: Regression,
    /// When something is worth a recommendation.
    pub recommendations: Recommendations,
}

/// When a statement counts as slower: by Welch's test on the logarithm of its durations, twice in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Regression {
    /// Compare at all.
    pub enabled: bool,
    /// So many times slower, in the geometric mean.
    pub time_increase: f64,
    /// Executions on either side at least.
    #[schemars(range(min = 10, max = MAX_SAMPLES))]
    pub min_samples: u64,
    /// How certain each of the two tests must be.
    pub confidence: f64,
}

/// When something is worth a recommendation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recommendations {
    /// Make them.
    pub enabled: bool,
    /// The same one for the same statement is made once in so long a time.
    pub interval: HumanDuration,
    /// Rows that are read and mostly thrown away.
    pub sequential_scan_rows: u64,
    /// Executions of the inner side of a nested loop.
    pub nested_loop_rows: u64,
    /// Ratio of actual to estimated rows, or its inverse.
    pub estimate_error: f64,
}

const MAX_BYTES: usize = 16 << 20;
const MAX_STATEMENTS: usize = 1_000_000;
const MAX_PLANS: usize = 1000;
const MAX_SAMPLES: u64 = 1_000_000;
const DAYS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(60)..=HumanDuration::from_secs(366 * 86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            max_plan_bytes: 1 << 20,
            plan_text: true,
            max_statements: 10_000,
            max_plans_per_query: 10,
            plan_history: HumanDuration::from_secs(86_400),
            regression_detection: Regression::default(),
            recommendations: Recommendations::default(),
        }
    }
}

impl Default for Regression {
    fn default() -> Regression {
        Regression { enabled: true, time_increase: 1.5, min_samples: 30, confidence: 0.999 }
    }
}

impl Default for Recommendations {
    fn default() -> Recommendations {
        Recommendations {
            enabled: true,
            interval: HumanDuration::from_secs(3600),
            sequential_scan_rows: 10_000,
            nested_loop_rows: 10_000,
            estimate_error: 10.0,
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let (regression, advice) = (&self.regression_detection, &self.recommendations);
        [
            Problem::out_of_range("max_plan_bytes", &self.max_plan_bytes, 1..=MAX_BYTES),
            Problem::out_of_range("max_statements", &self.max_statements, 1..=MAX_STATEMENTS),
            Problem::out_of_range("max_plans_per_query", &self.max_plans_per_query, 2..=MAX_PLANS),
            Problem::out_of_range("plan_history", &self.plan_history, DAYS),
            Problem::out_of_range("regression_detection.time_increase", &regression.time_increase, 1.05..=1000.0),
            Problem::out_of_range("regression_detection.min_samples", &regression.min_samples, 10..=MAX_SAMPLES),
            Problem::out_of_range("regression_detection.confidence", &regression.confidence, 0.5..=0.999_999),
            Problem::out_of_range("recommendations.interval", &advice.interval, DAYS),
            Problem::out_of_range("recommendations.estimate_error", &advice.estimate_error, 2.0..=1e9),
        ]
        .into_iter()
        .flatten()
    }
}
