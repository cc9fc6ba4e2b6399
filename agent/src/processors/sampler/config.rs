//! Settings of the adaptive sampler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::{self, Rule};
use crate::model::{HumanDuration, Problem};

/// Which examples are kept. Statistics are exact whatever stands here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Executions to keep in a second, all servers together. Failed and slow ones, new statements, changed plans, regressions and blockers come first.
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub target_records_per_second: u32,
    /// Executions to keep in a second at most, whatever they are.
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub max_records_per_second: u32,
    /// Share of the executions that no rule speaks of, from 0 to 1. The target makes it less where they are many.
    pub default_sample_rate: f64,
    /// What the target makes of any share is not less than this part of it.
    pub min_sample_rate: f64,
    /// One choice holds for so long: agents that see the same statement choose alike within it.
    pub window: HumanDuration,
    /// The same plan of the same statement.
    pub deduplication: Deduplication,
    /// Statements whose speed is remembered, all servers together; the one seen longest ago makes room.
    #[schemars(range(min = 1, max = MAX_CACHE))]
    pub max_statements: usize,
    /// What to do with executions that are kept by chance only. The first that fits counts, highest priority first.
    pub rules: Vec<Rule>,
}

/// Plans that were shown a short time ago are not shown again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Deduplication {
    /// Leave them out.
    pub enabled: bool,
    /// Plans that are remembered; the one seen longest ago makes room.
    #[schemars(range(min = 1, max = MAX_CACHE))]
    pub cache_size: usize,
    /// For how long a plan is not shown again.
    pub window: HumanDuration,
}

const MAX_RATE: u32 = 1_000_000;
const MAX_CACHE: usize = 1_000_000;
const WINDOWS: std::ops::RangeInclusive<HumanDuration> = HumanDuration::from_secs(1)..=HumanDuration::from_secs(86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            target_records_per_second: 100,
            max_records_per_second: 1000,
            default_sample_rate: 0.1,
            min_sample_rate: 0.001,
            window: HumanDuration::from_secs(10),
            deduplication: Deduplication::default(),
            max_statements: 10_000,
            rules: rules::defaults(),
        }
    }
}

impl Default for Deduplication {
    fn default() -> Deduplication {
        Deduplication { enabled: true, cache_size: 10_000, window: HumanDuration::from_secs(300) }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let rates = 1..=MAX_RATE;
        let dedup = &self.deduplication;
        let less = self.max_records_per_second < self.target_records_per_second;
        [
            Problem::out_of_range("target_records_per_second", &self.target_records_per_second, rates.clone()),
            Problem::out_of_range("max_records_per_second", &self.max_records_per_second, rates),
            less.then(|| Problem::new("max_records_per_second", "must not be less than `target_records_per_second`")),
            Problem::out_of_range("default_sample_rate", &self.default_sample_rate, 0.0..=1.0),
            Problem::out_of_range("min_sample_rate", &self.min_sample_rate, 1e-6..=1.0),
            Problem::out_of_range("window", &self.window, WINDOWS),
            Problem::out_of_range("deduplication.cache_size", &dedup.cache_size, 1..=MAX_CACHE),
            Problem::out_of_range("deduplication.window", &dedup.window, WINDOWS),
            Problem::out_of_range("max_statements", &self.max_statements, 1..=MAX_CACHE),
        ]
        .into_iter()
        .flatten()
        .chain(rules::check(&self.rules))
    }
}
