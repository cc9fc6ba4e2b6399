//! A database server on this host.

use std::{fmt, net::SocketAddr, path::PathBuf};

use serde::Serialize;

/// The server software. Names are the values of `db.system.name` (OpenTelemetry semantic conventions 1.44).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL.
    Postgresql,
    /// Oracle MySQL, Percona Server.
    Mysql,
    /// MariaDB.
    Mariadb,
}

impl Engine {
    /// The value of `db.system.name`.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Postgresql => "postgresql",
            Engine::Mysql => "mysql",
            Engine::Mariadb => "mariadb",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program between clients and servers that speaks their protocol itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// PgBouncer, in front of PostgreSQL.
    PgBouncer,
    /// ProxySQL, in front of MySQL and MariaDB.
    ProxySql,
}

impl Pooler {
    /// The name of its executable.
    pub fn name(self) -> &'static str {
        match self {
            Pooler::PgBouncer => "pgbouncer",
            Pooler::ProxySql => "proxysql",
        }
    }
}

/// A process, told apart from a later one with the same number by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerKey {
    /// Process id in the agent's pid namespace (the initial one for a host agent).
    pub pid: u32,
    /// `starttime` of /proc/PID/stat: clock ticks since boot.
    pub start_ticks: u64,
}

/// A socket on which a server accepts connections.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// Unix socket, path as seen in the server's mount namespace; abstract names begin with `@`.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "tcp:{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The container that a server runs in, as far as cgroup and namespaces tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// Runtime by the shape of the cgroup path: `docker`, `containerd`, `crio`, `podman`, `lxc`, `nspawn`; `kubernetes` or `oci` where the
    /// path has a container id but does not tell the runtime; else `chroot` for a root directory of its own, `namespace` for a
    /// pid or network namespace or a root file system of its own.
    pub runtime: String,
    /// Container id, where the cgroup path has one.
    pub id: Option<String>,
    /// Kubernetes pod UID, where the cgroup path has one.
    pub pod_uid: Option<String>,
    /// Root directory of the process as the host sees it, for a chroot.
    pub root: Option<PathBuf>,
}

/// A database server, found on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The server's main process: the postmaster, mysqld or mariadbd.
    pub key: ServerKey,
    /// The software; of a pooler, the one whose protocol its clients speak.
    pub engine: Engine,
    /// It is no server itself but stands in front of some. What its clients run, the servers behind it run once more.
    pub pooler: Option<Pooler>,
    /// Version as the server itself writes it, e.g. `15.18`, `10.11.14-MariaDB`, `9.7.0`.
    pub version: Option<String>,
    /// Executable, path as seen in the server's mount namespace.
    pub executable: PathBuf,
    /// Data directory, path as seen in the server's mount namespace.
    pub data_dir: Option<PathBuf>,
    /// Effective user id of the main process.
    pub uid: u32,
    /// Where it accepts connections, sorted.
    pub listen: Vec<Listen>,
    /// Container, chroot or namespace it runs in.
    pub container: Option<Container>,
    /// `service.instance.id`: UUID version 5 over host identity, data directory (or executable and first socket) and engine, so that a restart keeps it.
    pub service_instance_id: uuid::Uuid,
}

impl Instance {
    /// The program's name: the engine's, or the pooler's.
    pub fn product(&self) -> &'static str {
        self.pooler.map_or(self.engine.name(), Pooler::name)
    }

    /// A short label for people: `postgresql:5432`, or the Unix socket's path where there is no port.
    pub fn label(&self) -> String {
        let port = self.listen.iter().find_map(|listen| match listen {
            Listen::Tcp(address) => Some(address.port().to_string()),
            Listen::Unix(_) => None,
        });
        let place = port.or_else(|| {
            self.listen.iter().find_map(|listen| match listen {
                Listen::Unix(path) => Some(path.display().to_string()),
                Listen::Tcp(_) => None,
            })
        });
        match place {
            Some(place) => format!("{}:{place}", self.product()),
            None => format!("{}:pid{}", self.product(), self.key.pid),
        }
    }
}
