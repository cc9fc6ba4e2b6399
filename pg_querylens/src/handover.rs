//! From the processes' slots to the tables, and what is noticed on the way: that a statement has another plan than before.

use crate::{
    keys::{ErrorKey, PlanKey, StatementKey},
    locks::Mode,
    pending::{Pending, Slot},
    rows::ChangeRow,
    shmem::Shared,
};

/// Hands on what all processes have counted. After it, the tables hold everything that had been counted when it began.
pub(crate) fn all(shared: &Shared) {
    let (locks, lock) = shared.handover_lock();
    // Alone: what somebody else has taken out of a slot must have arrived.
    let _held = locks.hold(lock, Mode::Exclusive);
    let mut pending = Vec::new();
    for slot in shared.slots() {
        // A slot that stays busy is taken next time; its counters stay in it.
        let _ = slot.drain(&mut pending);
    }
    merge(shared, &mut pending);
}

/// Hands on what one process has counted.
pub(crate) fn one(shared: &Shared, slot: &Slot, pending: &mut Vec<Pending>) {
    let (locks, lock) = shared.handover_lock();
    let _held = locks.hold(lock, Mode::Shared);
    pending.clear();
    let _ = slot.drain(pending);
    merge(shared, pending);
}

fn merge(shared: &Shared, pending: &mut [Pending]) {
    // The plan that is a statement's last one should be the one that was executed last.
    pending.sort_unstable_by_key(|entry| entry.at);
    for entry in pending.iter() {
        if entry.key.plan_id != 0 && entry.counters.execution.count > 0 {
            notice_change(shared, entry);
        }
        shared.plans.update(entry.key, |row, _| row.merge(&entry.counters, entry.collapsed_id, entry.at));
    }
}

/// Writes the history if the statement was executed by another plan before.
fn notice_change(shared: &Shared, entry: &Pending) {
    let PlanKey { statement, plan_id } = entry.key;
    let previous = shared.statements.update(statement, |row, new| {
        let previous = row.plan_id;
        if new || previous != plan_id {
            row.plan_id = plan_id;
            row.since = entry.at;
        }
        if new || previous == plan_id {
            return None;
        }
        row.changes += 1;
        Some(previous)
    });
    let Some(previous_plan_id) = previous else { return };
    let sample =
        |plan_id| shared.plans.read(&PlanKey { statement, plan_id }).map(|row| row.whole()).unwrap_or_default();
    shared.history.write(ChangeRow {
        statement,
        previous_plan_id,
        plan_id,
        first_at: entry.at,
        at: entry.at,
        count: 1,
        before: sample(previous_plan_id),
        after: sample(plan_id),
    });
}

/// Counts a failure. Failures are rare enough to be counted where everybody sees them at once.
pub(crate) fn failure(shared: &Shared, statement: StatementKey, sqlstate: u64, time: u64, at: i64) {
    shared.errors.update(ErrorKey { statement, sqlstate }, |row, _| {
        row.count += 1;
        row.time = row.time.saturating_add(time);
        row.last_seen = row.last_seen.max(at);
    });
}
