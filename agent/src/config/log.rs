//! The agent's own log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The agent's own log, written to standard error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least severe messages that are written.
    pub level: Level,
    /// How a message is written.
    pub format: Format,
}

/// Severity of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Data was lost or a part stopped.
    Error,
    /// Something works less well than it could.
    Warn,
    /// What the agent found and decided.
    #[default]
    Info,
    /// Single steps, for a bug report.
    Debug,
    /// Everything; slows the agent down.
    Trace,
}

/// Form of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}
