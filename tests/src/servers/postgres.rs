//! PostgreSQL.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Certificate, free_port};
use crate::{
    client::PostgresClient,
    layout,
    process::{Launch, Network, Process, User, wait_for},
};

/// Which server to start.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Major version, see [`layout::postgresql`].
    pub major: u32,
    /// Listens on 127.0.0.1, not only on its Unix socket.
    pub tcp: bool,
    /// Lines of postgresql.conf.
    pub settings: Vec<(String, String)>,
    /// Accepts TLS, with a certificate of its own.
    pub tls: bool,
    /// Network namespace.
    pub network: Network,
    /// Name of the executable, if not `postgres`; not for a version installed by the system, whose files must stay as they are.
    pub executable: Option<String>,
    /// A program and its arguments that run the server instead of the kernel, e.g. `valgrind`.
    pub runner: Vec<String>,
}

impl PostgresOptions {
    /// A server with both transports and pg_stat_statements.
    pub fn new(major: u32) -> PostgresOptions {
        let settings = vec![
            ("shared_preload_libraries".to_owned(), "'pg_stat_statements'".to_owned()),
            // Also what its clients do before and after the statements of interest is then told apart from loss.
            ("pg_stat_statements.track_utility".to_owned(), "on".to_owned()),
        ];
        PostgresOptions {
            major,
            tcp: true,
            settings,
            tls: false,
            network: Network::Host,
            executable: None,
            runner: Vec::new(),
        }
    }
}

/// File of the data directory with the settings of [`PostgresOptions`].
const SETTINGS: &str = "harness.conf";

/// A running server; ended on drop.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    tree: PathBuf,
    port: u16,
    version: String,
    options: PostgresOptions,
    // Last: removed when nothing runs in it any more.
    dir: TempDir,
}

impl Postgres {
    /// Starts a server and waits until it accepts connections.
    pub fn start(options: PostgresOptions) -> Result<Postgres> {
        let major = options.major;
        Postgres::try_start(options).with_context(|| format!("cannot start PostgreSQL {major}"))
    }

