//! What the kernel counts of a server's tasks: PostgreSQL's backends, which are processes, and the threads of MySQL and MariaDB.
//!
//! /proc, not taskstats: over netlink the kernel answers one task a round trip too, needs CAP_NET_ADMIN, and knows tasks by the numbers of one namespace only.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;

use crate::model::{Engine, KernelUse};

/// The tasks of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tasks {
    /// Where each has a directory, named as the server itself numbers it.
    directory: PathBuf,
    /// The process whose children they are; `None` where they are its threads.
    parent: Option<i32>,
    /// Waits for block devices are counted only while the sysctl kernel.task_delayacct is on (Documentation/accounting/delay-accounting.rst).
    delays: bool,
}

impl Tasks {
    /// The tasks of the server with this main process; `None` if it is gone.
    pub(super) fn of(proc_root: &Path, engine: Engine, pid: u32) -> Option<Tasks> {
        let own = proc_root.join(pid.to_string());
        // A server in a PID namespace of its own numbers its tasks otherwise; its own view of them lies beneath its root directory.
        let numbers = fs::read_to_string(own.join("status")).ok()?;
        let (inner, nested) = namespaced(&numbers)?;
        let view = if nested { own.join("root/proc") } else { proc_root.to_owned() };
        let delays = fs::read_to_string(proc_root.join("sys/kernel/task_delayacct"));
        let delays = delays.is_ok_and(|text| text.trim() == "1");
        Some(match engine {
            Engine::Postgresql => Tasks { directory: view, parent: Some(inner), delays },
            Engine::Mysql | Engine::Mariadb => {
                Tasks { directory: view.join(inner.to_string()).join("task"), parent: None, delays }
            }
        })
    }

    /// What a task has used since it began; `None` if it is gone, or no task of this server.
    pub(super) fn used(&self, task: i64) -> Option<KernelUse> {
        let process = Process::new_with_root(self.directory.join(task.to_string())).ok()?;
        let stat = process.stat().ok()?;
        if self.parent.is_some_and(|parent| stat.ppid != parent) {
            return None;
        }
        let schedule = process.schedstat().ok()?;
        // Other users' processes show it only to who may trace them.
        let io = process.io().ok();
        let ticks = stat.delayacct_blkio_ticks.filter(|_| self.delays);
        Some(KernelUse {
            on_cpu: Duration::from_nanos(schedule.sum_exec_runtime),
            run_queue: Duration::from_nanos(schedule.run_delay),
            switches: schedule.pcount,
            block_io: ticks.map(|ticks| Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)),
            major_faults: stat.majflt,
            read_bytes: io.map(|io| io.read_bytes),
            written_bytes: io.map(|io| io.write_bytes),
        })
    }
}

/// The number of a process in its innermost PID namespace, and whether that is another one than the reader's, from its /proc/PID/status.
fn namespaced(status: &str) -> Option<(i32, bool)> {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let numbers: Vec<i32> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    numbers.last().map(|inner| (*inner, numbers.len() > 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{hint::black_box, process::Command, time::Instant};

    use super::*;

    #[test]
    fn work_of_a_thread_is_seen_and_a_stranger_is_none() {
        let tasks = Tasks::of(Path::new("/proc"), Engine::Mysql, std::process::id()).unwrap();
        let threads: Vec<i64> = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        let total =
            || threads.iter().filter_map(|thread| tasks.used(*thread)).map(|used| used.on_cpu).sum::<Duration>();
        let (before, start) = (total(), Instant::now());
        while total() < before + Duration::from_millis(20) && start.elapsed() < Duration::from_secs(20) {
            black_box((0..100_000u64).fold(0, |sum, number| black_box(sum ^ number)));
        }
        assert!(total() >= before + Duration::from_millis(20));
        assert_eq!(tasks.used(1), None, "the first process is no thread of this one");
    }

    #[test]
    fn backends_are_children_of_their_server() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let tasks = Tasks::of(Path::new("/proc"), Engine::Postgresql, std::process::id()).unwrap();
        let used = tasks.used(i64::from(child.id()));
        assert_eq!(tasks.used(i64::from(std::process::id())), None);
        child.kill().unwrap();
        child.wait().unwrap();
        let used = used.unwrap();
        assert!(used.switches > 0 && used.read_bytes.is_some(), "{used:?}");
    }

    #[test]
    fn the_innermost_number_counts() {
        assert_eq!(namespaced("Name:\tpostgres\nNSpid:\t4711\n"), Some((4711, false)));
        assert_eq!(namespaced("Name:\tpostgres\nNSpid:\t4711\t1\n"), Some((1, true)));
        assert_eq!(namespaced("Name:\tpostgres\n"), None);
    }
}
