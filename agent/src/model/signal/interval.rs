//! Exact statistics.

use std::{sync::Arc, time::Duration};

use crate::model::{Digest, StatementStats};

/// What was executed of one statement by one user in one database, over an interval. The sum over all intervals is what was executed.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The statement.
    pub digest: Arc<Digest>,
    /// Length of the interval.
    pub length: Duration,
    /// What was counted in it.
    pub stats: StatementStats,
    /// Share of this statement in the time of all statements of its server in the interval, from 0 to 1.
    pub load: Option<f64>,
    /// How fast the executions were in the mean.
    pub pace: Option<Pace>,
    /// It looks after tables rather than after an application: VACUUM, ANALYZE, OPTIMIZE and the like.
    pub maintenance: bool,
}

/// Mean duration in three classes (`performance.category`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Faster than the threshold for moderate.
    Fast,
    /// Between the two thresholds.
    Moderate,
    /// Slower than the threshold for slow.
    Slow,
}

impl Pace {
    /// Its name in attributes.
    pub fn name(self) -> &'static str {
        match self {
            Pace::Fast => "fast",
            Pace::Moderate => "moderate",
            Pace::Slow => "slow",
        }
    }
}
