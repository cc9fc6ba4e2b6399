//! The memory guard: sheds before the kernel ends the agent. What is shed first is what tells least; exact statistics and findings never are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Effects, Field, Io, Measures, Processor, Stage};
use crate::model::{
    Batch, Ending, Problem, Record, Signal, Timestamp,
    names::processor_metric as m,
    signal::{Reason, Severity, Sifted},
};

/// What it reads and writes.
pub const IO: Io = Io { reads: &[], writes: &[Field::Admitted] };

/// What the agent may use of its memory before it sheds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Megabytes that the agent may use; 0 for what its cgroup allows.
    pub limit_mib: u64,
    /// From so many per cent of it on, examples that are there by chance, and states of sessions, go.
    pub soft_percent: f64,
    /// From here on plans go, and all examples but failures.
    pub hard_percent: f64,
    /// From here on only exact statistics and findings stay.
    pub critical_percent: f64,
}

/// A level is left when the use has fallen so many points below it.
const HYSTERESIS: f64 = 5.0;

impl Default for Config {
    fn default() -> Config {
        Config { limit_mib: 0, soft_percent: 75.0, hard_percent: 85.0, critical_percent: 95.0 }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let ascending = self.soft_percent < self.hard_percent && self.hard_percent < self.critical_percent;
        [
            Problem::out_of_range("soft_percent", &self.soft_percent, 1.0..=100.0),
            Problem::out_of_range("hard_percent", &self.hard_percent, 1.0..=100.0),
            Problem::out_of_range("critical_percent", &self.critical_percent, 1.0..=100.0),
            (!ascending)
                .then(|| Problem::new("hard_percent", "must lie between `soft_percent` and `critical_percent`")),
        ]
        .into_iter()
        .flatten()
    }
}

/// The processor.
#[derive(Debug)]
pub struct MemoryGuard {
    config: Config,
    /// Use in per cent of what there is.
    percent: f64,
    level: usize,
    shed: u64,
}

impl MemoryGuard {
    /// Nothing is short yet.
    pub fn new(config: Config) -> MemoryGuard {
        MemoryGuard { config, percent: 0.0, level: 0, shed: 0 }
    }

    /// Takes up how many bytes are used, and how many the cgroup allows; 0 for as many as one likes.
    pub fn used(&mut self, bytes: u64, cgroup_limit: u64) {
        let own = self.config.limit_mib.saturating_mul(1 << 20);
        let limit = [own, cgroup_limit].into_iter().filter(|limit| *limit > 0).min();
        self.percent = limit.map_or(0.0, |limit| bytes as f64 / limit as f64 * 100.0);
        let levels = [self.config.soft_percent, self.config.hard_percent, self.config.critical_percent];
        let at = |points: f64| levels.iter().filter(|level| self.percent + points >= **level).count();
        self.level = self.level.clamp(at(0.0), at(HYSTERESIS).max(at(0.0)));
    }

    /// Whether a record goes at this level.
    fn sheds(&self, record: &Record) -> bool {
        let from = match &record.signal {
            Signal::Interval(_) | Signal::Finding(_) => return false,
            Signal::Execution(execution) if matches!(execution.ending, Ending::Failed(_)) => 3,
            Signal::Execution(_) | Signal::Activity(_) => 1,
            Signal::Plan(_) | Signal::Blocking(_) => 2,
            Signal::Fact(_) => 3,
        };
        self.level >= from
    }
}

impl Processor for MemoryGuard {
    fn stage(&self) -> Stage {
        Stage::MemoryGuard
    }

    fn process(&mut self, _now: Timestamp, batch: &mut Batch, effects: &mut Effects) {
        if self.level == 0 {
            return;
        }
        let before = batch.len();
        batch.sift(|record| if self.sheds(record) { Sifted::Discard(Reason::Memory) } else { Sifted::Keep });
        self.shed += (before - batch.len()) as u64;
        if self.level == 3 {
            effects.alert("memory", Severity::Critical, self.percent, self.config.critical_percent);
        }
    }

    fn measure(&self, measures: &mut Measures) {
        measures.tell(&m::MEMORY_PERCENT, self.percent);
        measures.tell(&m::MEMORY_LEVEL, self.level as f64);
        measures.tell(&m::MEMORY_SHED, self.shed as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::WallClock, processors::testing};

    #[test]
    fn sheds_by_priority_and_with_hysteresis() {
        let mut guard = MemoryGuard::new(Config { limit_mib: 100, ..Config::default() });
        let mut left = |megabytes: u64| {
            guard.used(megabytes << 20, 1 << 40);
            let mut batch = Batch::new(WallClock::default());
            testing::one_of_each().into_iter().for_each(|record| batch.push(record));
            guard.process(Timestamp(1), &mut batch, &mut Effects::default());
            assert_eq!(batch.ledger().accepted, batch.len() as u64 + batch.ledger().discards());
            batch.records().iter().map(|record| record.signal.kind().name()).collect::<Vec<_>>().join(" ")
        };
        let all = "interval execution plan activity blocking fact finding";
        assert_eq!(left(74), all);
        assert_eq!(left(75), "interval plan blocking fact finding");
        assert_eq!(left(86), "interval fact finding");
        assert_eq!(left(96), "interval finding");
        assert_eq!(left(91), "interval finding");
        assert_eq!(left(89), "interval fact finding");
        assert_eq!(left(71), "interval plan blocking fact finding");
        assert_eq!(left(69), all);
    }

    #[test]
    fn the_smaller_limit_counts_and_none_is_none() {
        let mut guard = MemoryGuard::new(Config { limit_mib: 100, ..Config::default() });
        guard.used(50 << 20, 50 << 20);
        assert_eq!((guard.percent, guard.level), (100.0, 3));
        let mut guard = MemoryGuard::new(Config::default());
        guard.used(u64::MAX, 0);
        assert_eq!(guard.level, 0);
    }
}
