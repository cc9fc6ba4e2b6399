//! Records on their way through the processors, and the account of them.

use std::collections::BTreeMap;

use super::{Kind, Record};
use crate::model::WallClock;

/// Why a record was taken out of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The agent's memory is short.
    Memory,
    /// It has a value that cannot be.
    Invalid,
    /// It is too old, or from the future.
    Stale,
    /// It held something private, and the configuration says to drop such records.
    Private,
    /// The same was shown a short time ago.
    Duplicate,
    /// The sampler's rate left it out.
    Sampled,
    /// A rate limit left it out.
    RateLimited,
    /// Its server's circuit is open.
    CircuitOpen,
    /// The budget is short.
    Budget,
    /// Its numbers were added to those of another record.
    Merged,
    /// The receiver would refuse it.
    Refused,
    /// Its text could not be read.
    Unreadable,
}

impl Reason {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Memory => "memory",
            Reason::Invalid => "invalid",
            Reason::Stale => "stale",
            Reason::Private => "private",
            Reason::Duplicate => "deduplication",
            Reason::Sampled => "sampling",
            Reason::RateLimited => "rate_limit",
            Reason::CircuitOpen => "circuit_open",
            Reason::Budget => "budget",
            Reason::Merged => "merged",
            Reason::Refused => "refused",
            Reason::Unreadable => "unreadable",
        }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sifted {
    /// It stays.
    Keep,
    /// It goes, and is counted.
    Discard(Reason),
}

/// Where the records of a batch are: what came in is what is there and what was discarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Records that were put into the batch.
    pub accepted: u64,
    /// Records that were taken out, by stage, reason and kind.
    pub discarded: BTreeMap<(&'static str, Reason, Kind), u64>,
}

impl Ledger {
    /// Records that were taken out.
    pub fn discards(&self) -> u64 {
        self.discarded.values().sum()
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Ledger) {
        self.accepted += other.accepted;
        other.discarded.iter().for_each(|(key, count)| *self.discarded.entry(*key).or_default() += count);
    }
}

/// Records that are processed together. None can leave without being counted: they go through [`Batch::sift`] with a reason, or through
/// [`Batch::into_parts`] to the exporters.
#[derive(Debug, Default)]
pub struct Batch {
    records: Vec<Record>,
    ledger: Ledger,
    /// The stage that works on the batch, for the ledger.
    stage: &'static str,
    clock: WallClock,
}

impl Batch {
    /// An empty batch; `clock` is the wall clock as it was read for it.
    pub fn new(clock: WallClock) -> Batch {
        Batch { clock, ..Batch::default() }
    }

    /// The wall clock.
    pub fn clock(&self) -> WallClock {
        self.clock
    }

    /// Puts a record in.
    pub fn push(&mut self, record: Record) {
        self.ledger.accepted += 1;
        self.records.push(record);
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, to write on them. Their number cannot change here.
    pub fn records_mut(&mut self) -> &mut [Record] {
        &mut self.records
    }

    /// Looks at each record, in order; those that `judge` discards leave.
    pub fn sift(&mut self, mut judge: impl FnMut(&mut Record) -> Sifted) {
        let (ledger, stage) = (&mut self.ledger, self.stage);
        self.records.retain_mut(|record| match judge(record) {
            Sifted::Keep => true,
            Sifted::Discard(reason) => {
                *ledger.discarded.entry((stage, reason, record.signal.kind())).or_default() += 1;
                false
            }
        });
    }

    /// Names the stage that works from now on.
    pub fn enter(&mut self, stage: &'static str) {
        self.stage = stage;
    }

    /// The account so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What is left, and the account.
    pub fn into_parts(self) -> (Vec<Record>, Ledger) {
        (self.records, self.ledger)
    }
}
