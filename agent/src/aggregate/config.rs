//! Bounds of the aggregation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bounds on what is kept in memory. What is beyond them is still counted, under `_other`, or counted as lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Distinct (database, user, statement) kept for one server; further statements are counted together as `_other`.
    pub max_statements: u32,
    /// Sessions followed at the same time on all servers together; further ones are not followed, and that is counted.
    pub max_sessions: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { max_statements: 10_000, max_sessions: 20_000 }
    }
}

impl Config {
    /// What is wrong with the values: (key, reason).
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        [("max_statements", self.max_statements, 1_000_000), ("max_sessions", self.max_sessions, 1_000_000)]
            .into_iter()
            .filter(|(_, value, most)| *value == 0 || value > most)
            .map(|(key, value, most)| (key, format!("{value} is not from 1 to {most}")))
            .collect()
    }
}
