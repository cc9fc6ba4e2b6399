//! PgBouncer, as the distribution ships it, in front of a PostgreSQL server.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Postgres, Transport, free_port};
use crate::{
    client::PostgresClient,
    process::{Launch, Process, wait_for},
};

/// A running pooler; killed on drop, since it has nothing to lose.
#[derive(Debug)]
pub struct Pgbouncer {
    process: Process,
    port: u16,
    // Last: removed when nothing runs in it any more.
    dir: TempDir,
}

impl Pgbouncer {
    /// Starts it in front of `server`, which it reaches over `transport`, and waits until it lets clients through.
    pub fn start(server: &Postgres, transport: Transport) -> Result<Pgbouncer> {
        Pgbouncer::try_start(server, transport).context("cannot start PgBouncer")
    }

    fn try_start(server: &Postgres, transport: Transport) -> Result<Pgbouncer> {
        // It refuses root.
        let user = Postgres::user();
        let dir = tempfile::Builder::new().prefix("querylens-pgbouncer-").tempdir()?;
        user.own(dir.path())?;
        let port = free_port()?;
        let host = match transport {
            Transport::Tcp => Path::new("127.0.0.1"),
            Transport::Unix => server.socket_dir(),
        };
        let configuration = format!(
            "[databases]\n* = host={} port={}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir = {}\n\
             auth_type = trust\nauth_file = {}\npool_mode = session\nmax_client_conn = 100\n",
            host.display(),
            server.port(),
            dir.path().display(),
            dir.path().join("users").display(),
        );
        fs::write(dir.path().join("users"), "\"postgres\" \"\"\n")?;
        fs::write(dir.path().join("pgbouncer.ini"), configuration)?;
        let launch = Launch::new("/usr/sbin/pgbouncer").arg(dir.path().join("pgbouncer.ini")).user(user);
        let process = launch.log(&dir.path().join("log")).start()?;
        let mut pooler = Pgbouncer { process, port, dir };
        wait_for("the pooler to let a client through", Duration::from_secs(10), || {
            pooler.process.check_running()?;
            Ok(PostgresClient::connect(pooler.dir.path(), port, "postgres").is_ok().then_some(()))
        })
        .with_context(|| pooler.process.log())?;
        Ok(pooler)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Port, also part of the name of its Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }
}
