//! The last changes of plans, in a ring of fixed size in shared memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    locks::{Locks, Mode},
    rows::ChangeRow,
};

/// The ring, as one process sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    rows: *mut ChangeRow,
    capacity: usize,
    /// Changes that were ever written; the next one goes to this number, modulo the capacity.
    written: *const AtomicU64,
    locks: Locks,
    lock: usize,
}

impl History {
    /// # Safety
    ///
    /// `rows` points to `capacity` rows that all processes share and only this changes, under lock `lock` of `locks`; `written` to a number beside them.
    pub(crate) unsafe fn new(
        rows: *mut ChangeRow,
        capacity: usize,
        written: *const AtomicU64,
        locks: Locks,
        lock: usize,
    ) -> History {
        History { rows, capacity, written, locks, lock }
    }

    fn written(&self) -> &AtomicU64 {
        // SAFETY: promised to `new`.
        unsafe { &*self.written }
    }

    /// How many it holds.
    fn held(&self) -> usize {
        self.written().load(Ordering::Relaxed).min(self.capacity as u64) as usize
    }

    /// Writes a change. The same change of the same statement is counted, not written again: plans that take turns fill no ring.
    pub(crate) fn write(&self, change: ChangeRow) {
        if self.capacity == 0 {
            return;
        }
        let _held = self.locks.hold(self.lock, Mode::Exclusive);
        // SAFETY: promised to `new`; nobody else has the rows while the lock is held.
        let rows = unsafe { std::slice::from_raw_parts_mut(self.rows, self.held()) };
        let same = rows.iter_mut().find(|row| {
            row.statement == change.statement
                && row.previous_plan_id == change.previous_plan_id
                && row.plan_id == change.plan_id
        });
        if let Some(row) = same {
            row.count += change.count;
            row.at = row.at.max(change.at);
            row.after = change.after;
            return;
        }
        let at = self.written().load(Ordering::Relaxed) as usize % self.capacity;
        // SAFETY: within the rows promised to `new`.
        unsafe { self.rows.add(at).write(change) };
        self.written().fetch_add(1, Ordering::Relaxed);
    }

    /// All changes that it holds.
    pub(crate) fn all(&self) -> Vec<ChangeRow> {
        let mut rows = Vec::with_capacity(self.capacity);
        let _held = self.locks.hold(self.lock, Mode::Shared);
        // SAFETY: promised to `new`; nobody changes the rows while the lock is held.
        rows.extend_from_slice(unsafe { std::slice::from_raw_parts(self.rows, self.held()) });
        rows
    }

    /// Removes what `unwanted` chooses.
    pub(crate) fn remove(&self, unwanted: impl Fn(&ChangeRow) -> bool) {
        let kept: Vec<ChangeRow> = self.all().into_iter().filter(|row| !unwanted(row)).collect();
        let _held = self.locks.hold(self.lock, Mode::Exclusive);
        // What was written between the two locks goes too: a reset forgets what was before it.
        for (at, row) in kept.iter().enumerate() {
            // SAFETY: no more than the rows promised to `new`.
            unsafe { self.rows.add(at).write(*row) };
        }
        self.written().store(kept.len() as u64, Ordering::Relaxed);
    }
}
