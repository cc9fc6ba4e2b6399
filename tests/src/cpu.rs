//! CPU time, as the kernel accounts it: to the nanosecond or microsecond, not in clock ticks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// CPU time of the calling thread so far.
pub fn thread_time() -> Result<Duration> {
    read(libc::CLOCK_THREAD_CPUTIME_ID).context("clock of this thread")
}

/// CPU time of all threads of a process so far, also of those that have ended (clock_getcpuclockid(3)).
pub fn process_time(pid: u32) -> Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the clock's number is written to a variable that lives until the call returns.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) };
    ensure!(error == 0, "no clock of process {pid}: {}", std::io::Error::from_raw_os_error(error));
    read(clock).with_context(|| format!("clock of process {pid}"))
}

/// CPU time of a process and all its children so far, also of children that have ended: those that it has waited for (fields 16 and 17 of /proc/PID/stat,
/// proc_pid_stat(5), in clock ticks).
pub fn family_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: sysconf has no preconditions.
    let rate = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let ended = Duration::from_secs_f64((ticks(16) + ticks(17)) as f64 / rate as f64);
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).context(path)?;
    // One that ends meanwhile is missing: its time comes with the next look.
    let living = children.split_whitespace().filter_map(|child| process_time(child.parse().ok()?).ok());
    Ok(process_time(pid)? + ended + living.sum::<Duration>())
}

fn read(clock: libc::clockid_t) -> Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is written to a variable that lives until the call returns.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    ensure!(result == 0, "clock_gettime: {}", std::io::Error::last_os_error());
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

/// Resident memory of a process in bytes (field 2 of /proc/PID/statm, proc_pid_statm(5)).
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/statm");
    let text = fs::read_to_string(&path).context(path)?;
    let pages: u64 = text.split(' ').nth(1).context("statm has no second field")?.parse()?;
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Ok(pages * u64::try_from(page)?)
}

/// A control group (version 2) of this process and of everything that it starts from now on; given up on drop.
///
/// Its CPU time is that of exactly these processes, ended or not: what else runs on the machine is left out, and so are kernel threads.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    /// Moves this process into a group of its own, beneath the one that it is in.
    pub fn enter() -> Result<Group> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mount = mount_point(&mounts).context("no control groups of version 2 are mounted")?;
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let own = own.context("this process is in no control group of version 2")?;
        let dir = Path::new(mount).join(own).join(format!("querylens-{}", std::process::id()));
        fs::create_dir(&dir).with_context(|| format!("cannot create the control group {}", dir.display()))?;
        let group = Group { dir };
        fs::write(group.dir.join("cgroup.procs"), "0").context("cannot enter the control group")?;
        Ok(group)
    }

    /// CPU time so far (cgroup-v2: cpu.stat, `usage_usec`).
    pub fn used(&self) -> Result<Duration> {
        let text = fs::read_to_string(self.dir.join("cpu.stat"))?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("no usage_usec")?;
        Ok(Duration::from_micros(micros.trim().parse()?))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group can be removed once nothing is in it. What cannot be undone here is an empty group: harmless.
        let members = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        if let Some(parent) = self.dir.parent() {
            for member in members.lines() {
                let _ = fs::write(parent.join("cgroup.procs"), member);
            }
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Where a file system of type cgroup2 is mounted (proc_pid_mountinfo(5)).
fn mount_point(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (after.split(' ').next()? == "cgroup2").then(|| before.split(' ').nth(4))?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_version_2_is_found_beside_version_1() {
        let mounts = "33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mount_point("22 1 0:5 / /proc rw - proc proc rw"), None);
    }

    #[test]
    fn own_work_and_memory_are_seen() {
        let before = process_time(std::process::id()).unwrap();
        let memory = std::hint::black_box(vec![1u8; 64 << 20]);
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::black_box(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        assert!(process_time(std::process::id()).unwrap() > before);
        assert!(resident_bytes(std::process::id()).unwrap() >= 64 << 20);
        // One more than the largest process id there is (PID_MAX_LIMIT).
        assert!(process_time((1 << 22) + 1).is_err());
    }
}
