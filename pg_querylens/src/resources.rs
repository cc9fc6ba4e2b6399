//! What the server itself counts of resources, in each version's own fields.

use pgrx::pg_sys;

use crate::counters::{BLOCKS, IO_TIMES, JIT, Usage, WAL};

/// The server's counters of this process at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    blocks: [u64; BLOCKS],
    io_times: [u64; IO_TIMES],
    wal: [u64; WAL],
}

impl Moment {
    /// Now.
    #[inline]
    pub(crate) fn now() -> Moment {
        // SAFETY: plain counters of this process, which no other thread changes.
        unsafe {
            let (buffers, wal) = (&raw const pg_sys::pgBufferUsage, &raw const pg_sys::pgWalUsage);
            let (buffers, wal) = (&*buffers, &*wal);
            Moment { blocks: blocks(buffers), io_times: io_times(buffers), wal: wal_of(wal) }
        }
    }

    /// Adds what was used since then.
    #[inline]
    pub(crate) fn since(&self, usage: &mut Usage) {
        let now = Moment::now();
        difference(&mut usage.blocks, &now.blocks, &self.blocks);
        difference(&mut usage.io_times, &now.io_times, &self.io_times);
        difference(&mut usage.wal, &now.wal, &self.wal);
    }
}

#[inline]
fn difference<const N: usize>(sums: &mut [u64; N], now: &[u64; N], before: &[u64; N]) {
    for at in 0..N {
        // The server's counters only grow, and no check is as cheap as this is in words of several counters.
        sums[at] = sums[at].wrapping_add(now[at].wrapping_sub(before[at]));
    }
}

#[inline]
fn blocks(buffers: &pg_sys::BufferUsage) -> [u64; BLOCKS] {
    [
        buffers.shared_blks_hit as u64,
        buffers.shared_blks_read as u64,
        buffers.shared_blks_dirtied as u64,
        buffers.shared_blks_written as u64,
        buffers.local_blks_hit as u64,
        buffers.local_blks_read as u64,
        buffers.local_blks_dirtied as u64,
        buffers.local_blks_written as u64,
        buffers.temp_blks_read as u64,
        buffers.temp_blks_written as u64,
    ]
}

#[cfg(any(feature = "pg13", feature = "pg14"))]
#[inline]
fn io_times(buffers: &pg_sys::BufferUsage) -> [u64; IO_TIMES] {
    [nanos(&buffers.blk_read_time), nanos(&buffers.blk_write_time), 0, 0, 0, 0]
}

#[cfg(any(feature = "pg15", feature = "pg16"))]
#[inline]
fn io_times(buffers: &pg_sys::BufferUsage) -> [u64; IO_TIMES] {
    [
        nanos(&buffers.blk_read_time),
        nanos(&buffers.blk_write_time),
        0,
        0,
        nanos(&buffers.temp_blk_read_time),
        nanos(&buffers.temp_blk_write_time),
    ]
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
#[inline]
fn io_times(buffers: &pg_sys::BufferUsage) -> [u64; IO_TIMES] {
    [
        nanos(&buffers.shared_blk_read_time),
        nanos(&buffers.shared_blk_write_time),
        nanos(&buffers.local_blk_read_time),
        nanos(&buffers.local_blk_write_time),
        nanos(&buffers.temp_blk_read_time),
        nanos(&buffers.temp_blk_write_time),
    ]
}

#[inline]
fn wal_of(wal: &pg_sys::WalUsage) -> [u64; WAL] {
    #[cfg(feature = "pg18")]
    let full = wal.wal_buffers_full as u64;
    #[cfg(not(feature = "pg18"))]
    let full = 0;
    [wal.wal_records as u64, wal.wal_fpi as u64, wal.wal_bytes, full]
}

/// A duration of the server, in nanoseconds.
#[cfg(any(feature = "pg13", feature = "pg14", feature = "pg15"))]
#[inline]
pub(crate) fn nanos(time: &pg_sys::instr_time) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// A duration of the server, in nanoseconds.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
#[inline]
pub(crate) fn nanos(time: &pg_sys::instr_time) -> u64 {
    time.ticks as u64
}

/// Adds what just-in-time compilation took, in the leader and its workers.
///
/// # Safety
///
/// `state` is the state of an execution that has not ended.
pub(crate) unsafe fn jit(state: *const pg_sys::EState, usage: &mut Usage) {
    // SAFETY: promised by the caller.
    unsafe {
        if let Some(context) = (*state).es_jit.as_ref() {
            add_jit(&context.instr, &mut usage.jit);
        }
        if let Some(workers) = (*state).es_jit_worker_instr.as_ref() {
            add_jit(workers, &mut usage.jit);
        }
    }
}

fn add_jit(instrumentation: &pg_sys::JitInstrumentation, sums: &mut [u64; JIT]) {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let deforming = nanos(&instrumentation.deform_counter);
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let deforming = 0;
    let values = [
        instrumentation.created_functions as u64,
        nanos(&instrumentation.generation_counter),
        deforming,
        nanos(&instrumentation.inlining_counter),
        nanos(&instrumentation.optimization_counter),
        nanos(&instrumentation.emission_counter),
    ];
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(value);
    }
}

/// Rows that an execution has returned or changed: since its start from PostgreSQL 16 on, in its last run before.
///
/// # Safety
///
/// As for [`jit`].
pub(crate) unsafe fn rows(state: *const pg_sys::EState) -> u64 {
    // SAFETY: promised by the caller.
    unsafe {
        #[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
        return (*state).es_total_processed;
        #[cfg(not(any(feature = "pg16", feature = "pg17", feature = "pg18")))]
        return (*state).es_processed;
    }
}
