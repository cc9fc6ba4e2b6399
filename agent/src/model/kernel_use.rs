//! What the kernel counts of the tasks that execute statements.

use std::time::Duration;

/// CPU, waiting and I/O of one task, or of executions of one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelUse {
    /// Time on a CPU (/proc/PID/schedstat, first field).
    pub on_cpu: Duration,
    /// Time runnable, but waiting for a CPU (second field).
    pub run_queue: Duration,
    /// Times it was put on a CPU (third field): its context switches.
    pub switches: u64,
    /// Time waiting for block devices (/proc/PID/stat, field 42); `None` where the kernel does not count it.
    pub block_io: Option<Duration>,
    /// Page faults that read from a device (/proc/PID/stat, field 12).
    pub major_faults: u64,
    /// Bytes that storage had to read (/proc/PID/io, `read_bytes`); `None` where it may not be seen.
    pub read_bytes: Option<u64>,
    /// Bytes sent towards storage (/proc/PID/io, `write_bytes`).
    pub written_bytes: Option<u64>,
}

impl KernelUse {
    /// What was added since `before`.
    pub fn since(&self, before: &KernelUse) -> KernelUse {
        let count = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        KernelUse {
            on_cpu: self.on_cpu.saturating_sub(before.on_cpu),
            run_queue: self.run_queue.saturating_sub(before.run_queue),
            switches: self.switches.saturating_sub(before.switches),
            block_io: self.block_io.zip(before.block_io).map(|(now, then)| now.saturating_sub(then)),
            major_faults: self.major_faults.saturating_sub(before.major_faults),
            read_bytes: count(self.read_bytes, before.read_bytes),
            written_bytes: count(self.written_bytes, before.written_bytes),
        }
    }

    /// Adds `more`. What either does not know, the other does.
    pub fn add(&mut self, more: &KernelUse) {
        fn sum<T>(one: Option<T>, other: Option<T>, add: fn(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(add(one, other)),
                (one, other) => one.or(other),
            }
        }
        self.on_cpu = self.on_cpu.saturating_add(more.on_cpu);
        self.run_queue = self.run_queue.saturating_add(more.run_queue);
        self.switches = self.switches.saturating_add(more.switches);
        self.block_io = sum(self.block_io, more.block_io, Duration::saturating_add);
        self.major_faults = self.major_faults.saturating_add(more.major_faults);
        self.read_bytes = sum(self.read_bytes, more.read_bytes, u64::saturating_add);
        self.written_bytes = sum(self.written_bytes, more.written_bytes, u64::saturating_add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_and_sums_know_what_is_not_known() {
        let used =
            |cpu, read| KernelUse { on_cpu: Duration::from_millis(cpu), read_bytes: read, ..KernelUse::default() };
        let mut sum = used(30, Some(7)).since(&used(10, Some(2)));
        assert_eq!(sum, used(20, Some(5)));
        assert_eq!(used(30, Some(7)).since(&used(10, None)).read_bytes, None);
        sum.add(&used(1, None));
        sum.add(&used(1, Some(1)));
        assert_eq!(sum, used(22, Some(6)));
    }
}
