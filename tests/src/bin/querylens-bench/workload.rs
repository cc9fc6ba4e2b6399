//! The loads: what they send to which server.

use anyhow::Result;
use querylens::model::Engine;
use querylens_tests::{
    load::{
        Amount, Load, Pgbench, Report, Sysbench,
        pgbench::{Protocol, Script},
    },
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb},
};

/// Database of pgbench.
pub(crate) const DATABASE: &str = "bench";
/// Factor of pgbench's tables: ten branches, so that TPC-B's clients seldom wait for each other.
pub(crate) const SCALE: u32 = 10;
/// Major version of PostgreSQL.
const MAJOR: u32 = 17;

/// A kind of load, by its name on the command line and in every result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// pgbench -S, text with literals.
    SelectSimple,
    /// pgbench -S, parsed each time.
    SelectExtended,
    /// pgbench -S, prepared once.
    SelectPrepared,
    /// pgbench's TPC-B, prepared once.
    TpcbPrepared,
    /// sysbench oltp_read_only on MariaDB, prepared once.
    SysbenchPrepared,
    /// The same as text.
    SysbenchText,
}

impl Workload {
    /// Those whose cost is asked for.
    pub(crate) const COSTLY: [Workload; 5] = [
        Workload::SelectSimple,
        Workload::SelectExtended,
        Workload::SelectPrepared,
        Workload::TpcbPrepared,
        Workload::SysbenchPrepared,
    ];

    /// In results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Workload::SelectSimple => "select_simple",
            Workload::SelectExtended => "select_extended",
            Workload::SelectPrepared => "select_prepared",
            Workload::TpcbPrepared => "tpcb_prepared",
            Workload::SysbenchPrepared => "sysbench_prepared",
            Workload::SysbenchText => "sysbench_text",
        }
    }

    /// Of the server that it runs on.
    pub(crate) fn engine(self) -> Engine {
        match self {
            Workload::SysbenchPrepared | Workload::SysbenchText => Engine::Mariadb,
            _ => Engine::Postgresql,
        }
    }

    /// Statements of one transaction.
    fn statements(self) -> u32 {
        match self {
            Workload::SelectSimple | Workload::SelectExtended | Workload::SelectPrepared => 1,
            Workload::TpcbPrepared => 7,
            Workload::SysbenchPrepared | Workload::SysbenchText => 16,
        }
    }
}

/// How hard and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Intensity {
    /// Connections.
    pub(crate) clients: u32,
    /// How long.
    pub(crate) seconds: u32,
    /// Statements a second over all connections; as many as possible if not said.
    pub(crate) rate: Option<u32>,
}

/// One server of each engine that some workload needs, with its data.
pub(crate) struct Servers {
    postgres: Option<Postgres>,
    mariadb: Option<Mysqld>,
}

impl Servers {
    /// Starts what `workloads` need, for up to `clients` connections.
    pub(crate) fn start(
        workloads: &[Workload],
        clients: u32,
        settings: Vec<(String, String)>,
        performance_schema: bool,
    ) -> Result<Servers> {
        let needs = |engine| workloads.iter().any(|workload| workload.engine() == engine);
        let postgres = needs(Engine::Postgresql).then(|| start_postgres(clients, settings)).transpose()?;
        let mariadb = needs(Engine::Mariadb).then(|| start_mariadb(clients, performance_schema)).transpose()?;
        Ok(Servers { postgres, mariadb })
    }

    /// PostgreSQL.
    pub(crate) fn postgres(&mut self) -> Result<&mut Postgres> {
        self.postgres.as_mut().ok_or_else(|| anyhow::anyhow!("no workload needs PostgreSQL"))
    }

    /// MariaDB.
    pub(crate) fn mariadb(&mut self) -> Result<&mut Mysqld> {
        self.mariadb.as_mut().ok_or_else(|| anyhow::anyhow!("no workload needs MariaDB"))
    }

