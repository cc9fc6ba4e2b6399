//! Names and groups of the users that servers run as.

use std::{fs::File, io::Read, path::Path};

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};

/// Bound on what is read of a file.
const FILE_LIMIT: u64 = 1 << 20;

/// The effective group of process `pid` (proc_pid_status(5)).
pub(super) fn group_of(proc_root: &Path, pid: u32) -> Option<u32> {
    let mut status = String::new();
    let file = File::open(proc_root.join(pid.to_string()).join("status")).ok()?;
    file.take(FILE_LIMIT).read_to_string(&mut status).ok()?;
    effective(&status, "Gid:")
}

/// The second number behind `key`: real, effective, saved, file system.
fn effective(status: &str, key: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The name of a user as a server with this root directory sees it, by its /etc/passwd.
pub(super) fn name_of(root: &Path, uid: u32) -> Option<String> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat2(&root, "etc/passwd", flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let mut bytes = Vec::new();
    File::from(file).take(FILE_LIMIT).read_to_end(&mut bytes).ok()?;
    parse(&String::from_utf8_lossy(&bytes), uid)
}

/// passwd(5): name, password, user id, ...
fn parse(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse::<u32>().ok()? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups_are_found() {
        let passwd =
            "root:x:0:0:root:/:/bin/sh\n# a comment\n:x:105::\npostgres:x:105:113:PostgreSQL:/:/bin/sh\nbroken:x:y\n";
        assert_eq!(parse(passwd, 105).as_deref(), Some("postgres"));
        assert_eq!(parse(passwd, 7), None);
        assert_eq!(effective("Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n", "Gid:"), Some(6));
        assert_eq!(effective("Name:\tx\n", "Gid:"), None);
    }
}
