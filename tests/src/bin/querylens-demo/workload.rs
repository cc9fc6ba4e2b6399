//! Which servers the demo starts, and what they have to do.

use anyhow::Result;
use querylens::model::Engine;
use querylens_tests::{
    load::{
        Amount, Load, Pgbench, Sysbench,
        pgbench::{Protocol, Script},
    },
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
};

use crate::screen::Screen;

/// Connections of each load: more than one, so that statements overlap, and few enough for a small machine.
const CLIENTS: u32 = 2;
/// Database of pgbench.
const DATABASE: &str = "bench";

/// A server and its load.
pub(crate) enum Workload {
    /// pgbench.
    Postgres(Postgres, Pgbench),
    /// sysbench.
    Mysqld(Mysqld, Sysbench),
}

/// Starts all servers and creates their data; nothing is observed yet.
pub(crate) fn start_servers(screen: &mut Screen) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    let postgres = [
        (15, Script::SelectOnly, Protocol::Prepared, Transport::Tcp),
        (17, Script::TpcB, Protocol::Simple, Transport::Unix),
        (18, Script::SelectOnly, Protocol::Extended, Transport::Unix),
    ];
    for (major, script, protocol, transport) in postgres {
        screen.say(&format!("starting PostgreSQL {major}"));
        // As installed: no extension is needed.
        let server = Postgres::start(PostgresOptions { settings: Vec::new(), ..PostgresOptions::new(major) })?;
        Pgbench::initialise(&server, DATABASE)?;
        let (database, amount) = (DATABASE.to_owned(), Amount::Seconds(1));
        let load = Pgbench { database, transport, script, protocol, clients: CLIENTS, amount, rate: None };
        workloads.push(Workload::Postgres(server, load));
    }
    let options = MysqldOptions { performance_schema: false, ..MysqldOptions::default() };
    screen.say("starting MariaDB");
    let mut servers = vec![(mariadb::start(&options)?, Transport::Tcp, false)];
    if mysql::available() {
        screen.say("starting MySQL in a root directory of its own");
        servers.push((mysql::start(&options)?, Transport::Unix, true));
    }
    for (server, transport, prepared) in servers {
        Sysbench::initialise(&server)?;
        let load = Sysbench { transport, prepared, clients: CLIENTS, amount: Amount::Seconds(1), rate: None };
        workloads.push(Workload::Mysqld(server, load));
    }
    Ok(workloads)
}

impl Workload {
    /// Starts the load.
    pub(crate) fn load(&self, seconds: u32) -> Result<Load> {
        let amount = Amount::Seconds(seconds);
        match self {
            Workload::Postgres(server, load) => Pgbench { amount, ..load.clone() }.start(server),
            Workload::Mysqld(server, load) => Sysbench { amount, ..load.clone() }.start(server),
        }
    }

    /// The server's software.
    pub(crate) fn engine(&self) -> Engine {
        match self {
            Workload::Postgres(..) => Engine::Postgresql,
            Workload::Mysqld(server, _) => server.engine(),
        }
    }

    /// The server's main process.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Workload::Postgres(server, _) => server.pid(),
            Workload::Mysqld(server, _) => server.pid(),
        }
    }

    /// As the server itself tells it.
    pub(crate) fn version(&self) -> &str {
        match self {
            Workload::Postgres(server, _) => server.version(),
            Workload::Mysqld(server, _) => server.version(),
        }
    }

    /// How its load reaches it.
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Workload::Postgres(_, load) => load.transport,
            Workload::Mysqld(_, load) => load.transport,
        }
    }

    /// Engine and version, short.
    pub(crate) fn label(&self) -> String {
        let version = self.version().split([' ', '-']).next().unwrap_or_default();
        format!("{} {version}", self.engine())
    }
}