    fn try_start(options: PostgresOptions) -> Result<Postgres> {
        let user = Postgres::user();
        let original = layout::postgresql(options.major);
        ensure!(original.join("bin/postgres").exists(), "it is not installed: cargo xtask setup --only test");
        let dir = tempfile::Builder::new().prefix("querylens-postgres-").tempdir()?;
        user.own(dir.path())?;
        let tree = stage(&original, dir.path(), user, options.executable.as_deref())?;
        let data = dir.path().join("data");
        let initdb = Launch::new(tree.join("bin/initdb")).arg("-D").arg(&data);
        // -A trust: everybody on this machine may log in, for the minute that it lives.
        let initdb =
            initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]).user(user);
        initdb.run(Duration::from_secs(60))?;

        let port = free_port()?;
        let mut configuration = File::options().append(true).open(data.join("postgresql.conf"))?;
        let listen = if options.tcp { "127.0.0.1" } else { "" };
        writeln!(configuration, "listen_addresses = '{listen}'\nport = {port}\nfsync = off\nmax_connections = 100")?;
        writeln!(configuration, "unix_socket_directories = '{}'", dir.path().display())?;
        if options.tls {
            let made = Certificate::create(dir.path(), user)?;
            writeln!(configuration, "ssl = on\nssl_cert_file = '{}'", made.certificate.display())?;
            writeln!(configuration, "ssl_key_file = '{}'", made.key.display())?;
        }
        // Last, so that it overrides.
        writeln!(configuration, "include = '{SETTINGS}'")?;
        let process = launch(&options, &tree, dir.path())?;
        let mut server = Postgres { process, tree, port, version: String::new(), options, dir };
        server.version = server.ready()?;
        Ok(server)
    }

    /// Its version once it accepts connections.
    fn ready(&mut self) -> Result<String> {
        wait_for("the server to accept connections", Duration::from_secs(30), || {
            self.process.check_running()?;
            let Ok(mut client) = self.client("postgres") else { return Ok(None) };
            Ok(Some(client.value("SHOW server_version")?))
        })
    }

    /// Ends it as an administrator would, and starts it with these settings instead of those it had. Its data, port and socket stay.
    pub fn restart(&mut self, settings: Vec<(String, String)>) -> Result<()> {
        let ended = self.stop()?;
        ensure!(ended.success(), "PostgreSQL did not end as it should: {ended}");
        self.start_again(settings)
    }

    /// Starts it after it was stopped, with these settings instead of those it had. Its data, port and socket stay.
    pub fn start_again(&mut self, settings: Vec<(String, String)>) -> Result<()> {
        self.options.settings = settings;
        self.process = launch(&self.options, &self.tree, self.dir.path())?;
        self.ready().map(drop)
    }

    /// The user that servers run as: PostgreSQL refuses root.
    pub fn user() -> User {
        User::named_or_nobody("postgres")
    }

    /// Process id of the postmaster.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `server_version`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Port, also part of the name of its Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it listens on 127.0.0.1.
    pub fn listens_on_tcp(&self) -> bool {
        self.options.tcp
    }

    /// Directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Network namespace for its clients over TCP.
    pub fn network(&self) -> Network {
        match self.options.network {
            Network::Own => Network::Of(self.pid()),
            network => network,
        }
    }

    /// A program of the same version, e.g. `pgbench`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.tree.join("bin").join(name)
    }

    /// A session of the superuser through its Unix socket.
    pub fn client(&self, database: &str) -> Result<PostgresClient> {
        PostgresClient::connect(self.socket_dir(), self.port, database)
    }

    /// Creates a database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.client("postgres")?.query(&format!("CREATE DATABASE {name}")).map(drop)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it as an administrator would (fast shutdown), and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.end(libc::SIGINT, Duration::from_secs(20))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Gives back what SIGKILL would leave (see above); what then still runs, Process kills.
        let _ = self.process.end(libc::SIGQUIT, Duration::from_secs(10));
    }
}

/// Starts the server on the data in `dir`, with the settings of `options`.
fn launch(options: &PostgresOptions, tree: &Path, dir: &Path) -> Result<Process> {
    let (user, data) = (Postgres::user(), dir.join("data"));
    let settings: String = options.settings.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    fs::write(data.join(SETTINGS), settings)?;
    user.own(&data.join(SETTINGS))?;
    let executable = tree.join("bin").join(options.executable.as_deref().unwrap_or("postgres"));
    let launch = match options.runner.split_first() {
        Some((runner, arguments)) => Launch::new(runner).args(arguments).arg(executable),
        None => Launch::new(executable),
    };
    // An immediate shutdown ends all its processes and gives back its shared memory; after SIGKILL it could do neither.
    let launch = launch.arg("-D").arg(&data).user(user).on_parent_death(libc::SIGQUIT);
    launch.network(options.network).log(&dir.join("log")).start()
}

/// The tree to run from: `original`, or a copy in `dir` where the user cannot reach it (a checkout in a private home directory) or the
/// executable has another name. PostgreSQL finds its files relative to its executable.
fn stage(original: &Path, dir: &Path, user: User, executable: Option<&str>) -> Result<PathBuf> {
    let probe = Launch::new(original.join("bin/postgres")).arg("--version").user(user);
    if executable.is_none() && probe.run(Duration::from_secs(10)).is_ok() {
        return Ok(original.to_owned());
    }
    ensure!(original.starts_with(layout::target()), "{} is the system's and is not copied", original.display());
    let tree = dir.join("tree");
    let copy = Launch::new("cp").args(["-r", "--reflink=auto"]).arg(original).arg(&tree);
    copy.run(Duration::from_secs(60)).context("cannot copy the tree")?;
    if let Some(name) = executable {
        fs::copy(tree.join("bin/postgres"), tree.join("bin").join(name)).context("cannot rename the executable")?;
    }
    Ok(tree)
}
