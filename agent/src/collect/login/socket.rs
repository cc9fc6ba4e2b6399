//! Unix sockets, as their servers see them: a container or chroot has a root directory of its own.

use std::{
    ffi::OsString,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, open, openat2},
    io::Errno,
};

use crate::{collect::failure::Failure, model::Asked};

/// A socket that can be connected to while this lives.
#[derive(Debug)]
pub(super) struct Reached {
    directory: OwnedFd,
    name: OsString,
}

impl Reached {
    /// Finds `socket`, a path within the root directory `root`, e.g. `/proc/4711/root`. Links in it lead to where the server sees them lead
    /// (`/var/run` is mostly one), never out of its root.
    pub(super) fn find(root: &Path, socket: &Path) -> Result<Reached, Failure> {
        let failed = |error: Errno| {
            let asked = if matches!(error, Errno::ACCESS | Errno::PERM) { Asked::Denied } else { Asked::Disconnected };
            let reason = format!("reaching {} below {}: {error}", socket.display(), root.display());
            Failure::fatal(asked, reason)
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(failed(Errno::INVAL));
        };
        let root = open(root, flags, Mode::empty()).map_err(failed)?;
        let directory = openat2(&root, folder, flags, Mode::empty(), ResolveFlags::IN_ROOT).map_err(failed)?;
        Ok(Reached { directory, name: name.to_owned() })
    }

    /// A path to it that is short enough for a socket's address (108 bytes, unix(7)) and needs no right to see the server's root.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_lead_where_the_server_sees_them_lead() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("run/postgresql").join("x".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.path().join("var")).unwrap();
        symlink("/run", root.path().join("var/run")).unwrap();
        let name = ".s.PGSQL.5432";
        let _listener = {
            let place =
                Reached::find(root.path(), &Path::new("/run/postgresql").join("x".repeat(120)).join(name)).unwrap();
            assert!(place.path().as_os_str().len() < 60);
            std::os::unix::net::UnixListener::bind(place.path()).unwrap()
        };
        let through_link = Path::new("/var/run/postgresql").join("x".repeat(120)).join(name);
        let place = Reached::find(root.path(), &through_link).unwrap();
        std::os::unix::net::UnixStream::connect(place.path()).unwrap();
        let missing = Reached::find(root.path(), Path::new("/nowhere/socket")).unwrap_err();
        assert_eq!(missing.asked, Asked::Disconnected);
        assert!(missing.reason.contains("/nowhere/socket"), "{}", missing.reason);
    }
}
