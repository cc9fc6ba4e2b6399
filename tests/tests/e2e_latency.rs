//! Guarantee: what the agent calls the duration of a statement lies between what the server measures inside and what the client measures
//! outside.
//!
//! Not proven here: the shape of the distribution; that is a matter of the histogram's unit tests.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{
        Amount, Pgbench, Sysbench, fingerprint,
        pgbench::{Protocol, Script},
    },
    oracle,
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
};

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[track_caller]
fn assert_between(what: &str, low: f64, value: f64, high: f64) {
    assert!((low..=high).contains(&value), "{what}: {value:.1} µs is not between {low:.1} and {high:.1} µs");
}

fn postgres(strategy: &str) {
    if !kernel_supports(strategy) {
        return;
    }
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    for transport in [Transport::Tcp, Transport::Unix] {
        let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        oracle::reset_pg_stat_statements(&server).unwrap();
        // One client and no --rate: pgbench would count the time by which it is behind its schedule as latency.
        let (script, protocol) = (Script::SelectOnly, Protocol::Prepared);
        let amount = Amount::Seconds(3);
        let load = Pgbench { database: "bench".into(), transport, script, protocol, clients: 1, amount, rate: None };
        let report = load.run(&server).unwrap();
        let status = agent.settled().unwrap();
        let statement = report.executed.keys().next().unwrap();
        let own = fingerprint(Engine::Postgresql, statement);
        let instance = status.instance(server.pid()).unwrap();
        let row = instance.statements.iter().find(|row| row.fingerprint == own).unwrap();
        let inside = oracle::pg_stat_statements(&server, "bench").unwrap()[&oracle::canonical(statement)];
        let outside = micros(report.transaction_mean);
        let what = format!("{strategy}, {transport:?}");
        // The executor alone is part of what the agent times; the way of the bytes to and from the client is not.
        assert_between(&format!("{what}: mean"), micros(inside.mean), row.mean_us, outside);
        // The median of a distribution with a long tail to the right lies below its mean, here and at the client.
        assert_between(&format!("{what}: median"), micros(inside.min), row.p50_us, outside);
        assert!(row.p50_us <= row.p99_us && row.p99_us <= row.max_us * 1.001, "{what}: {row:?}");
        assert!(agent.stop().unwrap().success());
    }
}

fn mysqld(server: &Mysqld, strategy: &str) {
    if !kernel_supports(strategy) {
        return;
    }
    Sysbench::initialise(server).unwrap();
    let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let mut client = server.client().unwrap();
    client.query("TRUNCATE performance_schema.events_statements_summary_by_digest").unwrap();
    let load =
        Sysbench { transport: Transport::Unix, prepared: false, clients: 1, amount: Amount::Seconds(3), rate: None };
    let report = load.run(server).unwrap();
    let status = agent.settled().unwrap();
    let instance = status.instance(server.pid()).unwrap();
    let inside = oracle::statement_digests(server).unwrap();
    let (mut agent_sum, mut server_sum) = (0.0, 0.0);
    for (statement, executed) in &report.executed {
        let own = fingerprint(server.engine(), statement);
        let row = instance.statements.iter().find(|row| row.fingerprint == own).unwrap();
        agent_sum += row.mean_us * *executed as f64;
        server_sum += micros(inside[&oracle::canonical(statement)].mean) * *executed as f64;
    }
    let client_sum = micros(report.transaction_mean) * report.transactions as f64;
    // The server's own time also covers the write of the answer, which wakes the client; the agent's ends where that write begins.
    assert_between(&format!("{}, {strategy}", server.engine()), server_sum * 0.5, agent_sum, client_sum);
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_boundary() {
    postgres("boundary");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_socket() {
    postgres("socket");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_both() {
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    mysqld(&server, "boundary");
    drop(server);
    mysqld(&mariadb::start(&MysqldOptions::default()).unwrap(), "socket");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mysql_both() {
    if mysql::available() {
        let server = mysql::start(&MysqldOptions::default()).unwrap();
        mysqld(&server, "boundary");
        drop(server);
        mysqld(&mysql::start(&MysqldOptions::default()).unwrap(), "socket");
    }
}