    /// Main process of the server of an engine.
    pub(crate) fn pid(&mut self, engine: Engine) -> Result<u32> {
        match engine {
            Engine::Postgresql => Ok(self.postgres()?.pid()),
            Engine::Mariadb | Engine::Mysql => Ok(self.mariadb()?.pid()),
        }
    }

    /// TCP port of the server of an engine.
    pub(crate) fn port(&mut self, engine: Engine) -> Result<u16> {
        match engine {
            Engine::Postgresql => Ok(self.postgres()?.port()),
            Engine::Mariadb | Engine::Mysql => {
                self.mariadb()?.port().ok_or_else(|| anyhow::anyhow!("MariaDB has no port"))
            }
        }
    }

    /// Main processes of all servers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let postgres = self.postgres.as_ref().map(Postgres::pid);
        postgres.into_iter().chain(self.mariadb.as_ref().map(Mysqld::pid)).collect()
    }

    /// Their names and versions.
    pub(crate) fn versions(&self) -> Vec<String> {
        let postgres = self.postgres.as_ref().map(|server| format!("PostgreSQL {}", server.version()));
        let mariadb = self.mariadb.as_ref().map(|server| format!("MariaDB {}", server.version()));
        postgres.into_iter().chain(mariadb).collect()
    }

    /// Starts a load, over TCP on this machine.
    pub(crate) fn load(&mut self, workload: Workload, intensity: Intensity) -> Result<Load> {
        let Intensity { clients, seconds, rate } = intensity;
        let transport = Transport::Tcp;
        let amount = Amount::Seconds(seconds);
        let rate = rate.map(|rate| rate / workload.statements());
        let pgbench = |script, protocol| {
            let database = DATABASE.to_owned();
            Pgbench { database, transport, script, protocol, clients, amount, rate }
        };
        let pgbench = match workload {
            Workload::SelectSimple => pgbench(Script::SelectOnly, Protocol::Simple),
            Workload::SelectExtended => pgbench(Script::SelectOnly, Protocol::Extended),
            Workload::SelectPrepared => pgbench(Script::SelectOnly, Protocol::Prepared),
            Workload::TpcbPrepared => pgbench(Script::TpcB, Protocol::Prepared),
            Workload::SysbenchPrepared | Workload::SysbenchText => {
                let prepared = workload == Workload::SysbenchPrepared;
                return Sysbench { transport, prepared, clients, amount, rate }.start(self.mariadb()?);
            }
        };
        pgbench.start(self.postgres()?)
    }

    /// Runs a load to its end.
    pub(crate) fn run(&mut self, workload: Workload, intensity: Intensity) -> Result<Report> {
        self.load(workload, intensity)?.finish()
    }
}

/// PostgreSQL with pgbench's tables. Without autovacuum: it would hit some of the rounds and not others.
pub(crate) fn start_postgres(clients: u32, settings: Vec<(String, String)>) -> Result<Postgres> {
    let settings = with_base(clients, settings);
    let server = Postgres::start(PostgresOptions { settings, ..PostgresOptions::new(MAJOR) })?;
    Pgbench::initialise_scaled(&server, DATABASE, SCALE)?;
    Ok(server)
}

/// `settings` with what every server of a benchmark has.
pub(crate) fn with_base(clients: u32, settings: Vec<(String, String)>) -> Vec<(String, String)> {
    let connections = (clients + 20).to_string();
    let base = [("autovacuum", "off"), ("shared_buffers", "256MB"), ("max_connections", &connections)];
    base.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().chain(settings).collect()
}

fn start_mariadb(clients: u32, performance_schema: bool) -> Result<Mysqld> {
    let arguments = vec![format!("--max-connections={}", clients + 20)];
    let server = mariadb::start(&MysqldOptions { performance_schema, arguments, ..MysqldOptions::default() })?;
    Sysbench::initialise(&server)?;
    Ok(server)
}
