//! What each process has counted and not yet handed on.
//!
//! Every process has a slot in shared memory. It counts there, behind a flag that only it touches as a rule, and looks at no table. The background
//! worker hands the slots' counters on to the tables each second, and whoever reads the statistics does the same before, so that also what an idle
//! session counted last is seen.

use std::{
    cell::UnsafeCell,
    sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use crate::{
    counters::Counters,
    keys::{PlanKey, StatementKey},
};

/// Plans that a process counts before it must hand them on itself.
pub(crate) const PENDING: usize = 32;
/// Looks at the flag of a slot that is busy, before a process gives up; the other side copies 32 entries at most.
const PATIENCE: u32 = 100_000;

/// Counters of a plan in one process.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// The plan.
    pub(crate) key: PlanKey,
    /// The plan with the partitions of a table taken for one.
    pub(crate) collapsed_id: u64,
    /// When it was last executed.
    pub(crate) at: i64,
    /// What was counted.
    pub(crate) counters: Counters,
}

/// What a process executes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Activity {
    /// Process id.
    pub(crate) pid: i32,
    /// Oid of its database.
    pub(crate) database: u32,
    /// Oid of its user.
    pub(crate) user: u32,
    /// The statement; 0 if none.
    pub(crate) query_id: u64,
    /// Its plan.
    pub(crate) plan_id: u64,
    /// Since when.
    pub(crate) since: i64,
}

/// A process's place.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// 1 while somebody reads or changes the entries.
    busy: AtomicU32,
    /// The process that it belongs to; 0 if it is free.
    pid: AtomicI32,
    /// Entries in use. Changed while busy only, but read at any time.
    used: AtomicU32,
    database: AtomicU32,
    user: AtomicU32,
    _reserved: AtomicU32,
    query_id: AtomicU64,
    plan_id: AtomicU64,
    since: AtomicI64,
    entries: UnsafeCell<Entries>,
}

/// What a process has counted.
#[repr(C)]
struct Entries {
    /// Of the keys: they are compared before the keys are, which lie far apart.
    tags: [u64; PENDING],
    counted: [Pending; PENDING],
}

/// Query and plan ids are hashes: what distinguishes keys is in all of its bits.
#[inline]
fn tag(key: &PlanKey) -> u64 {
    let StatementKey { database, user, query_id, top_level } = key.statement;
    let who = u64::from(database) << 33 ^ u64::from(user) << 1 ^ top_level;
    query_id ^ key.plan_id.rotate_left(32) ^ who
}

impl Entries {
    /// The entry of a key among the first `used`. What was new last is looked at first: planned, then executed.
    #[inline]
    fn find(&mut self, key: &PlanKey, tag: u64, used: usize) -> Option<&mut Pending> {
        let known = self.tags.get(..used)?.iter().zip(&self.counted);
        let at = known.rev().position(|(known, entry)| *known == tag && entry.key == *key)?;
        self.counted.get_mut(used - 1 - at)
    }
}

// SAFETY: the entries are touched only by who has set `busy`.
unsafe impl Sync for Slot {}

