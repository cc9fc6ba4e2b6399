//! Configuration of what databases are asked.

use std::{ops::RangeInclusive, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{HumanDuration, Problem, Secret};

/// What databases are asked, and as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Ask databases at all; without it everything known of them comes from the wire. Default: true.
    pub enabled: bool,
    /// Log in as the account that a server's own operating-system user has (PostgreSQL `peer` or `trust`, MariaDB `unix_socket`, MySQL
    /// `auth_socket`), where no entry of `users` matches. Default: true.
    pub own_account: bool,
    /// How often sessions and waits are looked at. Default: 1s.
    pub activity_interval: HumanDuration,
    /// How often statement statistics are read. Default: 10s.
    pub statements_interval: HumanDuration,
    /// How often counters of the server, its databases and its replication are read. Default: 10s.
    pub server_interval: HumanDuration,
    /// How often tables and indexes are looked at. Default: 1m.
    pub tables_interval: HumanDuration,
    /// How often settings are compared with those before. Default: 1m.
    pub settings_interval: HumanDuration,
    /// Statements told apart per server; further ones are left out and counted. Default: 10000.
    #[schemars(range(min = 1, max = MAX_STATEMENTS))]
    pub max_statements: usize,
    /// Tables, and indexes, with metrics of their own for each database, the largest first. Default: 200.
    #[schemars(range(min = 0, max = MAX_TABLES))]
    pub max_tables: usize,
    /// CPU time that a question may cost the database, in per cent of one core; one that costs more over a minute is left alone, at first for five
    /// minutes. Default: 1.
    #[schemars(range(min = 0.01, max = 100.0))]
    pub max_cpu_percent: f64,
    /// While all tasks of the host waited for memory for more than so many per cent of the last ten seconds (`full avg10` of /proc/pressure/memory),
    /// nothing is asked; 0 for no such limit. Default: 20.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub max_memory_pressure: f64,
    /// Monitoring users; the first entry that matches a server is taken. Default: none.
    pub users: Vec<User>,
}

/// The agent remembers no more.
const MAX_STATEMENTS: usize = 1_000_000;
/// More would be a burden on the database's catalogs.
const MAX_TABLES: usize = 100_000;
/// More often than this costs more than it tells; less often is no monitoring.
const INTERVALS: RangeInclusive<HumanDuration> = HumanDuration::from_millis(500)..=HumanDuration::from_secs(3_600);

impl Default for Config {
    fn default() -> Config {
        Config {
            enabled: true,
            own_account: true,
            activity_interval: HumanDuration::from_secs(1),
            statements_interval: HumanDuration::from_secs(10),
            server_interval: HumanDuration::from_secs(10),
            tables_interval: HumanDuration::from_secs(60),
            settings_interval: HumanDuration::from_secs(60),
            max_statements: 10_000,
            max_tables: 200,
            max_cpu_percent: 1.0,
            max_memory_pressure: 20.0,
            users: Vec::new(),
        }
    }
}

impl Config {
    /// Values that cannot work.
    pub fn check(&self) -> impl Iterator<Item = Problem> {
        let intervals = [
            Problem::out_of_range("activity_interval", &self.activity_interval, INTERVALS),
            Problem::out_of_range("statements_interval", &self.statements_interval, INTERVALS),
            Problem::out_of_range("server_interval", &self.server_interval, INTERVALS),
            Problem::out_of_range("tables_interval", &self.tables_interval, INTERVALS),
            Problem::out_of_range("settings_interval", &self.settings_interval, INTERVALS),
            Problem::out_of_range("max_statements", &self.max_statements, 1..=MAX_STATEMENTS),
            Problem::out_of_range("max_tables", &self.max_tables, 0..=MAX_TABLES),
            Problem::out_of_range("max_cpu_percent", &self.max_cpu_percent, 0.01..=100.0),
            Problem::out_of_range("max_memory_pressure", &self.max_memory_pressure, 0.0..=100.0),
        ];
        let users = self.users.iter().enumerate();
        let users =
            users.flat_map(|(at, user)| user.check().map(move |problem| problem.beneath(&format!("users[{at}]"))));
        intervals.into_iter().flatten().chain(users)
    }
}

/// A monitoring user, and of which servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// Which servers it is for; every given label must fit. Default: all servers.
    #[serde(rename = "match")]
    pub labels: Labels,
    /// Its name.
    pub name: String,
    /// Its password, e.g. `{ env: NAME }` or `{ file: PATH }`. Default: for PostgreSQL that in `~/.pgpass` (or `$PGPASSFILE`), else none.
    pub password: Option<Secret>,
    /// Database to connect to. Default: `postgres`, or none for MySQL and MariaDB.
    pub database: Option<String>,
    /// Host or address to connect to. Default: the server's Unix socket if it has one, else the address that it listens on.
    pub host: Option<String>,
    /// Port to connect to. Default: the one that it listens on.
    pub port: Option<u16>,
    /// Encryption, for connections over TCP.
    pub tls: Tls,
}

impl Default for User {
    fn default() -> User {
        User {
            labels: Labels::default(),
            name: "querylens".to_owned(),
            password: None,
            database: None,
            host: None,
            port: None,
            tls: Tls::default(),
        }
    }
}

impl User {
    fn check(&self) -> impl Iterator<Item = Problem> {
        let pair = self.tls.cert_file.is_some() == self.tls.key_file.is_some();
        [
            self.name.is_empty().then(|| Problem::new("name", "must not be empty")),
            (!pair).then(|| Problem::new("tls", "needs both `cert_file` and `key_file`, or neither")),
        ]
        .into_iter()
        .flatten()
    }
}

/// Labels of servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Labels {
    /// Its software.
    pub engine: Option<EngineName>,
    /// A TCP port that it listens on, or the number of its PostgreSQL Unix socket.
    pub port: Option<u16>,
    /// The beginning of its container's id, its pod's UID, or the name of the container runtime.
    pub container: Option<String>,
    /// Its data directory, as it sees it itself.
    pub data_directory: Option<PathBuf>,
}

/// Server software, as `db.system.name` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// PostgreSQL.
    Postgresql,
    /// Oracle MySQL, Percona Server.
    Mysql,
    /// MariaDB.
    Mariadb,
}

/// Encryption of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// How much is asked of it. Default: prefer.
    pub mode: TlsMode,
    /// PEM file with the authorities to trust in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate chain that the agent shows; needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of `cert_file`.
    pub key_file: Option<PathBuf>,
}

/// What is asked of encryption; names and meanings are those of libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// None.
    Disable,
    /// Where the server offers it, whoever it is.
    #[default]
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, with a certificate of a trusted authority. For MySQL and MariaDB the same as `verify-full`.
    VerifyCa,
    /// Always, with a certificate of a trusted authority for the name connected to.
    VerifyFull,
}
