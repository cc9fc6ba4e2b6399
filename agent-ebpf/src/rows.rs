//! Finding rows and adding to them.

use agent_ebpf::{
    Counters, Row, RowKey, Session, Shortcut, blind,
    histogram::{BUCKETS, bucket},
    row::reserved,
};
use aya_ebpf::helpers::generated;

use crate::maps::{CELLS, FREE_ROWS, PROCESSORS, ROW_OF_KEY, ROWS, SHORTCUTS, SHORTCUTS_LEN};

/// The row of `key`, perhaps the one at `likely`; made if there is none; the row of everything else of its group if there is no room; `None` if that
/// does not fit either.
#[inline(always)]
pub(crate) fn find(likely: u32, key: &RowKey) -> Option<u32> {
    if get(likely, key).is_some() {
        return Some(likely);
    }
    match row_find(key.hash, key.group, u64::from(key.code) << 32 | u64::from(key.slot)) {
        NONE => None,
        row => Some(row as u32),
    }
}

const NONE: u64 = u64::MAX;

/// As [`find`], [`NONE`] for none.
#[unsafe(no_mangle)]
extern "C" fn row_find(hash: u64, group: u64, code_and_slot: u64) -> u64 {
    let key = RowKey { hash, group, code: (code_and_slot >> 32) as u32, slot: code_and_slot as u32 };
    let place = blind::mix(key.hash, key.group ^ u64::from(key.code)) >> 40;
    let Some(shortcut) = SHORTCUTS.get_ptr_mut(place as u32 & (SHORTCUTS_LEN - 1)) else { return NONE };
    // SAFETY: the verifier proved it non-null; whatever index a torn read gives, its key decides.
    let row = unsafe { (*shortcut).row };
    if get(row, &key).is_some() {
        return u64::from(row);
    }
    let Some(row) = search(&key) else { return NONE };
    // SAFETY: as above.
    unsafe { *shortcut = Shortcut { row, reserved: 0 } };
    u64::from(row)
}

/// The row at `index`, if it still is that of `key`.
#[inline(always)]
pub(crate) fn get(index: u32, key: &RowKey) -> Option<*mut Row> {
    let row = ROWS.get_ptr_mut(index)?;
    // SAFETY: the verifier proved it non-null.
    let found = unsafe { &(*row).key };
    (found.hash == key.hash && found.group == key.group && found.code == key.code && found.slot == key.slot)
        .then_some(row)
}

#[inline(always)]
fn search(key: &RowKey) -> Option<u32> {
    if let Some(row) = lookup(key) {
        return Some(row);
    }
    if let Some(row) = make(key) {
        return Some(row);
    }
    let other = RowKey { hash: reserved::OTHER, ..*key };
    if let Some(row) = lookup(&other) {
        return Some(row);
    }
    make(&other)
}

#[inline(always)]
fn lookup(key: &RowKey) -> Option<u32> {
    // SAFETY: copied at once.
    unsafe { ROW_OF_KEY.get(key) }.copied()
}

#[inline(always)]
fn make(key: &RowKey) -> Option<u32> {
    /// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
    const NOEXIST: u64 = 1;
    let index = FREE_ROWS.pop().ok()??;
    let row = ROWS.get_ptr_mut(index)?;
    // SAFETY: nobody else has this row: it came from the queue. Userspace left it zero.
    unsafe { (*row).key = *key };
    if ROW_OF_KEY.insert(key, index, NOEXIST).is_err() {
        // Another processor was faster.
        // SAFETY: as above.
        unsafe {
            (*row).key = RowKey { hash: 0, group: 0, code: 0, slot: 0 };
            // So that userspace does not take it for the first row that was never used.
            (&raw mut (*row).dirty).write_volatile(1);
        }
        let _ = FREE_ROWS.push(index, 0);
        return lookup(key);
    }
    Some(index)
}

