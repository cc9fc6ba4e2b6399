//! An identity for each server that outlives restarts of server, agent and host.

use std::{
    fmt, fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use uuid::Uuid;

use super::process::{Process, read_foreign};
use crate::model::{Container, Engine, Listen};

/// Namespace of `service.instance.id`: made once at random for this purpose (RFC 9562, section 5.5). Never change it: all
/// identities would.
const NAMESPACE: Uuid = Uuid::from_u128(0x5df3_d28f_f615_4bab_b034_e25d_5760_252f);

/// Bound on the files read here.
const FILE_LIMIT: u64 = 256;

/// What tells this host from others: its machine id (machine-id(5)), else its name. The machine id is confidential and enters
/// identities only through their hash.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct HostId(String);

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostId")
    }
}

impl HostId {
    /// Reads it from the root directory of process 1, which is the host's also where the agent itself runs in a container.
    pub(super) fn read(proc_root: &Path) -> HostId {
        let places = [
            Process::new(proc_root, 1).path("root/etc/machine-id"),
            PathBuf::from("/etc/machine-id"),
            proc_root.join("sys/kernel/hostname"),
        ];
        let known = places.iter().find_map(|place| {
            let text = String::from_utf8(read_foreign(place, FILE_LIMIT).ok()?).ok()?;
            let text = text.trim();
            // systemd writes `uninitialized` into images of machines that never booted.
            (!text.is_empty() && text != "uninitialized").then(|| text.to_owned())
        });
        HostId(known.unwrap_or_default())
    }
}

/// What makes a server the same after a restart.
pub(super) struct Features<'a> {
    pub(super) engine: Engine,
    pub(super) executable: &'a Path,
    pub(super) data_dir: Option<&'a Path>,
    pub(super) listen: &'a [Listen],
    pub(super) container: Option<&'a Container>,
    pub(super) process: &'a Process,
}

/// `service.instance.id`: UUID version 5 over host, container, engine and data directory; where that is unknown, executable and
/// first socket. Each part is preceded by its length, so that no two lists of parts give the same bytes.
pub(super) fn service_instance_id(host: &HostId, features: &Features<'_>) -> Uuid {
    let mut name = Vec::new();
    let mut add = |part: &[u8]| {
        name.extend((part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    };
    add(host.0.as_bytes());
    match features.container {
        None => add(b""),
        Some(Container { id: Some(id), .. }) => add(id.as_bytes()),
        Some(Container { root: Some(root), .. }) => add(root.as_os_str().as_bytes()),
        // A namespace without a name: its data directory's path may be that of its neighbour, the inode hardly is.
        Some(_) => match fs::metadata(features.process.path("cwd")) {
            Ok(directory) => add(&directory.ino().to_be_bytes()),
            Err(_) => add(b"namespace"),
        },
    }
    add(features.engine.name().as_bytes());
    match features.data_dir {
        Some(path) => add(path.as_os_str().as_bytes()),
        None => {
            add(features.executable.as_os_str().as_bytes());
            add(features.listen.first().map(Listen::to_string).unwrap_or_default().as_bytes());
        }
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(host: &str, container: Option<&Container>, engine: Engine, data_dir: Option<&str>, port: u16) -> Uuid {
        let process = Process::new(Path::new("/proc"), std::process::id());
        let listen = [Listen::Tcp(([127, 0, 0, 1], port).into())];
        service_instance_id(
            &HostId(host.to_owned()),
            &Features {
                engine,
                executable: Path::new("/usr/sbin/server"),
                data_dir: data_dir.map(Path::new),
                listen: &listen,
                container,
                process: &process,
            },
        )
    }

    #[test]
    fn the_identity_is_stable_and_tells_apart() {
        let docker =
            |id: &str| Container { runtime: "docker".to_owned(), id: Some(id.to_owned()), pod_uid: None, root: None };
        let base = id("host", None, Engine::Postgresql, Some("/data"), 5432);
        // Written down: a change of the namespace or of the parts would cut every stored time series in two.
        assert_eq!(base.to_string(), "7d5ae8ee-ea1d-5a4d-b048-104860d9bed7");
        assert_eq!(base, id("host", None, Engine::Postgresql, Some("/data"), 5433), "the port may change");
        let others = [
            id("other", None, Engine::Postgresql, Some("/data"), 5432),
            id("host", Some(&docker("a")), Engine::Postgresql, Some("/data"), 5432),
            id("host", Some(&docker("b")), Engine::Postgresql, Some("/data"), 5432),
            id("host", None, Engine::Mariadb, Some("/data"), 5432),
            id("host", None, Engine::Postgresql, Some("/data2"), 5432),
            id("host", None, Engine::Postgresql, None, 5432),
            id("host", None, Engine::Postgresql, None, 5433),
        ];
        let mut all = others.to_vec();
        all.push(base);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }
}
