//! What the agent concluded from what it saw.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PlanId;
use crate::model::Digest;

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// A statement runs with another plan than before, and is slower with it.
    PlanRegression,
    /// A statement is slower with the same plan: more data, less memory, other load.
    SamePlanSlower,
    /// A statement is slower for some executions and not for others: other parameters.
    ParameterSkew,
    /// A statement is faster than before.
    Improvement,
    /// An index would help.
    MissingIndex,
    /// The planner's estimates are far from what is there.
    StaleStatistics,
    /// A sort or hash did not fit into memory.
    Spill,
    /// A nested loop runs over many rows.
    NestedLoop,
    /// A function around a column keeps its index from being used.
    FunctionOnColumn,
    /// The same statement is executed over and over where one would do.
    NPlusOne,
    /// A session keeps a transaction open and does nothing.
    IdleInTransaction,
}

impl Topic {
    /// Its name in attributes.
    pub fn name(self) -> &'static str {
        match self {
            Topic::PlanRegression => "plan_regression",
            Topic::SamePlanSlower => "same_plan_slower",
            Topic::ParameterSkew => "parameter_skew",
            Topic::Improvement => "improvement",
            Topic::MissingIndex => "missing_index",
            Topic::StaleStatistics => "stale_statistics",
            Topic::Spill => "spill",
            Topic::NestedLoop => "nested_loop",
            Topic::FunctionOnColumn => "function_on_column",
            Topic::NPlusOne => "n_plus_one",
            Topic::IdleInTransaction => "idle_in_transaction",
        }
    }

    /// Whether the statement has become slower.
    pub fn is_regression(self) -> bool {
        matches!(self, Topic::PlanRegression | Topic::SamePlanSlower | Topic::ParameterSkew)
    }
}

/// How bad it is: the one scale for everything that is measured as a ratio to before, or to what would be normal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Up to 2 times.
    Low,
    /// More than 2 times.
    Medium,
    /// More than 5 times.
    High,
    /// More than 10 times.
    Critical,
}

impl Severity {
    /// The severity of something that is `ratio` times what it was.
    pub fn of_ratio(ratio: f64) -> Severity {
        match ratio {
            ratio if ratio > 10.0 => Severity::Critical,
            ratio if ratio > 5.0 => Severity::High,
            ratio if ratio > 2.0 => Severity::Medium,
            _ => Severity::Low,
        }
    }

    /// Its name in attributes.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

/// A conclusion, with what it rests on.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// About what.
    pub topic: Topic,
    /// How bad.
    pub severity: Severity,
    /// The statement.
    pub digest: Option<Arc<Digest>>,
    /// The plan.
    pub plan: Option<PlanId>,
    /// Names of tables, columns and nodes that it is about, most important first.
    pub objects: Vec<Arc<str>>,
    /// What was measured, by name.
    pub evidence: Vec<(&'static str, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_scale_for_all_ratios() {
        for (ratio, severity) in [
            (1.2, Severity::Low),
            (2.0, Severity::Low),
            (2.1, Severity::Medium),
            (5.1, Severity::High),
            (10.1, Severity::Critical),
            (f64::NAN, Severity::Low),
        ] {
            assert_eq!(Severity::of_ratio(ratio), severity, "{ratio}");
        }
    }
}
