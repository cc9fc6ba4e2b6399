//! What the sampler remembers of each statement.

use std::time::Duration;

use crate::model::{
    Histogram,
    signal::{Interval, PlanFacts},
};

/// Executions from which a 99th percentile is taken: fewer have none that is worth the name.
const ENOUGH: u64 = 200;
/// How much a new percentile counts beside the one so far.
const WEIGHT: f64 = 0.3;
/// The golden ratio's fractional part as a fraction of 2^64: multiples of it fill an interval evenly from any start on (Kronecker sequence).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A statement of a server.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Durations since the latest percentile was taken.
    recent: Histogram,
    p99: Option<Duration>,
    mean: Option<Duration>,
    /// Executions in the latest interval.
    executions: u64,
    /// Whether its plan reads a whole table, and how many rows.
    seq_scan: Option<(bool, f64)>,
    /// An execution was shown.
    pub(super) shown: bool,
    /// Window of the latest choice, and the number of choices in it.
    window: u64,
    ordinal: u64,
    /// Weight of what a rate limit left out since the latest that was kept.
    pub(super) carried: f64,
}

impl Known {
    /// As it was before a restart.
    pub(super) fn restored(p99: Option<Duration>) -> Known {
        Known { p99, shown: true, ..Known::default() }
    }

    /// Takes up exact statistics.
    pub(super) fn learn(&mut self, interval: &Interval) {
        let stats = &interval.stats;
        self.executions = stats.executions();
        if stats.ok.count() == 0 {
            return;
        }
        self.mean = Some(stats.ok.mean());
        self.recent.merge(&stats.ok);
        if self.recent.count() >= ENOUGH {
            let new = self.recent.quantile(0.99);
            self.p99 = Some(self.p99.map_or(new, |old| old.mul_f64(1.0 - WEIGHT) + new.mul_f64(WEIGHT)));
            self.recent = Histogram::default();
        }
    }

    /// Takes up what a plan says.
    pub(super) fn learn_plan(&mut self, facts: &PlanFacts) {
        self.seq_scan = Some((facts.has_seq_scan, facts.seq_scan_rows));
    }

    /// 99th percentile of the durations of executions that succeeded, once there were enough.
    pub(super) fn p99(&self) -> Option<Duration> {
        self.p99
    }

    /// Mean duration in the latest interval.
    pub(super) fn mean(&self) -> Option<Duration> {
        self.mean
    }

    /// Executions in the latest interval.
    pub(super) fn executions(&self) -> u64 {
        self.executions
    }

    /// Whether its plan reads a whole table, and how many rows.
    pub(super) fn seq_scan(&self) -> Option<(bool, f64)> {
        self.seq_scan
    }

    /// A number from 0 to 1 for the next choice. Evenly spread over the choices of a window, so that of `n` executions nearly `n * rate` are kept and each has
    /// the same chance; begins at a hash of statement and window, so that agents that see the same statement begin alike.
    pub(super) fn draw(&mut self, window: u64, hash: impl FnOnce() -> u64) -> f64 {
        if self.window != window || self.ordinal == 0 {
            self.window = window;
            self.ordinal = hash();
        } else {
            self.ordinal = self.ordinal.wrapping_add(GOLDEN);
        }
        // 53 bits, which a float holds exactly.
        (self.ordinal >> 11) as f64 / (1u64 << 53) as f64
    }
}