/// Adds the execution whose amounts `session` holds to the row of `key`, most likely the one that its text has. Gives from which duration on
/// executions are slow, 0 for none; `None` if there is no row.
#[inline(always)]
pub(crate) fn add(key: &RowKey, session: &Session, nanos: u64) -> Option<u64> {
    let row = match get(session.row, key) {
        Some(row) => row,
        None => ROWS.get_ptr_mut(find(session.row, key)?)?,
    };
    // SAFETY: the verifier proved all of them non-null; counters are only changed atomically.
    unsafe {
        let counters = counters(row);
        plus(&raw mut (*counters).nanos, nanos);
        plus(&raw mut (*counters).first_nanos, session.first - session.begin);
        plus(&raw mut (*counters).bytes_in, session.bytes_in);
        plus(&raw mut (*counters).bytes_out, session.bytes_out);
        if session.rows_sent > 0 {
            plus(&raw mut (*counters).rows_sent, session.rows_sent);
        }
        if session.rows_affected > 0 {
            plus(&raw mut (*counters).rows_affected, session.rows_affected);
        }
        one_more(row, counters, nanos);
        Some((*row).slow_nanos)
    }
}

/// Adds a transaction.
#[inline(always)]
pub(crate) fn add_transaction(key: &RowKey, nanos: u64, idle: u64) {
    if let Some(row) = find(0, key) {
        row_add_transaction(u64::from(row), nanos, idle);
    }
}

#[unsafe(no_mangle)]
extern "C" fn row_add_transaction(row: u64, nanos: u64, idle: u64) -> u64 {
    let Some(row) = ROWS.get_ptr_mut(row as u32) else { return 0 };
    // SAFETY: the verifier proved both non-null; counters are only changed atomically.
    unsafe {
        let counters = counters(row);
        plus(&raw mut (*counters).nanos, nanos);
        plus(&raw mut (*counters).first_nanos, idle);
        one_more(row, counters, nanos);
    }
    0
}

/// Where this processor counts for `row`: in its cell, if the row has cells.
///
/// # Safety
/// `row` must be a row.
#[inline(always)]
unsafe fn counters(row: *mut Row) -> *mut Counters {
    // SAFETY: by contract; the helper has no arguments.
    unsafe {
        let cells = (*row).cells;
        if cells != 0 {
            let (processor, processors) = (generated::bpf_get_smp_processor_id(), PROCESSORS.load());
            if processor < processors
                && let Some(cell) = CELLS.get_ptr_mut((cells - 1) * processors + processor)
            {
                return cell;
            }
        }
        &raw mut (*row).counters
    }
}

/// Counts a duration.
///
/// # Safety
/// `row` must be a row, and `counters` its own or one of its cells.
#[inline(always)]
unsafe fn one_more(row: *mut Row, counters: *mut Counters, nanos: u64) {
    // SAFETY: by contract; the bucket is masked.
    unsafe {
        let at = bucket(nanos) & (BUCKETS - 1);
        plus_one((&raw mut (*counters).buckets).cast::<u32>().add(at));
        if nanos > (*counters).longest {
            (*counters).longest = nanos;
        }
        if !nanos > (*counters).shortest_inverse {
            (*counters).shortest_inverse = !nanos;
        }
        // Written only if it must be: the other processors keep this line.
        let dirty = &raw mut (*row).dirty;
        if dirty.read_volatile() == 0 {
            dirty.write_volatile(1);
        }
    }
}

/// Adds atomically (`BPF_ATOMIC | BPF_DW`, `BPF_ADD`); Rust has no such operation for this target.
///
/// # Safety
/// `counter` must point to a counter of a row.
#[inline(always)]
unsafe fn plus(counter: *mut u64, value: u64) {
    // SAFETY: by contract.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
    let _ = (counter, value);
}

/// Adds one atomically (`BPF_ATOMIC | BPF_W`, `BPF_ADD`).
///
/// # Safety
/// `counter` must point to a bucket of a row.
#[inline(always)]
unsafe fn plus_one(counter: *mut u32) {
    // SAFETY: by contract.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("lock *(u32 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64);
    }
    let _ = counter;
}
