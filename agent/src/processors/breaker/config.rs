//! Settings of the circuit breaker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// When servers and their questions are left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Failures in a row after which a question is not asked any more.
    #[schemars(range(min = 1, max = MAX_THRESHOLD))]
    pub failure_threshold: u32,
    /// Answers in a row after which a question that was left alone is asked as before. They come one at a time.
    #[schemars(range(min = 1, max = MAX_THRESHOLD))]
    pub success_threshold: u32,
    /// How long a question is left alone at first; each time that its trial fails, twice as long.
    pub open_state_timeout: HumanDuration,
    /// Longest time that a question is left alone because it failed.
    pub max_backoff: HumanDuration,
    /// Questions to one server that may wait for their answers at the same time.
    #[schemars(range(min = 1, max = MAX_CONCURRENT))]
    pub max_concurrent_requests: u32,
    /// How long an answer may take at first, and at least.
    pub base_timeout: HumanDuration,
    /// How long an answer may take at most.
    pub max_timeout: HumanDuration,
    /// Learn how long answers take: a tenth less after one in half the time, a tenth more after one that did not come in time.
    pub enable_adaptive_timeout: bool,
    /// While the agent's resident memory is beyond so many megabytes, nothing is asked; 0 for no such limit.
    pub memory_threshold_mb: u64,
    /// While the agent uses more than so many per cent of one core, nothing is asked; 0 for no such limit.
    pub cpu_threshold_percent: f64,
}

const MAX_THRESHOLD: u32 = 1000;
const MAX_CONCURRENT: u32 = 1000;
const TIMEOUTS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(1)..=HumanDuration::from_secs(3600);
const BACKOFFS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(1)..=HumanDuration::from_secs(86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            failure_threshold: 3,
            success_threshold: 3,
            open_state_timeout: HumanDuration::from_secs(30),
            max_backoff: HumanDuration::from_secs(900),
            max_concurrent_requests: 2,
            base_timeout: HumanDuration::from_secs(5),
            max_timeout: HumanDuration::from_secs(30),
            enable_adaptive_timeout: true,
            memory_threshold_mb: 512,
            cpu_threshold_percent: 80.0,
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let order = |key: &str, than: &str, wrong: bool| {
            wrong.then(|| Problem::new(key, format!("must not be less than `{than}`")))
        };
        [
            Problem::out_of_range("failure_threshold", &self.failure_threshold, 1..=MAX_THRESHOLD),
            Problem::out_of_range("success_threshold", &self.success_threshold, 1..=MAX_THRESHOLD),
            Problem::out_of_range("open_state_timeout", &self.open_state_timeout, BACKOFFS),
            Problem::out_of_range("max_backoff", &self.max_backoff, BACKOFFS),
            order("max_backoff", "open_state_timeout", self.max_backoff < self.open_state_timeout),
            Problem::out_of_range("max_concurrent_requests", &self.max_concurrent_requests, 1..=MAX_CONCURRENT),
            Problem::out_of_range("base_timeout", &self.base_timeout, TIMEOUTS),
            Problem::out_of_range("max_timeout", &self.max_timeout, TIMEOUTS),
            order("max_timeout", "base_timeout", self.max_timeout < self.base_timeout),
            Problem::out_of_range("cpu_threshold_percent", &self.cpu_threshold_percent, 0.0..=100_000.0),
        ]
        .into_iter()
        .flatten()
    }
}
