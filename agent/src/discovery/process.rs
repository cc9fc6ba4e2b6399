//! One process as /proc tells it (proc_pid_stat(5), proc_pid_status(5) and neighbours).
//!
//! Everything is read as bytes: names, arguments and paths need not be UTF-8. A process may vanish between any two calls.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

/// Bound on what is read of one file of /proc. A cgroup file of a deep hierarchy has a few kilobytes.
const FILE_LIMIT: u64 = 64 * 1024;

/// `PF_KTHREAD` of linux/sched.h: the process is a kernel thread.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A process's directory in /proc.
#[derive(Clone, Debug)]
pub(super) struct Process {
    directory: PathBuf,
    pid: u32,
}

/// What discovery needs of /proc/PID/stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Command name, at most 15 bytes; for people only.
    pub(super) name: String,
    /// `R`, `S`, `Z`, ...
    pub(super) state: u8,
    /// Parent's process id; 0 if it is outside of the pid namespace.
    pub(super) parent: u32,
    /// It has no user memory and so no executable.
    pub(super) kernel_thread: bool,
    /// Clock ticks from boot to its start.
    pub(super) start_ticks: u64,
}

impl Stat {
    /// It has ended and waits only for its parent to notice.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    fn parse(text: &[u8]) -> Option<Stat> {
        // The name may hold anything, also spaces and parentheses; it ends at the last one.
        let open = memchr::memchr(b'(', text)?;
        let close = memchr::memrchr(b')', text)?;
        let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
        let fields: Vec<&str> = std::str::from_utf8(&text[close + 1..]).ok()?.split_ascii_whitespace().collect();
        // Field numbers of proc_pid_stat(5) less 3: state is the third and comes first here.
        let state = *fields.first()?.as_bytes().first()?;
        let parent = fields.get(1)?.parse().ok()?;
        let flags: u32 = fields.get(6)?.parse().ok()?;
        let start_ticks = fields.get(19)?.parse().ok()?;
        Some(Stat { name, state, parent, kernel_thread: flags & PF_KTHREAD != 0, start_ticks })
    }
}

