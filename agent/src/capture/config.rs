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
    /// Statements that the kernel counts by itself, all servers together: told apart by text, user, database and error. Further ones are counted
    /// together. One takes 1.1 KiB.
    #[schemars(range(min = MIN_COUNTED, max = MAX_COUNTED))]
    pub counted_statements: u32,
    /// Connections that are followed at once, all servers together. One takes 0.5 KiB; of further ones nothing is seen.
    #[schemars(range(min = MIN_SESSIONS, max = MAX_SESSIONS))]
    pub sessions: u32,
    /// One in so many executions is shown to the agent although the kernel need only count it, at random; 0 for none.
    pub record_one_in: u32,
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
/// So that a server's own statements, its transactions and "everything else" have a row.
const MIN_COUNTED: u32 = 16;
/// Beyond it the kernel's memory for them is more than 1 GiB.
const MAX_COUNTED: u32 = 1 << 20;
const MIN_SESSIONS: u32 = 16;
/// Beyond it the kernel's memory for them is more than 512 MiB.
const MAX_SESSIONS: u32 = 1 << 20;
const POLL_INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(1)..=HumanDuration::from_secs(1);

impl Default for Config {
    fn default() -> Config {
        Config {
            strategy: Choice::Auto,
            ring_bytes: 8 * 1024 * 1024,
            counted_statements: 10_240,
            sessions: 16_384,
            record_one_in: 1024,
            poll_interval: HumanDuration::from_millis(20),
        }
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
        let counted = Problem::out_of_range("counted_statements", &self.counted_statements, MIN_COUNTED..=MAX_COUNTED);
        let sessions = Problem::out_of_range("sessions", &self.sessions, MIN_SESSIONS..=MAX_SESSIONS);
        range.or_else(power).into_iter().chain(counted).chain(sessions).chain(poll)
    }
}
