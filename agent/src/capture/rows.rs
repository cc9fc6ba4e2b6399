//! The rows in which the kernel counts: takes what is there, and gives rows back that nobody uses.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use agent_ebpf::{
    Counters, Row, RowKey,
    histogram::{BUCKETS, upper_bound},
    row::{ending, outcome, policy, reserved, unpack_sqlstate},
};
use aya::maps::{HashMap as BpfHashMap, MapData, Queue};

use super::{Shared, cells::Cells, shared::SharedArray};
use crate::model::{Code, Counted, Ending, Policy, Subject};

/// Looks without an execution after which a row may be given back, if rows are needed.
const IDLE_LOOKS: u32 = 30;
/// Share of all rows that should be free: below it, idle rows are given back.
const WANTED_FREE: usize = 4;
/// Executions between two looks from which on a row gets cells.
const HOT: u64 = 500;
/// Executions between two looks below which a row is cool; after [`IDLE_LOOKS`] such looks it loses its cells.
const COOL: u64 = 50;

/// What is known here of a row.
#[derive(Clone, Copy, Default)]
struct Use {
    /// Whose it is; default while nothing was counted in it.
    key: RowKey,
    /// Looks since something was counted.
    idle: u32,
    /// It was taken out of the kernel's table: at the next look it is emptied for the last time and is free.
    leaving: bool,
    /// Its cells; 0 if it has none.
    cells: u32,
    /// Looks since it was not cool.
    cool: u32,
    /// The kernel no longer counts in its cells: at the next look they are emptied for the last time and are free.
    cooled: bool,
}

