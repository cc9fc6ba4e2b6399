//! Settings of the verification.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::{HumanDuration, Problem},
    processors::privacy,
};

/// Whether what is sent is fit to be sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Private text.
    pub pii_detection: privacy::Config,
    /// Quality of the data.
    pub quality_rules: Quality,
    /// Distinct values a day and agent; beyond them, feedback says so.
    pub cardinality_limits: CardinalityLimits,
    /// From where on the agent's own state is worth a feedback.
    pub health_thresholds: HealthThresholds,
    /// Bounded changes of intervals and rates.
    pub auto_tuning: AutoTuning,
    /// Remedies for known troubles.
    pub self_healing: SelfHealing,
}

/// Quality of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// How often the shares below are looked at, and health is reported.
    pub verification_interval: HumanDuration,
    /// At most one feedback of a category in so long a time.
    pub feedback_interval: HumanDuration,
    /// Examples older than this go; a server silent for so long is worth a feedback.
    pub data_freshness_threshold: HumanDuration,
    /// Least share of records whose database or user is known.
    pub min_entity_correlation_rate: f64,
    /// Least share of statements whose text could be normalised.
    pub min_normalization_rate: f64,
}

/// Distinct values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CardinalityLimits {
    /// Statements.
    pub query_id: u64,
    /// Databases.
    pub database_name: u64,
    /// Users.
    pub user_name: u64,
    /// Tables.
    pub table_name: u64,
    /// Names that clients give themselves.
    pub application_name: u64,
}

/// In per cent of what there is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthThresholds {
    /// Memory that the agent may use.
    pub memory_percent: f64,
    /// One core.
    pub cpu_percent: f64,
    /// The disk of the spool.
    pub disk_percent: f64,
}

/// Bounded changes of intervals and rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AutoTuning {
    /// Look for what should be changed, and say so.
    pub enabled: bool,
    /// Also change it.
    pub enable_auto_apply: bool,
    /// How often.
    pub interval: HumanDuration,
    /// Share of the observations that must agree.
    pub min_confidence_level: f64,
    /// Largest change at once, as a part of the value.
    pub max_parameter_change: f64,
    /// How long the journal goes back, and how long something that did not help is not tried again.
    pub history_retention: HumanDuration,
}

/// Remedies for known troubles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelfHealing {
    /// Try them.
    pub enabled: bool,
    /// How long to wait after the first try.
    pub interval: HumanDuration,
    /// Tries before somebody is told.
    #[schemars(range(min = 1, max = MAX_RETRIES))]
    pub max_retries: u32,
    /// Each wait is so many times the one before.
    pub backoff_multiplier: f64,
    /// Troubles to act on.
    pub enabled_issue_types: Vec<Issue>,
}

/// A trouble with a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Issue {
    /// The receiver refuses or does not answer: make a new connection.
    ConsumerError,
    /// Memory is short: forget what can be found out again.
    HighMemory,
    /// A server cannot be reached: log in anew.
    DatabaseConnectivity,
}

impl Issue {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Issue::ConsumerError => "consumer_error",
            Issue::HighMemory => "high_memory",
            Issue::DatabaseConnectivity => "database_connectivity",
        }
    }
}

const MAX_RETRIES: u32 = 100;
const INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(1)..=HumanDuration::from_secs(86_400);

impl Default for Quality {
    fn default() -> Quality {
        Quality {
            verification_interval: HumanDuration::from_secs(300),
            feedback_interval: HumanDuration::from_secs(60),
            data_freshness_threshold: HumanDuration::from_secs(600),
            min_entity_correlation_rate: 0.8,
            min_normalization_rate: 0.9,
        }
    }
}

impl Default for CardinalityLimits {
    fn default() -> CardinalityLimits {
        CardinalityLimits {
            query_id: 10_000,
            database_name: 100,
            user_name: 1000,
            table_name: 1000,
            application_name: 1000,
        }
    }
}

impl Default for HealthThresholds {
    fn default() -> HealthThresholds {
        HealthThresholds { memory_percent: 85.0, cpu_percent: 80.0, disk_percent: 90.0 }
    }
}

impl Default for AutoTuning {
    fn default() -> AutoTuning {
        AutoTuning {
            enabled: true,
            enable_auto_apply: false,
            interval: HumanDuration::from_secs(600),
            min_confidence_level: 0.8,
            max_parameter_change: 0.2,
            history_retention: HumanDuration::from_secs(86_400),
        }
    }
}

impl Default for SelfHealing {
    fn default() -> SelfHealing {
        SelfHealing {
            enabled: true,
            interval: HumanDuration::from_secs(60),
            max_retries: 3,
            backoff_multiplier: 2.0,
            enabled_issue_types: vec![Issue::ConsumerError, Issue::HighMemory, Issue::DatabaseConnectivity],
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let (quality, tuning, healing) = (&self.quality_rules, &self.auto_tuning, &self.self_healing);
        let share = |key, value: &f64| Problem::out_of_range(key, value, 0.0..=1.0);
        let time = |key, value: &HumanDuration| Problem::out_of_range(key, value, INTERVALS);
        let percent = |key, value: &f64| Problem::out_of_range(key, value, 0.0..=100.0);
        let own = [
            time("quality_rules.verification_interval", &quality.verification_interval),
            time("quality_rules.feedback_interval", &quality.feedback_interval),
            time("quality_rules.data_freshness_threshold", &quality.data_freshness_threshold),
            share("quality_rules.min_entity_correlation_rate", &quality.min_entity_correlation_rate),
            share("quality_rules.min_normalization_rate", &quality.min_normalization_rate),
            percent("health_thresholds.memory_percent", &self.health_thresholds.memory_percent),
            percent("health_thresholds.cpu_percent", &self.health_thresholds.cpu_percent),
            percent("health_thresholds.disk_percent", &self.health_thresholds.disk_percent),
            time("auto_tuning.interval", &tuning.interval),
            share("auto_tuning.min_confidence_level", &tuning.min_confidence_level),
            Problem::out_of_range("auto_tuning.max_parameter_change", &tuning.max_parameter_change, 0.01..=0.5),
            time("auto_tuning.history_retention", &tuning.history_retention),
            time("self_healing.interval", &healing.interval),
            Problem::out_of_range("self_healing.max_retries", &healing.max_retries, 1..=MAX_RETRIES),
            Problem::out_of_range("self_healing.backoff_multiplier", &healing.backoff_multiplier, 1.0..=10.0),
        ];
        own.into_iter().flatten().chain(self.pii_detection.check().map(|problem| problem.beneath("pii_detection")))
    }
}