impl Slot {
    /// Takes it for a process, if it is free.
    pub(crate) fn claim(&self, pid: i32) -> bool {
        self.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Gives it back. What was counted stays until it is handed on.
    pub(crate) fn release(&self) {
        self.idle();
        self.pid.store(0, Ordering::Release);
    }

    /// Shows what is being executed.
    #[inline]
    pub(crate) fn executing(&self, key: &PlanKey, since: i64) {
        self.database.store(key.statement.database, Ordering::Relaxed);
        self.user.store(key.statement.user, Ordering::Relaxed);
        self.plan_id.store(key.plan_id, Ordering::Relaxed);
        self.since.store(since, Ordering::Relaxed);
        self.query_id.store(key.statement.query_id, Ordering::Relaxed);
    }

    /// Shows that nothing is being executed.
    #[inline]
    pub(crate) fn idle(&self) {
        self.query_id.store(0, Ordering::Relaxed);
    }

    /// What is being executed, if anything is. Its parts may be of two moments.
    pub(crate) fn activity(&self) -> Option<Activity> {
        let (pid, query_id) = (self.pid.load(Ordering::Acquire), self.query_id.load(Ordering::Relaxed));
        (pid != 0 && query_id != 0).then(|| Activity {
            pid,
            database: self.database.load(Ordering::Relaxed),
            user: self.user.load(Ordering::Relaxed),
            query_id,
            plan_id: self.plan_id.load(Ordering::Relaxed),
            since: self.since.load(Ordering::Relaxed),
        })
    }

    /// Counts for a plan: false if there is no entry left, so that the others must be handed on first; `None` if the slot stayed busy.
    #[inline]
    pub(crate) fn count(
        &self,
        key: &PlanKey,
        collapsed_id: u64,
        at: i64,
        add: impl FnOnce(&mut Counters),
    ) -> Option<bool> {
        let _busy = self.enter()?;
        // SAFETY: nobody else is at the entries while `_busy` lives.
        let entries = unsafe { &mut *self.entries.get() };
        let used = (self.used.load(Ordering::Relaxed) as usize).min(PENDING);
        let tag = tag(key);
        if let Some(entry) = entries.find(key, tag, used) {
            entry.at = at;
            add(&mut entry.counters);
            return Some(true);
        }
        let (Some(place), Some(entry)) = (entries.tags.get_mut(used), entries.counted.get_mut(used)) else {
            return Some(false);
        };
        *place = tag;
        *entry = Pending { key: *key, collapsed_id, at, counters: Counters::default() };
        self.used.store(used as u32 + 1, Ordering::Relaxed);
        add(&mut entry.counters);
        Some(true)
    }

    /// Takes what was counted. `None` if the slot stayed busy.
    pub(crate) fn drain(&self, into: &mut Vec<Pending>) -> Option<()> {
        if self.used.load(Ordering::Relaxed) == 0 {
            return Some(());
        }
        // Memory is asked for while nobody waits.
        into.reserve(PENDING);
        let _busy = self.enter()?;
        let used = self.used.swap(0, Ordering::Relaxed) as usize;
        // SAFETY: nobody else is at the entries while `_busy` lives.
        let entries = unsafe { &*self.entries.get() };
        into.extend_from_slice(&entries.counted[..used.min(PENDING)]);
        Some(())
    }

    #[inline]
    fn enter(&self) -> Option<Busy<'_>> {
        for _ in 0..PATIENCE {
            if self.busy.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Some(Busy(&self.busy));
            }
            std::thread::yield_now();
        }
        None
    }
}

/// The right to the entries, until dropped.
struct Busy<'a>(&'a AtomicU32);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Usage;

    fn slot() -> Box<Slot> {
        // SAFETY: plain numbers and atomics, for which zero is valid, as the shared memory is at first.
        unsafe { Box::new(std::mem::zeroed()) }
    }

    fn key(plan_id: u64) -> PlanKey {
        PlanKey { statement: StatementKey { database: 1, user: 2, query_id: 3, top_level: 1 }, plan_id }
    }

    #[test]
    fn counts_come_out_once() {
        let (slot, mut out) = (slot(), Vec::new());
        let add = |counters: &mut Counters| counters.add(&Usage { rows: 1, time: 10, ..Usage::NONE });
        for _ in 0..3 {
            assert_eq!(slot.count(&key(7), 8, 9, add), Some(true));
        }
        slot.drain(&mut out);
        slot.drain(&mut out);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].counters.execution.count, out[0].collapsed_id, out[0].at), (3, 8, 9));
    }

    #[test]
    fn a_full_slot_says_so_and_takes_what_it_knows() {
        let slot = slot();
        let add = |counters: &mut Counters| counters.rows += 1;
        for plan in 0..PENDING as u64 {
            assert_eq!(slot.count(&key(plan), 0, 0, add), Some(true));
        }
        assert_eq!(slot.count(&key(1_000), 0, 0, add), Some(false));
        assert_eq!(slot.count(&key(5), 0, 0, add), Some(true));
    }

    #[test]
    fn two_threads_lose_nothing() {
        let slot = slot();
        let mut out = Vec::new();
        std::thread::scope(|scope| {
            let counting = scope.spawn(|| {
                for _ in 0..100_000 {
                    while slot.count(&key(1), 0, 0, |counters| counters.rows += 1) != Some(true) {}
                }
            });
            while !counting.is_finished() {
                slot.drain(&mut out);
            }
        });
        slot.drain(&mut out);
        assert_eq!(out.iter().map(|entry| entry.counters.rows).sum::<u64>(), 100_000);
    }

    #[test]
    fn a_slot_belongs_to_one_process() {
        let slot = slot();
        assert!(slot.claim(1));
        assert!(!slot.claim(2));
        slot.release();
        assert!(slot.claim(2));
    }
}
