//! Settings of the capture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// How queries are seen on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the bytes are read.
    pub strategy: Strategy,
    /// Size of the kernel's ring buffer in bytes: a power of two.
    #[schemars(range(min = MIN_RING_BYTES, max = MAX_RING_BYTES))]
    pub ring_bytes: u32,
    /// How often the ring buffer is emptied, from 1ms to 1s: longer costs less, and needs a larger buffer.
    pub poll_interval: HumanDuration,
}

/// Where the bytes of a connection are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
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

/// A page: the least that the kernel takes.
const MIN_RING_BYTES: u32 = 4096;
/// One gibibyte.
const MAX_RING_BYTES: u32 = 1 << 30;
const POLL_INTERVALS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(1)..=HumanDuration::from_secs(1);

impl Default for Config {
    fn default() -> Config {
        Config { strategy: Strategy::Auto, ring_bytes: 8 * 1024 * 1024, poll_interval: HumanDuration::from_millis(5) }
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
