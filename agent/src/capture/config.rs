//! Settings of the capture stage.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Strategy;

/// How servers are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Attach strategy: `auto` picks the cheapest one that works for each server; the others are for tests and special cases.
    pub strategy: Choice,
    /// Size of the ring buffer between kernel and agent, in bytes; a power of two from 4096 to 1073741824. It counts twice in the agent's resident memory.
    pub ring_bytes: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { strategy: Choice::Auto, ring_bytes: 8 << 20 }
    }
}

impl Config {
    /// What is wrong with the values: (key, reason).
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let valid = self.ring_bytes.is_power_of_two() && (4096..=1 << 30).contains(&self.ring_bytes);
        match valid {
            true => Vec::new(),
            false => vec![(
                "ring_bytes",
                format!("{} is not a power of two from 4096 to 1073741824; the default is 8388608", self.ring_bytes),
            )],
        }
    }
}

/// Which strategy is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The cheapest one that works for each server.
    #[default]
    Auto,
    /// Uprobes at the server's own I/O functions only.
    Boundary,
    /// Socket tracepoints only.
    Socket,
    /// The system-call tracepoint only.
    Syscall,
}

impl Choice {
    /// Strategies to try, best first.
    pub(super) fn order(self) -> &'static [Strategy] {
        match self {
            // By measured cost a query, see docs/BENCHMARKS.md.
            Choice::Auto => &[Strategy::Socket, Strategy::Boundary, Strategy::Syscall],
            Choice::Boundary => &[Strategy::Boundary],
            Choice::Socket => &[Strategy::Socket],
            Choice::Syscall => &[Strategy::Syscall],
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Choice::Auto => "auto",
            Choice::Boundary => "boundary",
            Choice::Socket => "socket",
            Choice::Syscall => "syscall",
        })
    }
}
