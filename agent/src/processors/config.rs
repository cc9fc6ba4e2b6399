//! Settings of all processors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::breaker;
use crate::model::Problem;

/// What happens to signals before they are exported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When servers and their questions are left alone.
    pub circuit_breaker: breaker::Config,
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        self.circuit_breaker.check().map(|problem| problem.beneath("circuit_breaker"))
    }
}
