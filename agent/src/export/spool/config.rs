//! Settings of the spool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::Problem;

/// What waits for receivers that are away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Keep what waits on disk, in the state directory, so that a restart loses nothing; else in memory.
    pub enabled: bool,
    /// Megabytes on disk, for each receiver. Beyond them the oldest goes, examples before statistics.
    #[schemars(range(min = MIN_MIB, max = MAX_MIB))]
    pub max_mib: u64,
    /// Megabytes in memory, for each receiver: without a disk, or while it takes nothing.
    #[schemars(range(min = 1, max = MAX_MEMORY_MIB))]
    pub memory_mib: u64,
}

/// Two segments for each of the two queues.
const MIN_MIB: u64 = 16;
/// A tebibyte.
const MAX_MIB: u64 = 1 << 20;
const MAX_MEMORY_MIB: u64 = 4096;

impl Default for Config {
    fn default() -> Config {
        Config { enabled: true, max_mib: 512, memory_mib: 16 }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let disk = Problem::out_of_range("max_mib", &self.max_mib, MIN_MIB..=MAX_MIB);
        let memory = Problem::out_of_range("memory_mib", &self.memory_mib, 1..=MAX_MEMORY_MIB);
        disk.into_iter().chain(memory)
    }
}
