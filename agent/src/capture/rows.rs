//! The rows in which the kernel counts: takes what is there, and gives rows back that nobody uses.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use agent_ebpf::{
    Row, RowKey,
    histogram::{BUCKETS, upper_bound},
    row::{ending, outcome, policy, reserved, unpack_sqlstate},
};
use aya::maps::{HashMap as BpfHashMap, MapData, Queue};

use super::{Shared, shared::SharedArray};
use crate::model::{Code, Counted, Ending, Policy, Subject};

/// Looks without an execution after which a row may be given back, if rows are needed.
const IDLE_LOOKS: u32 = 30;
/// Share of all rows that should be free: below it, idle rows are given back.
const WANTED_FREE: usize = 4;

/// What is known here of a row.
#[derive(Clone, Copy, Default)]
struct Use {
    /// Whose it is; default while nothing was counted in it.
    key: RowKey,
    /// Looks since something was counted.
    idle: u32,
    /// It was taken out of the kernel's table: at the next look it is emptied for the last time and is free.
    leaving: bool,
}

/// The kernel's rows.
pub(super) struct Rows {
    rows: SharedArray<Row>,
    free: Queue<MapData, u32>,
    by_key: BpfHashMap<MapData, Shared<RowKey>, u32>,
    uses: Vec<Use>,
    /// Rows that have been in use: the kernel takes them in order.
    touched: usize,
    in_use: usize,
}

impl Rows {
    pub(super) fn new(
        rows: SharedArray<Row>,
        free: Queue<MapData, u32>,
        by_key: BpfHashMap<MapData, Shared<RowKey>, u32>,
    ) -> Rows {
        let uses = vec![Use::default(); rows.len()];
        Rows { rows, free, by_key, uses, touched: 0, in_use: 0 }
    }

    /// Offers all rows to the kernel.
    pub(super) fn offer(&mut self) -> Result<(), aya::maps::MapError> {
        (0..self.rows.len() as u32).try_for_each(|row| self.free.push(row, 0))
    }

