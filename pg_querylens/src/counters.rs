//! What is counted of executions.

use agent_ebpf::histogram;

use crate::moments::Moments;

/// Buckets of the latency histogram: the agent's, four of them in one, which is an OTLP exponential histogram of scale 1.
pub(crate) const BUCKETS: usize = histogram::BUCKETS / 4;
/// Blocks, in this order: shared hit, read, dirtied, written; local hit, read, dirtied, written; temporary read, written.
pub(crate) const BLOCKS: usize = 10;
/// I/O times, in this order: shared read, write; local read, write (PostgreSQL 17 and later); temporary read, write (15 and later).
pub(crate) const IO_TIMES: usize = 6;
/// Write-ahead log, in this order: records, full page images, bytes, times that its buffers were full (18 and later).
pub(crate) const WAL: usize = 4;
/// JIT, in this order: functions; then nanoseconds of generation, deforming (17 and later, part of generation), inlining, optimization, emission.
pub(crate) const JIT: usize = 6;

/// What one execution used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Rows returned or changed.
    pub(crate) rows: u64,
    /// Time in the executor, in nanoseconds.
    pub(crate) time: u64,
    /// See [`BLOCKS`].
    pub(crate) blocks: [u64; BLOCKS],
    /// In nanoseconds, see [`IO_TIMES`].
    pub(crate) io_times: [u64; IO_TIMES],
    /// See [`WAL`].
    pub(crate) wal: [u64; WAL],
    /// See [`JIT`].
    pub(crate) jit: [u64; JIT],
    /// Parallel workers that the executor asked for.
    pub(crate) workers_planned: u64,
    /// Parallel workers that it got.
    pub(crate) workers_launched: u64,
    /// The plan was made for any parameters.
    pub(crate) generic: bool,
}

impl Usage {
    /// Nothing.
    pub(crate) const NONE: Usage = Usage {
        rows: 0,
        time: 0,
        blocks: [0; BLOCKS],
        io_times: [0; IO_TIMES],
        wal: [0; WAL],
        jit: [0; JIT],
        workers_planned: 0,
        workers_launched: 0,
        generic: false,
    };
}

/// Counters of one kind of execution. All zero is "none yet", so memory that is zero is valid.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Time in the executor of executions that succeeded; their count is the number of calls.
    pub(crate) execution: Moments,
    /// Time that the planner took; its count is the number of times it was asked.
    pub(crate) planning: Moments,
    /// Rows returned or changed.
    pub(crate) rows: u64,
    /// Executions that ended with an error, cancelled ones included.
    pub(crate) failed: u64,
    /// Time that they had used, in nanoseconds.
    pub(crate) failed_time: u64,
    /// Calls of plans that were made for any parameters.
    pub(crate) generic: u64,
    /// See [`BLOCKS`].
    pub(crate) blocks: [u64; BLOCKS],
    /// In nanoseconds, see [`IO_TIMES`].
    pub(crate) io_times: [u64; IO_TIMES],
    /// See [`WAL`].
    pub(crate) wal: [u64; WAL],
    /// See [`JIT`].
    pub(crate) jit: [u64; JIT],
    /// Parallel workers asked for.
    pub(crate) workers_planned: u64,
    /// Parallel workers got.
    pub(crate) workers_launched: u64,
    /// Executions that succeeded, by time; see [`BUCKETS`].
    pub(crate) histogram: [u32; BUCKETS],
}

impl Counters {
    /// An execution that succeeded.
    #[inline]
    pub(crate) fn add(&mut self, usage: &Usage) {
        self.execution.add(usage.time);
        let bucket = &mut self.histogram[histogram::bucket(usage.time) / (histogram::BUCKETS / BUCKETS)];
        *bucket = bucket.saturating_add(1);
        self.rows += usage.rows;
        self.generic += u64::from(usage.generic);
        self.resources(usage);
    }

    /// An execution that failed.
    pub(crate) fn add_failed(&mut self, usage: &Usage) {
        self.failed += 1;
        self.failed_time = self.failed_time.saturating_add(usage.time);
        self.resources(usage);
    }

    #[inline]
    fn resources(&mut self, usage: &Usage) {
        add_each(&mut self.blocks, &usage.blocks);
        add_each(&mut self.io_times, &usage.io_times);
        add_each(&mut self.wal, &usage.wal);
        add_each(&mut self.jit, &usage.jit);
        self.workers_planned += usage.workers_planned;
        self.workers_launched += usage.workers_launched;
    }

    /// What others have counted of the same.
    pub(crate) fn merge(&mut self, other: &Counters) {
        self.execution.merge(&other.execution);
        self.planning.merge(&other.planning);
        self.rows += other.rows;
        self.failed += other.failed;
        self.failed_time = self.failed_time.saturating_add(other.failed_time);
        self.generic += other.generic;
        add_each(&mut self.blocks, &other.blocks);
        add_each(&mut self.io_times, &other.io_times);
        add_each(&mut self.wal, &other.wal);
        add_each(&mut self.jit, &other.jit);
        self.workers_planned += other.workers_planned;
        self.workers_launched += other.workers_launched;
        for (mine, theirs) in self.histogram.iter_mut().zip(&other.histogram) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            execution: Moments::default(),
            planning: Moments::default(),
            rows: 0,
            failed: 0,
            failed_time: 0,
            generic: 0,
            blocks: [0; BLOCKS],
            io_times: [0; IO_TIMES],
            wal: [0; WAL],
            jit: [0; JIT],
            workers_planned: 0,
            workers_launched: 0,
            histogram: [0; BUCKETS],
        }
    }
}

#[inline]
fn add_each<const N: usize>(sums: &mut [u64; N], values: &[u64; N]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = sum.wrapping_add(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_is_in_every_counter_once() {
        let usage = Usage { rows: 3, time: 5_000, blocks: [7; BLOCKS], wal: [2; WAL], generic: true, ..Usage::NONE };
        let mut counters = Counters::default();
        counters.add(&usage);
        let mut twice = counters;
        twice.merge(&counters);
        assert_eq!((twice.execution.count, twice.rows, twice.generic, twice.blocks[9], twice.wal[0]), (2, 6, 2, 14, 4));
        assert_eq!(twice.histogram.iter().sum::<u32>(), 2);
        twice.add_failed(&usage);
        assert_eq!((twice.execution.count, twice.rows, twice.failed, twice.failed_time), (2, 6, 1, 5_000));
        assert_eq!(twice.blocks[0], 21);
    }

    #[test]
    fn zeroes_are_the_beginning() {
        // SAFETY: plain numbers.
        let zeroes: Counters = unsafe { std::mem::zeroed() };
        assert_eq!(format!("{zeroes:?}"), format!("{:?}", Counters::default()));
    }
}
