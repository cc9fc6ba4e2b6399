//! Settings of the query correlator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem};

/// How statements, sessions and servers hang together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sessions that are followed, all servers together; the one seen longest ago makes room.
    #[schemars(range(min = 1, max = MAX_SESSIONS))]
    pub max_sessions: usize,
    /// A session that did nothing for so long is forgotten.
    pub session_timeout: HumanDuration,
    /// Statements whose mean duration is this or longer are slow.
    pub slow: HumanDuration,
    /// Those below it and of this or longer are moderate.
    pub moderate: HumanDuration,
    /// So many executions of one statement right after each other are worth a finding.
    #[schemars(range(min = 2, max = MAX_REPEATS))]
    pub n_plus_one_repeats: u32,
    /// A transaction that waits for its client for so long is worth a finding.
    pub idle_in_transaction: HumanDuration,
    /// The same finding is made once in so long a time.
    pub finding_interval: HumanDuration,
}

const MAX_SESSIONS: usize = 1_000_000;
const MAX_REPEATS: u32 = 1_000_000;
const TIMES: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_millis(1)..=HumanDuration::from_secs(7 * 86_400);

impl Default for Config {
    fn default() -> Config {
        Config {
            max_sessions: 10_000,
            session_timeout: HumanDuration::from_secs(1800),
            slow: HumanDuration::from_secs(1),
            moderate: HumanDuration::from_millis(100),
            n_plus_one_repeats: 10,
            idle_in_transaction: HumanDuration::from_secs(60),
            finding_interval: HumanDuration::from_secs(3600),
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let order = self.slow < self.moderate;
        [
            Problem::out_of_range("max_sessions", &self.max_sessions, 1..=MAX_SESSIONS),
            Problem::out_of_range("session_timeout", &self.session_timeout, TIMES),
            Problem::out_of_range("slow", &self.slow, TIMES),
            Problem::out_of_range("moderate", &self.moderate, TIMES),
            order.then(|| Problem::new("slow", "must not be less than `moderate`")),
            Problem::out_of_range("n_plus_one_repeats", &self.n_plus_one_repeats, 2..=MAX_REPEATS),
            Problem::out_of_range("idle_in_transaction", &self.idle_in_transaction, TIMES),
            Problem::out_of_range("finding_interval", &self.finding_interval, TIMES),
        ]
        .into_iter()
        .flatten()
    }
}
