//! What MariaDB and MySQL have in common.

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result};
use querylens::model::Engine;
use tempfile::TempDir;

use super::{Transport, free_port};
use crate::{
    client::MysqlClient,
    process::{Launch, Process, User, wait_for},
};

/// Which server to start.
#[derive(Clone, Debug)]
pub struct MysqldOptions {
    /// Listens on 127.0.0.1, not only on its Unix socket.
    pub tcp: bool,
    /// Keeps performance_schema.
    pub performance_schema: bool,
    /// Accepts TLS, with a certificate of its own (MySQL always does).
    pub tls: bool,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Default for MysqldOptions {
    fn default() -> MysqldOptions {
        MysqldOptions { tcp: true, performance_schema: true, tls: false, arguments: Vec::new() }
    }
}

/// A running server; killed on drop, since nobody needs its data.
#[derive(Debug)]
pub struct Mysqld {
    engine: Engine,
    process: Process,
    port: Option<u16>,
    socket: PathBuf,
    version: String,
    // Last: removed when nothing runs in it any more.
    _dir: TempDir,
}

/// User of all clients, without a password: servers listen on 127.0.0.1 and live for a minute.
pub const CLIENT_USER: &str = "harness";
/// Database of all clients; its name is the default of sysbench.
pub const DATABASE: &str = "sbtest";

/// Statements that a server runs before it accepts connections.
pub(super) const INIT_SQL: &str = "\
CREATE DATABASE IF NOT EXISTS sbtest;
CREATE USER IF NOT EXISTS 'harness'@'localhost' IDENTIFIED BY '';
CREATE USER IF NOT EXISTS 'harness'@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO 'harness'@'localhost';
GRANT ALL ON *.* TO 'harness'@'%';
";

/// Where a server lives, as itself and as others see it.
pub(super) struct Place {
    /// Its directory.
    pub(super) dir: TempDir,
    /// The directory within its root directory.
    pub(super) inside: PathBuf,
    /// Its root directory, if it has one of its own.
    pub(super) root: Option<PathBuf>,
    /// As whom it runs.
    pub(super) user: User,
}

impl Place {
    /// Starts `program` on data that is already initialised.
    pub(super) fn start(
        self,
        engine: Engine,
        program: &Path,
        arguments: Vec<String>,
        options: &MysqldOptions,
    ) -> Result<Mysqld> {
        std::fs::write(self.dir.path().join("init.sql"), INIT_SQL)?;
        self.user.own(&self.dir.path().join("init.sql"))?;
        let port = options.tcp.then(free_port).transpose()?;
        let at = |name: &str| self.inside.join(name).display().to_string();
        let performance_schema = if options.performance_schema { "ON" } else { "OFF" };
        let mut launch = Launch::new(program).arg("--no-defaults").arg(format!("--datadir={}", at("data"))).args([
            format!("--socket={}", at("mysqld.sock")),
            format!("--pid-file={}", at("pid")),
            format!("--tmpdir={}", at("")),
            format!("--init-file={}", at("init.sql")),
            format!("--performance-schema={performance_schema}"),
            "--skip-log-bin".to_owned(),
            "--innodb-flush-log-at-trx-commit=0".to_owned(),
            "--innodb-buffer-pool-size=64M".to_owned(),
        ]);
        launch = match port {
            Some(port) => launch.arg(format!("--port={port}")).arg("--bind-address=127.0.0.1"),
            None => launch.arg("--skip-networking"),
        };
        launch = launch.args(arguments).args(&options.arguments).user(self.user).log(&self.dir.path().join("log"));
        if let Some(root) = &self.root {
            launch = launch.chroot(root);
        }
        let process = launch.start()?;
        // Through /proc the path stays short enough for a socket address (108 bytes), wherever the checkout lies.
        let socket = match self.root {
            Some(_) => PathBuf::from(format!("/proc/{}/root{}", process.pid(), at("mysqld.sock"))),
            None => self.dir.path().join("mysqld.sock"),
        };
        let mut server = Mysqld { engine, process, port, socket, version: String::new(), _dir: self.dir };
        server.version = wait_for("the server to accept connections", Duration::from_secs(60), || {
            server.process.check_running()?;
            let Ok(mut client) = server.client() else { return Ok(None) };
            Ok(Some(client.value("SELECT version()")?))
        })?;
        Ok(server)
    }
}

impl Mysqld {
    /// Which of the two.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `version()`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Port, if it listens on TCP.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Its Unix socket, as this process reaches it.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A session through its Unix socket.
    pub fn client(&self) -> Result<MysqlClient> {
        MysqlClient::connect(&self.socket, CLIENT_USER, DATABASE)
    }

    /// Arguments with which clients reach it, each name behind `prefix` (`--` or `--mysql-`).
    pub fn client_arguments(&self, prefix: &str, transport: Transport) -> Result<Vec<String>> {
        let mut arguments = vec![format!("{prefix}user={CLIENT_USER}")];
        match transport {
            Transport::Tcp => {
                let port = self.port.context("the server does not listen on TCP")?;
                arguments.extend([format!("{prefix}host=127.0.0.1"), format!("{prefix}port={port}")]);
            }
            Transport::Unix => arguments.push(format!("{prefix}socket={}", self.socket.display())),
        }
        Ok(arguments)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as an administrator would, and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.end(libc::SIGTERM, Duration::from_secs(30))
    }
}
