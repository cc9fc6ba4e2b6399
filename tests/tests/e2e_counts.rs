//! Guarantee: of every server, over every transport, in every protocol mode and with every capture strategy, each statement is counted exactly
//! as often as the load generator ran it and the server's own statistics saw it.
//!
//! Not proven here: connections older than the agent (e2e_sessions), TLS (e2e_tls), and loads that overflow the ring buffer (e2e_ring).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{
        Amount, Pgbench, Report, Sysbench,
        pgbench::{Protocol, Script},
    },
    oracle,
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
    status::InstanceStatus,
};

/// An agent, and what it had counted of one server before the next load.
struct Watch {
    agent: Agent,
    engine: Engine,
    last: InstanceStatus,
}

impl Watch {
    #[track_caller]
    fn start(strategy: &str, engine: Engine, pid: u32) -> Watch {
        let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
        agent.wait_visible(pid).unwrap();
        let last = agent.settled().unwrap().instance(pid).unwrap().clone();
        assert_eq!(last.wire.strategy, strategy, "{:?}", last.wire);
        Watch { agent, engine, last }
    }

    /// Compares a load that has just ended with what the agent counted meanwhile.
    #[track_caller]
    fn assert_counted(&mut self, what: &str, report: &Report) {
        let status = self.agent.settled().unwrap();
        let now = status.instance(self.last.pid).unwrap();
        let counted = now.since(&self.last);
        let comparison = report.compare(self.engine, &counted);
        let lost = &status.agent.losses;
        let shown = format!("{what}: {}\nlosses of the agent {lost:?}", now.table());
        assert!(comparison.differences.is_empty(), "{shown}\n{:#?}", comparison.differences);
        assert_eq!(now.errors - self.last.errors, report.refused, "{shown}");
        assert_eq!(now.losses, self.last.losses, "{shown}");
        // Every connection of the load is younger than the agent: nothing may be without a text.
        assert_eq!(counted.get("0000000000000000").copied().unwrap_or(0), 0, "{shown}");
        self.last = now.clone();
    }

    fn stop(self) {
        assert!(self.agent.stop().unwrap().success());
    }
}

fn postgres(major: u32, strategy: &str) {
    if !kernel_supports(strategy) {
        return;
    }
    let server = Postgres::start(PostgresOptions::new(major)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let mut watch = Watch::start(strategy, Engine::Postgresql, server.pid());
    for protocol in Protocol::ALL {
        for (transport, script) in [(Transport::Tcp, Script::SelectOnly), (Transport::Unix, Script::TpcB)] {
            let what = format!("PostgreSQL {major}, {strategy}, {protocol:?}, {transport:?}, {script:?}");
            oracle::reset_pg_stat_statements(&server).unwrap();
            let (database, amount) = ("bench".to_owned(), Amount::Seconds(1));
            let load = Pgbench { database, transport, script, protocol, clients: 4, amount, rate: None };
            let report = load.run(&server).unwrap();
            watch.assert_counted(&what, &report);
            let calls = oracle::pg_stat_statements(&server, "bench").unwrap();
            for (statement, executed) in &report.executed {
                if oracle::counts_executions(statement, protocol == Protocol::Prepared) {
                    assert_eq!(calls[&oracle::canonical(statement)].calls, *executed, "{what}: {statement}");
                }
            }
        }
    }
    watch.stop();
}

fn mysqld(server: &Mysqld, strategy: &str) {
    Sysbench::initialise(server).unwrap();
    let mut watch = Watch::start(strategy, server.engine(), server.pid());
    for prepared in [true, false] {
        for transport in [Transport::Tcp, Transport::Unix] {
            // performance_schema is exact for one connection only, see the oracle.
            for clients in [1, 4] {
                let what =
                    format!("{}, {strategy}, prepared {prepared}, {transport:?}, {clients} clients", server.engine());
                let mut client = server.client().unwrap();
                client.query("TRUNCATE performance_schema.events_statements_summary_by_digest").unwrap();
                let load = Sysbench { transport, prepared, clients, amount: Amount::Seconds(1), rate: None };
                let report = load.run(server).unwrap();
                watch.assert_counted(&what, &report);
                if clients == 1 && !(prepared && server.engine() == Engine::Mariadb) {
                    let calls = oracle::statement_digests(server).unwrap();
                    for (statement, executed) in &report.executed {
                        assert_eq!(calls[&oracle::canonical(statement)].calls, *executed, "{what}: {statement}");
                    }
                }
            }
        }
    }
    watch.stop();
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_15_boundary() {
    postgres(15, "boundary");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_15_socket() {
    postgres(15, "socket");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_17_boundary() {
    postgres(17, "boundary");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_17_socket() {
    postgres(17, "socket");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_18_boundary() {
    postgres(18, "boundary");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_18_socket() {
    postgres(18, "socket");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_boundary() {
    mysqld(&mariadb::start(&MysqldOptions::default()).unwrap(), "boundary");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_socket() {
    if kernel_supports("socket") {
        mysqld(&mariadb::start(&MysqldOptions::default()).unwrap(), "socket");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mysql_boundary() {
    if mysql::available() {
        mysqld(&mysql::start(&MysqldOptions::default()).unwrap(), "boundary");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mysql_socket() {
    if mysql::available() && kernel_supports("socket") {
        mysqld(&mysql::start(&MysqldOptions::default()).unwrap(), "socket");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_17_syscall() {
    postgres(17, "syscall");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_syscall() {
    mysqld(&mariadb::start(&MysqldOptions::default()).unwrap(), "syscall");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mysql_syscall() {
    if mysql::available() {
        mysqld(&mysql::start(&MysqldOptions::default()).unwrap(), "syscall");
    }
}
