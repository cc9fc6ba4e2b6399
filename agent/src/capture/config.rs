//! Settings of the capture.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Strategy;
use crate::model::{HumanDuration, Problem};

/// How queries are seen on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the bytes are read.
    pub strategy: Choice,
    /// Size of the kernel's ring buffer in bytes: a power of two. It counts twice in the agent's resident memory.
    #[schemars(range(min = MIN_RING_BYTES, max = MAX_RING_BYTES))]
    pub ring_bytes: u32,
    /// Longest pause between two looks at the ring buffer, from 1ms to 1s; under load the pauses are shorter. Longer costs less, and needs a
    /// larger buffer.
    pub poll_interval: HumanDuration,
}

/// Where the bytes of a connection are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The cheapest that works, for each server by itself.
    #[default]
    Auto,
    /// In the server's own functions for reading and writing a connection.
    Boundary,
    /// In the kernel's socket functions.
    Socket,
    /// In the system calls.
    Syscall,
}

impl Choice {
    /// Strategies to try, best first.
    pub(super) fn order(self) -> &'static [Strategy] {
        match self {
            // By what each adds to a query: docs/ARCHITECTURE.md §Kernel.
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

/// A page: the least that the kernel takes.
const MIN_RING_BYTES: u32 = 4096;
/// One gibibyte.
const MAX_RING_BYTES: u32 = 1 << 30;
const POLL_INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(1)..=HumanDuration::from_secs(1);

impl Default for Config {
    fn default() -> Config {
        Config { strategy: Choice::Auto, ring_bytes: 16 * 1024 * 1024, poll_interval: HumanDuration::from_millis(20) }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let range = Problem::out_of_range("ring_bytes", &self.ring_bytes, MIN_RING_BYTES..=MAX_RING_BYTES);
        let power = || {
            (!self.ring_bytes.is_power_of_two()).then(|| {
                let lower = 1 << self.ring_bytes.ilog2();
                let reason = format!("must be a power of two, e.g. {lower} or {}", lower * 2);
                Problem::new("ring_bytes", reason)
            })
        };
        let poll = Problem::out_of_range("poll_interval", &self.poll_interval, POLL_INTERVALS);
        range.or_else(power).into_iter().chain(poll)
    }
}
