//! Settings of the New Relic error monitor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// What New Relic accepts. The defaults are the strictest limits that its documentation names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Check and mend before export. Other receivers do not need it.
    pub enabled: bool,
    /// Characters of an attribute's value.
    #[schemars(range(min = 16, max = MAX_LENGTH))]
    pub max_attribute_length: usize,
    /// Characters of the name of a metric or attribute.
    #[schemars(range(min = 16, max = MAX_LENGTH))]
    pub max_metric_name_length: usize,
    /// Attributes of a data point.
    #[schemars(range(min = 1, max = 254))]
    pub max_attributes: usize,
    /// Series of a metric in a UTC day; beyond it New Relic stops to sum up the metric for the day.
    #[schemars(range(min = 100, max = MAX_SERIES))]
    pub max_series: u64,
    /// Series of a metric in a UTC day from which on somebody is told.
    pub cardinality_warning_threshold: u64,
    /// Mends and refusals of one kind within `reporting_interval` from which on somebody is told.
    pub alert_threshold: u64,
    /// How often mends are looked at.
    pub reporting_interval: HumanDuration,
    /// The same is told again after so long a time at the earliest.
    pub error_suppression_duration: HumanDuration,
    /// Bytes of a request at most.
    #[schemars(range(min = MIN_REQUEST, max = MAX_REQUEST))]
    pub max_request_bytes: usize,
}

const MAX_LENGTH: usize = 65_536;
const MAX_SERIES: u64 = 15_000_000;
/// Below it the frame is larger than what it holds.
pub(super) const MIN_REQUEST: usize = 65_536;
const MAX_REQUEST: usize = 100_000_000;
const TIMES: std::ops::RangeInclusive<HumanDuration> = HumanDuration::from_secs(1)..=HumanDuration::from_secs(86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            enabled: false,
            max_attribute_length: 4095,
            max_metric_name_length: 255,
            max_attributes: 100,
            max_series: 100_000,
            cardinality_warning_threshold: 10_000,
            alert_threshold: 100,
            reporting_interval: HumanDuration::from_secs(60),
            error_suppression_duration: HumanDuration::from_secs(300),
            max_request_bytes: 1_000_000,
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        [
            Problem::out_of_range("max_attribute_length", &self.max_attribute_length, 16..=MAX_LENGTH),
            Problem::out_of_range("max_metric_name_length", &self.max_metric_name_length, 16..=MAX_LENGTH),
            Problem::out_of_range("max_attributes", &self.max_attributes, 1..=254),
            Problem::out_of_range("max_series", &self.max_series, 100..=MAX_SERIES),
            Problem::out_of_range("reporting_interval", &self.reporting_interval, TIMES),
            Problem::out_of_range("error_suppression_duration", &self.error_suppression_duration, TIMES),
            Problem::out_of_range("max_request_bytes", &self.max_request_bytes, MIN_REQUEST..=MAX_REQUEST),
        ]
        .into_iter()
        .flatten()
    }
}
