//! Rows: what the kernel counts of one statement, in memory that it shares with userspace.
//!
//! The kernel only ever adds, atomically; userspace takes what is there by exchanging it for zero (counters are therefore what came since the last
//! look). A row belongs to a key until userspace frees it.
//!
//! A counter that several processors add to at a high rate costs each of them a transfer of its cache line. To rows that are used much userspace
//! therefore gives *cells*: counters of their own for each processor. For all rows they would take gigabytes on a large machine.

use crate::histogram;

/// What a row counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowKey {
    /// The statement: its [`crate::blind`] hash, or one of [`reserved`]. 0 means that the row is free.
    pub hash: u64,
    /// Whose session: see [`crate::Session::group`].
    pub group: u64,
    /// How it ended: 0 for success, else the packed error code ([`sqlstate`], or MySQL's number), or one of [`ending`].
    pub code: u32,
    /// Slot of the server.
    pub slot: u32,
}

/// Set in every hash of a text, so that it cannot be one of [`reserved`].
pub const NOT_RESERVED: u64 = 1 << 63;

/// Values of [`RowKey::hash`] that are no text's.
pub mod reserved {
    /// An execution whose text the kernel cannot know: it was prepared before the agent came.
    pub const UNKNOWN: u64 = 1;
    /// Statements for which there was no row left.
    pub const OTHER: u64 = 2;
    /// Transactions: the duration is that of the transaction, [`super::Counters::first_nanos`] its idle time, the code its [`super::outcome`].
    pub const TRANSACTION: u64 = 3;
}

/// Values of [`RowKey::code`] beyond the codes of both engines.
pub mod ending {
    /// An error without a code that could be read.
    pub const NO_CODE: u32 = u32::MAX;
    /// The connection ended first.
    pub const INCOMPLETE: u32 = u32::MAX - 1;
}

/// Values of [`RowKey::code`] with [`reserved::TRANSACTION`].
pub mod outcome {
    /// Committed.
    pub const COMMITTED: u32 = 0;
    /// Rolled back.
    pub const ROLLED_BACK: u32 = 1;
}

/// Packs a SQLSTATE of PostgreSQL, five characters of `[0-9A-Z]`, six bits each as in `MAKE_SQLSTATE` (utils/elog.h).
#[inline(always)]
pub fn sqlstate(state: [u8; 5]) -> u32 {
    let mut code = 0;
    let mut at = 0;
    while at < 5 {
        code |= u32::from(state[at].wrapping_sub(b'0') & 0x3f) << (6 * at);
        at += 1;
    }
    code
}

/// The characters of a packed SQLSTATE (`unpack_sql_state`, backend/utils/error/elog.c).
pub fn unpack_sqlstate(code: u32) -> [u8; 5] {
    core::array::from_fn(|at| ((code >> (6 * at)) & 0x3f) as u8 + b'0')
}

/// What userspace says about a row. Values of [`Row::policy`].
pub mod policy {
    /// Userspace has not seen the text yet: executions are recorded as well as counted.
    pub const NEW: u32 = 0;
    /// Executions are counted only, but for those that the sampler picks.
    pub const COUNT: u32 = 1;
    /// Executions are always recorded too, since they change what userspace knows of the session (`USE`, `SET ROLE`, `DEALLOCATE`, ...).
    pub const RECORD: u32 = 2;
    /// Executions are recorded and userspace counts them: the kernel cannot follow their answers. Set by the kernel.
    pub const LEAVE: u32 = 3;
}

/// What is counted of executions: what came since userspace looked last.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// Sum of durations in nanoseconds.
    pub nanos: u64,
    /// The longest duration. Like the shortest it is not changed atomically: of two that come at the same time one may go unnoticed.
    pub longest: u64,
    /// The shortest duration, as `u64::MAX` less it, so that 0 means none.
    pub shortest_inverse: u64,
    /// Sum of times to the first byte of the response in nanoseconds.
    pub first_nanos: u64,
    /// Rows sent to the client.
    pub rows_sent: u64,
    /// Rows inserted, updated or deleted.
    pub rows_affected: u64,
    /// Bytes of requests.
    pub bytes_in: u64,
    /// Bytes of responses.
    pub bytes_out: u64,
    /// Executions by duration; their number is the sum.
    pub buckets: [u32; histogram::BUCKETS],
}

/// Size of counters in bytes: whole cache lines of 64 bytes.
pub const COUNTERS_LEN: usize = size_of::<Counters>();
const _: () = assert!(COUNTERS_LEN == 17 * 64);

/// One row. Its first cache line is written seldom, so that all processors can keep it.
#[repr(C)]
#[derive(Debug)]
pub struct Row {
    /// What it counts.
    pub key: RowKey,
    /// One of [`policy`], set by userspace.
    pub policy: u32,
    /// Not 0 if there is something to take, here or in a cell. Set by the kernel after it added, cleared by userspace before it takes.
    pub dirty: u32,
    /// An execution of at least so many nanoseconds is recorded as an outlier; set by userspace, 0 means never.
    pub slow_nanos: u64,
    /// Number of its cells from 1 on, 0 if it has none; set by userspace.
    pub cells: u32,
    /// Explicit padding, always 0.
    pub reserved: [u32; 5],
    /// What was counted other than in cells.
    pub counters: Counters,
}

/// Size of a row in bytes.
pub const ROW_LEN: usize = size_of::<Row>();
const _: () = assert!(ROW_LEN == 64 + COUNTERS_LEN);

/// One place of the kernel's table from keys to rows that is asked first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortcut {
    /// Row that was found here last; whether it fits, its key tells.
    pub row: u32,
    /// Explicit padding, always 0.
    pub reserved: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_survives_packing() {
        for state in [*b"42P01", *b"00000", *b"57014", *b"ZZZZZ", *b"XX000"] {
            assert_eq!(unpack_sqlstate(sqlstate(state)), state);
        }
        assert_ne!(sqlstate(*b"42P01"), 0);
    }
}
