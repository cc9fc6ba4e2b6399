//! Throw-away database servers: data in a temporary directory, no durability, access for everybody on this machine, ended on drop.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::process::{Launch, User};

pub mod mariadb;
pub mod mysql;
pub mod mysqld;
pub mod pgbouncer;
pub mod postgres;

pub use mysqld::{Mysqld, MysqldOptions};
pub use pgbouncer::Pgbouncer;
pub use postgres::{Postgres, PostgresOptions};

/// How a client reaches a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// 127.0.0.1.
    Tcp,
    /// Unix socket.
    Unix,
}

impl Transport {
    /// As the agent's status names it.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Unix => "unix",
        }
    }
}

/// A port of 127.0.0.1 on which nobody listens, below the range from which Linux takes ports of outgoing connections
/// (ip_local_port_range, from 32768), so that none of those takes it before the server does.
pub fn free_port() -> Result<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes at the same time begin at different places.
    let begin = std::process::id().wrapping_mul(2_654_435_761) % COUNT;
    let ports = (0..COUNT).map(|_| FIRST + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut ports = ports.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).context("no port is free")
}

/// A certificate for 127.0.0.1 signed by itself, and its key, readable by `user` alone.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn create(dir: &Path, user: User) -> Result<Certificate> {
        let (certificate, key) = (dir.join("server.crt"), dir.join("server.key"));
        let fixed = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
        let launch = Launch::new("openssl").args(fixed).args(["-subj", "/CN=127.0.0.1", "-keyout"]).arg(&key);
        launch.arg("-out").arg(&certificate).run(Duration::from_secs(30)).context("cannot make a certificate")?;
        user.own(&certificate)?;
        user.own(&key)?;
        Ok(Certificate { certificate, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn free_ports_differ_and_can_be_bound() {
        let (first, second) = (free_port().unwrap(), free_port().unwrap());
        assert_ne!(first, second);
        assert!(first < 32_768 && TcpListener::bind((Ipv4Addr::LOCALHOST, first)).is_ok());
    }
}