impl Process {
    /// The process `pid` beneath `proc_root`; it need not exist.
    pub(super) fn new(proc_root: &Path, pid: u32) -> Process {
        Process { directory: proc_root.join(pid.to_string()), pid }
    }

    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Path of `name` in its directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its parsed `stat`.
    pub(super) fn stat(&self) -> io::Result<Stat> {
        let text = self.read("stat")?;
        Stat::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "cannot be parsed"))
    }

    /// Its effective user id.
    pub(super) fn effective_uid(&self) -> io::Result<u32> {
        let text = self.read("status")?;
        parse_effective_uid(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "has no effective user id"))
    }

    /// Its `cgroup` file.
    pub(super) fn cgroup(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read("cgroup")?).into_owned())
    }

    /// Its command line, or the title that it has put in its place.
    pub(super) fn command_line(&self) -> io::Result<Vec<u8>> {
        self.read("cmdline")
    }

    /// Target of a symbolic link in its directory, as this process sees it.
    pub(super) fn link(&self, name: &str) -> io::Result<PathBuf> {
        let target = fs::read_link(self.path(name))?.into_os_string().into_vec();
        // d_path() appends this to what has been unlinked, e.g. an executable that was upgraded.
        let target = target.strip_suffix(b" (deleted)").unwrap_or(&target);
        Ok(PathBuf::from(OsStr::from_bytes(target)))
    }

    /// Target of a symbolic link as the process itself sees it: without its root directory, where that is not `/`.
    pub(super) fn own_link(&self, name: &str) -> io::Result<PathBuf> {
        let target = self.link(name)?;
        match target.strip_prefix(self.link("root")?) {
            Ok(beneath) => Ok(Path::new("/").join(beneath)),
            Err(_) => Ok(target),
        }
    }

    /// Name of its namespace of the type `kind` (`mnt`, `pid`, `net`), e.g. `net:[4026531840]`.
    pub(super) fn namespace(&self, kind: &str) -> io::Result<PathBuf> {
        fs::read_link(self.directory.join("ns").join(kind))
    }

    /// Its child processes. Costs one small read per thread; without CONFIG_PROC_CHILDREN there are none.
    pub(super) fn children(&self) -> Vec<u32> {
        let Ok(threads) = fs::read_dir(self.path("task")) else { return Vec::new() };
        let mut children: Vec<u32> = Vec::new();
        for thread in threads.flatten() {
            // A postmaster with thousands of backends has more than the usual bound.
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        children.sort_unstable();
        children
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(1024);
        File::open(self.path(name))?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

fn parse_effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    // Real, effective, saved, file system.
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Numbers of all processes beneath `proc_root`, sorted.
pub(super) fn pids(proc_root: &Path) -> io::Result<Vec<u32>> {
    let mut pids: Vec<u32> = fs::read_dir(proc_root)?
        .flatten()
        .filter_map(|entry| std::str::from_utf8(entry.file_name().as_bytes()).ok()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The process ended meanwhile, or never had what was asked for (a kernel thread has no executable).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Reads at most `limit` bytes of a regular file that somebody else may have put there: never follows a symbolic link at its end
/// and never waits for a pipe's writer.
pub(super) fn read_foreign(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Recorded on Linux 6.18; the name is replaced.
    fn stat(name: &[u8]) -> Vec<u8> {
        let mut text = b"4242 (".to_vec();
        text.extend_from_slice(name);
        text.extend_from_slice(
            b") S 17 4242 4242 0 -1 4194304 1503 0 0 0 2 3 0 0 20 0 1 0 987654321 227438592 7168 18446744073709551615 1 1 0 0 0 0 0 \
              16781312 536871424 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
        );
        text
    }

    #[test]
    fn stat_survives_odd_names() {
        for name in
            [&b"postgres"[..], b"a b", b") R 1 (", b"((()", b")", b"", b"\xff\xfe", b"tab\there", b"line\nbreak) S 1 1"]
        {
            let parsed = Stat::parse(&stat(name)).unwrap();
            assert_eq!(parsed.name, String::from_utf8_lossy(name));
            assert_eq!((parsed.state, parsed.parent, parsed.start_ticks), (b'S', 17, 987_654_321), "{name:?}");
            assert!(!parsed.kernel_thread && !parsed.is_dead());
        }
    }

    #[test]
    fn cut_or_foreign_stat_is_refused() {
        let whole = stat(b"postgres");
        for cut in [0, 3, 6, 14, 20, 60] {
            assert_eq!(Stat::parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(Stat::parse(b"no parentheses at all"), None);
        assert_eq!(Stat::parse(b") ("), None);
    }

    #[test]
    fn kernel_threads_and_the_dead_are_told() {
        let kernel = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 3 0 0 18446744073709551615";
        assert!(Stat::parse(kernel).unwrap().kernel_thread);
        let zombie = b"9 (x) Z 1 9 9 0 -1 4194316 0 0 0 0 0 0 0 0 20 0 1 0 77 0 0 18446744073709551615";
        assert!(Stat::parse(zombie).unwrap().is_dead());
    }

    #[test]
    fn the_effective_uid_is_the_second() {
        assert_eq!(parse_effective_uid(b"Name:\tx\nUmask:\t0022\nUid:\t0\t105\t0\t0\nGid:\t0\t0\t0\t0\n"), Some(105));
        assert_eq!(parse_effective_uid(b"Name:\tUid: 1 2\nGid:\t0\t0\t0\t0\n"), None);
    }

    #[test]
    fn foreign_files_cannot_hang_or_mislead() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("PG_VERSION");
        fs::write(&file, "15\n").unwrap();
        assert_eq!(read_foreign(&file, 2).unwrap(), b"15");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(read_foreign(&link, 16).is_err());
        assert!(read_foreign(directory.path(), 16).is_err());
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read_foreign(&pipe, 16).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn this_very_process_can_be_read() {
        let process = Process::new(Path::new("/proc"), std::process::id());
        let stat = process.stat().unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id());
        assert_eq!(process.link("exe").unwrap(), std::env::current_exe().unwrap());
        assert!(pids(Path::new("/proc")).unwrap().contains(&std::process::id()));
    }
}