/// The kernel's rows.
pub(super) struct Rows {
    rows: SharedArray<Row>,
    cells: Cells,
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
        cells: Cells,
        free: Queue<MapData, u32>,
        by_key: BpfHashMap<MapData, Shared<RowKey>, u32>,
    ) -> Rows {
        let uses = vec![Use::default(); rows.len()];
        Rows { rows, cells, free, by_key, uses, touched: 0, in_use: 0 }
    }

    /// Offers all rows to the kernel.
    pub(super) fn offer(&mut self) -> Result<(), aya::maps::MapError> {
        (0..self.rows.len() as u32).try_for_each(|row| self.free.push(row, 0))
    }

    /// Takes what was counted since the last look. `postgresql` tells the engine of a slot, by which codes are read.
    pub(super) fn take(&mut self, postgresql: impl Fn(u32) -> bool, mut each: impl FnMut(&Counted<'_>)) {
        let mut taken = Taken::default();
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
                self.empty(row, &used, &mut taken, &postgresql, &mut each);
                if used.cells != 0 {
                    self.forget_range(used.cells);
                    self.cells.release(used.cells);
                }
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
                let executions = self.empty(row, &used, &mut taken, &postgresql, &mut each);
                used.idle = if executions > 0 { 0 } else { used.idle + 1 };
                self.heat(row, &mut used, executions);
                if used.idle >= IDLE_LOOKS && self.in_use + self.rows.len() / WANTED_FREE > self.rows.len() {
                    self.retire(row, &key);
                    used.leaving = true;
                }
                self.uses[at] = used;
            }
            at += 1;
        }
    }

    /// Gives cells to a row that had many executions since the last look, and takes them from one that has few for long.
    fn heat(&mut self, row: *mut Row, used: &mut Use, executions: u64) {
        used.cool = if executions < COOL { used.cool + 1 } else { 0 };
        // SAFETY: within the mapping; a whole word that only this side writes.
        let tell = |cells: u32| unsafe { (&raw mut (*row).cells).write_volatile(cells) };
        if used.cooled {
            // Emptied a whole look after the kernel was told.
            self.keep_range(row, used.cells);
            self.cells.release(used.cells);
            (used.cells, used.cooled) = (0, false);
        } else if used.cells == 0 && executions >= HOT {
            used.cells = self.cells.acquire().unwrap_or(0);
            tell(used.cells);
        } else if used.cells != 0 && used.cool >= IDLE_LOOKS {
            used.cooled = true;
            tell(0);
        }
    }

    /// Moves the longest and the shortest duration of cells into their row, which loses them.
    fn keep_range(&self, row: *mut Row, cells: u32) {
        for cell in self.cells.of(cells) {
            // SAFETY: within the mappings. Of a longer one that comes to the row at the same time this may lose sight, as may the kernel.
            unsafe {
                let (longest, shortest_inverse) = range(cell);
                let (before, inverse_before) = range(&raw mut (*row).counters);
                (&raw mut (*row).counters.longest).write_volatile(longest.max(before));
                (&raw mut (*row).counters.shortest_inverse).write_volatile(shortest_inverse.max(inverse_before));
            }
        }
        self.forget_range(cells);
    }

    fn forget_range(&self, cells: u32) {
        for cell in self.cells.of(cells) {
            // SAFETY: within the mapping, and the kernel no longer counts there.
            unsafe {
                (&raw mut (*cell).longest).write_volatile(0);
                (&raw mut (*cell).shortest_inverse).write_volatile(0);
            }
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
            (&raw mut (*row).cells).write_volatile(0);
            (&raw mut (*row).counters.longest).write_volatile(0);
            (&raw mut (*row).counters.shortest_inverse).write_volatile(0);
        }
    }

    /// Takes what is in a row and its cells; how many executions there were.
    fn empty(
        &self,
        row: *mut Row,
        used: &Use,
        taken: &mut Taken,
        postgresql: &impl Fn(u32) -> bool,
        each: &mut impl FnMut(&Counted<'_>),
    ) -> u64 {
        // SAFETY: the word lies within the mapping, is aligned, and both sides change it atomically.
        if unsafe { AtomicU32::from_ptr(&raw mut (*row).dirty) }.swap(0, Ordering::AcqRel) == 0 {
            return 0;
        }
        taken.clear();
        // SAFETY: the counters lie within the mappings.
        unsafe {
            taken.add(&raw mut (*row).counters);
            self.cells.of(used.cells).for_each(|cell| taken.add(cell));
        }
        let buckets = taken.buckets();
        // SAFETY: within the mapping; a whole word that only this side writes.
        unsafe {
            let slow = (&raw mut (*row).slow_nanos).read_volatile();
            let bound = outlier_bound(&buckets, slow);
            if bound != slow {
                (&raw mut (*row).slow_nanos).write_volatile(bound);
            }
        }
        let key = &used.key;
        each(&Counted {
            slot: key.slot,
            group: key.group,
            subject: subject(key),
            ending: match key.hash {
                reserved::TRANSACTION => Ending::Ok,
                _ => ending(key.code, postgresql(key.slot)),
            },
            buckets: &buckets,
            total: Duration::from_nanos(taken.nanos),
            range: (Duration::from_nanos(!taken.shortest_inverse), Duration::from_nanos(taken.longest)),
            first_byte: Duration::from_nanos(taken.first_nanos),
            rows_sent: taken.rows_sent,
            rows_affected: taken.rows_affected,
            bytes_in: taken.bytes_in,
            bytes_out: taken.bytes_out,
        });
        buckets.iter().map(|(_, count)| count).sum()
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

/// The longest duration and the shortest one, inverted.
///
/// # Safety
/// `counters` must be counters.
unsafe fn range(counters: *mut Counters) -> (u64, u64) {
    // SAFETY: by contract.
    unsafe {
        ((&raw const (*counters).longest).read_volatile(), (&raw const (*counters).shortest_inverse).read_volatile())
    }
}

/// What was taken from a row and its cells.
struct Taken {
    nanos: u64,
    longest: u64,
    shortest_inverse: u64,
    first_nanos: u64,
    rows_sent: u64,
    rows_affected: u64,
    bytes_in: u64,
    bytes_out: u64,
    counts: [u64; BUCKETS],
}

impl Default for Taken {
    fn default() -> Taken {
        Taken {
            nanos: 0,
            longest: 0,
            shortest_inverse: 0,
            first_nanos: 0,
            rows_sent: 0,
            rows_affected: 0,
            bytes_in: 0,
            bytes_out: 0,
            counts: [0; BUCKETS],
        }
    }
}

impl Taken {
    fn clear(&mut self) {
        *self = Taken::default();
    }

    /// Takes what is in `counters`.
    ///
    /// # Safety
    /// They must lie within a mapping; both sides change them atomically only.
    unsafe fn add(&mut self, counters: *mut Counters) {
        // SAFETY: by contract; aligned, and places within the counters.
        unsafe {
            let wide = |counter: *mut u64| AtomicU64::from_ptr(counter).swap(0, Ordering::AcqRel);
            self.nanos += wide(&raw mut (*counters).nanos);
            self.first_nanos += wide(&raw mut (*counters).first_nanos);
            self.rows_sent += wide(&raw mut (*counters).rows_sent);
            self.rows_affected += wide(&raw mut (*counters).rows_affected);
            self.bytes_in += wide(&raw mut (*counters).bytes_in);
            self.bytes_out += wide(&raw mut (*counters).bytes_out);
            for (index, count) in self.counts.iter_mut().enumerate() {
                let bucket = (&raw mut (*counters).buckets).cast::<u32>().add(index);
                if bucket.read_volatile() != 0 {
                    *count += u64::from(AtomicU32::from_ptr(bucket).swap(0, Ordering::AcqRel));
                }
            }
            let (longest, shortest_inverse) = range(counters);
            self.longest = self.longest.max(longest);
            self.shortest_inverse = self.shortest_inverse.max(shortest_inverse);
        }
    }

    /// The buckets that hold something.
    fn buckets(&self) -> Vec<(usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count != 0).collect()
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
