//! Settings of the aggregation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Problem;

/// How much is remembered about statements and sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Statements told apart per instance; the executions of further ones are counted together under `_other`.
    #[schemars(range(min = 1, max = MAX_STATEMENTS))]
    pub max_statements: usize,
    /// Sessions followed at once; further ones are counted as lost.
    #[schemars(range(min = 1, max = MAX_SESSIONS))]
    pub max_sessions: usize,
}

/// A statement takes some kilobytes: histograms and text.
const MAX_STATEMENTS: usize = 1_000_000;
/// A session takes some hundred bytes, besides what its client has sent and not completed.
const MAX_SESSIONS: usize = 1_000_000;

impl Default for Config {
    fn default() -> Config {
        Config { max_statements: 10_000, max_sessions: 20_000 }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let statements = Problem::out_of_range("max_statements", &self.max_statements, 1..=MAX_STATEMENTS);
        let sessions = Problem::out_of_range("max_sessions", &self.max_sessions, 1..=MAX_SESSIONS);
        statements.into_iter().chain(sessions)
    }
}
