//! What processors tell of signals.

use serde::{Deserialize, Serialize};

/// What the circuit breaker says of the server that a record comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Its questions are asked.
    #[default]
    Closed,
    /// One question is asked, to see whether the server is well again.
    HalfOpen,
    /// Nothing is asked: what is known comes from the wire alone.
    Open,
}

impl Circuit {
    /// Its name in attributes and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Circuit::Closed => "closed",
            Circuit::HalfOpen => "half_open",
            Circuit::Open => "open",
        }
    }
}
