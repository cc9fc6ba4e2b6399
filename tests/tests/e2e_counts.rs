//! Guarantee: of every server, over every transport, in every protocol mode and with every capture strategy, each statement is counted exactly
//! as often as the load generator ran it and the server's own statistics saw it.
//!
//! Not proven here: connections older than the agent, TLS, and loads that overflow the ring buffer.
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

/// Runs a load and compares it with what the agent counted meanwhile; returns the report for further comparisons.
#[track_caller]
fn assert_counted(agent: &Agent, engine: Engine, pid: u32, what: &str, run: impl FnOnce() -> Report) -> Report {
    let before = agent.settled().unwrap().instance(pid).unwrap().clone();
    let report = run();
    let status = agent.settled().unwrap();
    let after: &InstanceStatus = status.instance(pid).unwrap();
    let counted = after.since(&before);
    let comparison = report.compare(engine, &counted);
    assert!(comparison.differences.is_empty(), "{what}: {:#?}\n{}", comparison.differences, after.table());
    assert_eq!(after.losses, before.losses, "{what}: something was lost");
    // Every connection of the load is younger than the agent: nothing may be without a text.
    assert_eq!(counted.get("0000000000000000").copied().unwrap_or(0), 0, "{what}: {}", after.table());
    report
}

fn postgres(major: u32, strategy: &str) {
    if !kernel_supports(strategy) {
        return;
    }
    let server = Postgres::start(PostgresOptions::new(major)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
    let status = agent.wait_visible(server.pid()).unwrap();
    assert_eq!(status.instance(server.pid()).unwrap().wire.strategy, strategy);
    for protocol in Protocol::ALL {
        for transport in [Transport::Tcp, Transport::Unix] {
            for script in [Script::SelectOnly, Script::TpcB] {
                let what = format!("PostgreSQL {major}, {strategy}, {protocol:?}, {transport:?}, {script:?}");
                oracle::reset_pg_stat_statements(&server).unwrap();
                let (database, amount) = ("bench".to_owned(), Amount::Seconds(1));
                let load = Pgbench { database, transport, script, protocol, clients: 4, amount, rate: None };
                let pid = server.pid();
                let report = assert_counted(&agent, Engine::Postgresql, pid, &what, || load.run(&server).unwrap());
                let calls = oracle::pg_stat_statements(&server, "bench").unwrap();
                for (statement, executed) in &report.executed {
                    if oracle::counts_executions(statement, protocol == Protocol::Prepared) {
                        assert_eq!(calls[&oracle::canonical(statement)].calls, *executed, "{what}: {statement}");
                    }
                }
            }
        }
    }
    assert!(agent.stop().unwrap().success());
}

fn mysqld(server: &Mysqld, strategy: &str) {
    Sysbench::initialise(server).unwrap();
    let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
    let status = agent.wait_visible(server.pid()).unwrap();
    assert_eq!(status.instance(server.pid()).unwrap().wire.strategy, strategy);
    for prepared in [true, false] {
        for transport in [Transport::Tcp, Transport::Unix] {
            // performance_schema is exact for one connection only, see the oracle.
            for clients in [1, 4] {
                let what =
                    format!("{}, {strategy}, prepared {prepared}, {transport:?}, {clients} clients", server.engine());
                let mut client = server.client().unwrap();
                client.query("TRUNCATE performance_schema.events_statements_summary_by_digest").unwrap();
                let load = Sysbench { transport, prepared, clients, amount: Amount::Seconds(1) };
                let run = || load.run(server).unwrap();
                let report = assert_counted(&agent, server.engine(), server.pid(), &what, run);
                if clients == 1 && !(prepared && server.engine() == Engine::Mariadb) {
                    let calls = oracle::statement_digests(server).unwrap();
                    for (statement, executed) in &report.executed {
                        assert_eq!(calls[&oracle::canonical(statement)].calls, *executed, "{what}: {statement}");
                    }
                }
            }
        }
    }
    assert!(agent.stop().unwrap().success());
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
