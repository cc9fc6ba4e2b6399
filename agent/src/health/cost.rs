//! What the agent itself costs, from /proc/self.

use std::{fs, path::Path, time::Duration};

use procfs::{ProcResult, WithCurrentSystemInfo, process::Process};

use crate::model::AgentStats;

/// What the process has used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// CPU time of all threads, user and system, in clock ticks' resolution (10 ms).
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Cost {
    /// Reads it (/proc/self/stat fields 14 and 15, /proc/self/statm field 2; see proc_pid_stat(5)).
    pub fn read() -> ProcResult<Cost> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = stat.utime + stat.stime;
        let cpu = Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64);
        Ok(Cost { cpu, rss_bytes: stat.rss_bytes().get() })
    }

    /// Puts it where it is reported from.
    pub fn store(self, stats: &mut AgentStats) {
        stats.cpu = self.cpu;
        stats.rss_bytes = self.rss_bytes;
    }
}

/// Bytes of memory that the cgroup of this process may use: the least of its own limit and those above it. `None` without a limit, and where cgroups
/// of version 2 are not mounted at their usual place.
pub fn memory_limit() -> Option<u64> {
    let groups = Process::myself().and_then(|process| process.cgroups()).ok()?;
    let own = groups.into_iter().find(|group| group.hierarchy == 0)?.pathname;
    let root = Path::new("/sys/fs/cgroup");
    let limit = |group: &Path| {
        let text = fs::read_to_string(root.join(group).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Path::new(own.trim_start_matches('/')).ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{hint::black_box, time::Instant};

    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let before = Cost::read().unwrap();
        let memory = black_box(vec![1u8; 64 << 20]);
        let start = Instant::now();
        let mut after = Cost::read().unwrap();
        while after.cpu < before.cpu + Duration::from_millis(50) && start.elapsed() < Duration::from_secs(20) {
            black_box(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>());
            after = Cost::read().unwrap();
        }
        assert!(after.cpu >= before.cpu + Duration::from_millis(50), "{before:?} {after:?}");
        assert!(after.rss_bytes >= 64 << 20, "{after:?}");
        let mut stats = AgentStats::default();
        after.store(&mut stats);
        assert_eq!((stats.cpu, stats.rss_bytes), (after.cpu, after.rss_bytes));
    }
}