    /// Takes what was counted since the last look. `postgresql` tells the engine of a slot, by which codes are read.
    pub(super) fn take(&mut self, postgresql: impl Fn(u32) -> bool, mut each: impl FnMut(&Counted<'_>)) {
        let mut buckets = Vec::with_capacity(BUCKETS);
        let mut at = 0;
        while let Some(row) = self.rows.get(at) {
            // SAFETY: within the mapping; the kernel writes a key once, before anything is counted under it.
            let (key, dirty) =
                unsafe { ((&raw const (*row).key).read_volatile(), (&raw const (*row).dirty).read_volatile()) };
            // One that was taken and given back at once is dirty without a key.
            if key.hash == 0 && dirty == 0 && at >= self.touched {
                break;
            }
            self.touched = self.touched.max(at + 1);
            let mut used = self.uses[at];
            if used.leaving {
                // The key in the row is gone; what was under way when it went belongs to the old one.
                self.empty(row, &used.key, &mut buckets, &postgresql, &mut each);
                self.uses[at] = Use::default();
                self.in_use -= 1;
                // A queue as long as there are rows is never full.
                let _ = self.free.push(at as u32, 0);
                at += 1;
                continue;
            }
            if key.hash != 0 {
                if used.key.hash == 0 {
                    self.in_use += 1;
                    used = Use { key, ..Use::default() };
                }
                used.idle = if self.empty(row, &key, &mut buckets, &postgresql, &mut each) { 0 } else { used.idle + 1 };
                if used.idle >= IDLE_LOOKS && self.in_use + self.rows.len() / WANTED_FREE > self.rows.len() {
                    self.retire(row, &key);
                    used.leaving = true;
                }
                self.uses[at] = used;
            }
            at += 1;
        }
    }

    /// Takes a row from its key: the next execution makes a new one.
    fn retire(&mut self, row: *mut Row, key: &RowKey) {
        let _ = self.by_key.remove(&Shared(*key));
        // SAFETY: within the mapping. Programs compare the key before they count, so that what comes from now on goes elsewhere.
        unsafe {
            (&raw mut (*row).key).write_volatile(RowKey::default());
            (&raw mut (*row).policy).write_volatile(policy::NEW);
            (&raw mut (*row).slow_nanos).write_volatile(0);
            (&raw mut (*row).longest).write_volatile(0);
            (&raw mut (*row).shortest_inverse).write_volatile(0);
        }
    }

    /// Takes what is in a row; whether there was anything.
    fn empty(
        &self,
        row: *mut Row,
        key: &RowKey,
        buckets: &mut Vec<(usize, u64)>,
        postgresql: &impl Fn(u32) -> bool,
        each: &mut impl FnMut(&Counted<'_>),
    ) -> bool {
        // SAFETY: the counters lie within the mapping, are aligned, and both sides change them atomically only.
        let (word, wide) = unsafe {
            (
                |counter: *mut u32| AtomicU32::from_ptr(counter).swap(0, Ordering::AcqRel),
                |counter: *mut u64| AtomicU64::from_ptr(counter).swap(0, Ordering::AcqRel),
            )
        };
        // SAFETY: as above; places within the row.
        unsafe {
            if word(&raw mut (*row).dirty) == 0 {
                return false;
            }
            buckets.clear();
            for index in 0..BUCKETS {
                let cell = (&raw mut (*row).buckets).cast::<u32>().add(index);
                if cell.read_volatile() != 0 {
                    buckets.push((index, u64::from(word(cell))));
                }
            }
            let slow = (&raw mut (*row).slow_nanos).read_volatile();
            (&raw mut (*row).slow_nanos).write_volatile(outlier_bound(buckets, slow));
            let nanos = |counter: *mut u64| Duration::from_nanos(wide(counter));
            let range = (
                Duration::from_nanos(!(&raw const (*row).shortest_inverse).read_volatile()),
                Duration::from_nanos((&raw const (*row).longest).read_volatile()),
            );
            each(&Counted {
                slot: key.slot,
                group: key.group,
                subject: subject(key),
                ending: match key.hash {
                    reserved::TRANSACTION => Ending::Ok,
                    _ => ending(key.code, postgresql(key.slot)),
                },
                buckets,
                total: nanos(&raw mut (*row).nanos),
                range,
                first_byte: nanos(&raw mut (*row).first_nanos),
                rows_sent: wide(&raw mut (*row).rows_sent),
                rows_affected: wide(&raw mut (*row).rows_affected),
                bytes_in: wide(&raw mut (*row).bytes_in),
                bytes_out: wide(&raw mut (*row).bytes_out),
            });
        }
        true
    }

    /// Says what is to be done with the executions that `row` counts, if it still counts the text with this hash.
    pub(super) fn instruct(&self, row: u32, hash: u64, wanted: Policy) {
        let Some(row) = self.rows.get(row as usize) else { return };
        let value = match wanted {
            Policy::Count => policy::COUNT,
            Policy::Record => policy::RECORD,
        };
        // SAFETY: within the mapping; whole words. The kernel changes the policy only to LEAVE, which must stay.
        unsafe {
            if (&raw const (*row).key.hash).read_volatile() == hash {
                let policy = AtomicU32::from_ptr(&raw mut (*row).policy);
                let _ = policy.compare_exchange(policy::NEW, value, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

/// From which duration on an execution is an outlier: among many, the slowest thousandth of those that came since the last look; among few, what
/// is slower than all before.
fn outlier_bound(buckets: &[(usize, u64)], before: u64) -> u64 {
    const MANY: u64 = 1000;
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    let mut above = if count < MANY { 0 } else { count / MANY };
    let bound = buckets.iter().rev().find(|(_, count)| {
        let found = *count > above;
        above = above.saturating_sub(*count);
        found
    });
    let bound = bound.map_or(0, |(bucket, _)| upper_bound(*bucket) + 1);
    if count < MANY { bound.max(before) } else { bound }
}

fn subject(key: &RowKey) -> Subject {
    match key.hash {
        reserved::UNKNOWN => Subject::UnknownText,
        reserved::OTHER => Subject::Other,
        reserved::TRANSACTION => Subject::Transaction { rolled_back: key.code == outcome::ROLLED_BACK },
        hash => Subject::Text(hash),
    }
}

/// What a packed code means.
pub(super) fn ending(code: u32, postgresql: bool) -> Ending {
    match code {
        0 => Ending::Ok,
        ending::INCOMPLETE => Ending::Incomplete,
        ending::NO_CODE => Ending::Failed(None),
        code if postgresql => Ending::Failed(Some(Code::Sqlstate(unpack_sqlstate(code)))),
        code => Ending::Failed(Some(Code::Mysql(code as u16))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_the_slowest_thousandth_or_slower_than_ever() {
        assert_eq!(outlier_bound(&[(10, 5), (20, 1)], 0), upper_bound(20) + 1);
        assert_eq!(outlier_bound(&[(10, 5)], upper_bound(20) + 1), upper_bound(20) + 1);
        assert_eq!(outlier_bound(&[(10, 9000), (20, 995), (30, 5)], 0), upper_bound(20) + 1);
        assert_eq!(outlier_bound(&[(10, 9000), (20, 985), (30, 15)], 0), upper_bound(30) + 1);
    }

    #[test]
    fn codes_are_read_by_engine() {
        assert_eq!(ending(1064, false), Ending::Failed(Some(Code::Mysql(1064))));
        let code = agent_ebpf::row::sqlstate(*b"42P01");
        assert_eq!(ending(code, true), Ending::Failed(Some(Code::Sqlstate(*b"42P01"))));
        assert_eq!(ending(0, true), Ending::Ok);
        assert_eq!(ending(ending::INCOMPLETE, true), Ending::Incomplete);
    }
}
