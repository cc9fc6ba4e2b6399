//! Guarantee: sessions that are not simple to see are seen all the same - encrypted ones at the server's own boundary, and those that are older
//! than the agent under the names of their user and database, compressed ones as if they were not; that transactions are told with their end and
//! the time in which they waited for their client; and that copied rows are counted.
//!
//! Not proven here: TLS of MariaDB and MySQL, see e2e_tls.rs; compressed results of more than 1 KiB; texts of statements that were prepared before the agent started.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, thread::sleep, time::Duration};

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{
        Amount, Mysqlslap, Pgbench,
        mysqlslap::Wrapping,
        pgbench::{Protocol, Script},
    },
    process::Launch,
    servers::{MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
};

fn load(script: Script, protocol: Protocol, transport: Transport, amount: Amount) -> Pgbench {
    Pgbench { database: "bench".into(), transport, script, protocol, clients: 2, amount, rate: None }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn encrypted_sessions_are_seen_at_the_servers_boundary() {
    if !kernel_supports("boundary") {
        return;
    }
    for major in [15, 17] {
        let server = Postgres::start(PostgresOptions { tls: true, ..PostgresOptions::new(major) }).unwrap();
        Pgbench::initialise(&server, "bench").unwrap();
        let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        // libpq prefers TLS where the server offers it.
        let load = load(Script::TpcB, Protocol::Simple, Transport::Tcp, Amount::Transactions(300));
        load.run(&server).unwrap();
        let before = agent.settled().unwrap().instance(server.pid()).unwrap().clone();
        assert_eq!(before.wire.strategy, "boundary", "PostgreSQL {major}: {:?} {:?}", before.wire, before.losses);
        assert!(before.losses["encrypted"] > 0, "PostgreSQL {major}: {:?}", before.losses);

        let report = load.run(&server).unwrap();
        let status = agent.settled().unwrap();
        let instance = status.instance(server.pid()).unwrap();
        let counted = instance.since(&before);
        let comparison = report.compare(Engine::Postgresql, &counted);
        assert!(
            comparison.differences.is_empty(),
            "PostgreSQL {major}: {:?}\n{}",
            comparison.differences,
            instance.table()
        );
        assert!(agent.stop().unwrap().success());
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn sessions_older_than_the_agent_have_names() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    for (protocol, text) in [(Protocol::Simple, "pgbench_accounts"), (Protocol::Prepared, "<unknown>")] {
        let running = load(Script::SelectOnly, protocol, Transport::Unix, Amount::Seconds(6)).start(&server).unwrap();
        sleep(Duration::from_secs(1));
        let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        let executed = running.finish().unwrap().total();
        let status = agent.settled().unwrap();
        let instance = status.instance(server.pid()).unwrap();
        let rows: Vec<_> = instance.statements.iter().filter(|row| row.text.contains(text)).collect();
        let counted: u64 = rows.iter().map(|row| row.executions).sum();
        assert!(counted > 0 && counted < executed, "{protocol:?}: {counted} of {executed}\n{}", instance.table());
        for row in rows {
            assert_eq!(row.database.as_deref(), Some("bench"), "{protocol:?}: {row:?}");
            assert!(row.user.is_some(), "{protocol:?}: {row:?}");
        }
        assert!(agent.stop().unwrap().success());
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn compressed_sessions_are_counted() {
    let mut servers = vec![mariadb::start(&MysqldOptions::default()).unwrap()];
    if mysql::available() {
        servers.push(mysql::start(&MysqldOptions::default()).unwrap());
    }
    for server in servers {
        let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
        let before = agent.wait_visible(server.pid()).unwrap().instance(server.pid()).unwrap().clone();
        let statement = format!("SELECT REPEAT('x', 100), {}", "1 + ".repeat(50) + "1");
        let load = Mysqlslap {
            transport: Transport::Tcp,
            wrapping: Wrapping::Compression,
            statement,
            clients: 4,
            executions: 500,
        };
        let report = load.run(&server).unwrap();
        let status = agent.settled().unwrap();
        let instance = status.instance(server.pid()).unwrap();
        let comparison = report.compare(server.engine(), &instance.since(&before));
        assert!(comparison.differences.is_empty(), "{:?}\n{}", comparison.differences, instance.table());
        assert_eq!(instance.losses, before.losses, "{}", instance.table());
        assert!(agent.stop().unwrap().success());
    }
}

/// Rows that only the tag of a command tells.
#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn copied_rows_are_counted() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let port = server.port().to_string();
    let rows = tempfile::NamedTempFile::new().unwrap();
    fs::write(rows.path(), "7\n".repeat(300)).unwrap();
    let copy_in = format!("\\copy copied from '{}'", rows.path().display());
    let made = "CREATE TABLE copied AS SELECT generate_series(1, 20) AS id";
    let copy_out = "COPY (SELECT generate_series(1, 1000)) TO STDOUT";
    for command in [made, &copy_in, copy_out, copy_out] {
        let psql = Launch::new(server.program("psql")).arg("-X").arg("-h").arg(server.socket_dir());
        psql.args(["-p", &port, "-U", "postgres", "-c", command]).run(Duration::from_secs(10)).unwrap();
    }
    let status = agent.settled().unwrap();
    let instance = status.instance(server.pid()).unwrap();
    let told = |start: &str| {
        let rows = instance.statements.iter().filter(|row| row.text.starts_with(start));
        rows.fold((0, 0, 0), |sum, row| (sum.0 + row.executions, sum.1 + row.rows_sent, sum.2 + row.rows_affected))
    };
    assert_eq!(told("create table copied"), (1, 0, 20), "{}", instance.table());
    assert_eq!(told("copy copied"), (1, 0, 300), "{}", instance.table());
    assert_eq!(told("copy(select"), (2, 2000, 0), "{}", instance.table());
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn transactions_are_told_with_their_end_and_idle_time() {
    const WAIT: Duration = Duration::from_millis(300);
    let postgres = Postgres::start(PostgresOptions::new(17)).unwrap();
    let mariadb = mariadb::start(&MysqldOptions::default()).unwrap();
    let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
    for pid in [postgres.pid(), mariadb.pid()] {
        agent.wait_visible(pid).unwrap();
        // One is committed, one rolled back, one failed, and one is left open when the connection ends.
        let mut queries: Box<dyn FnMut(&str)> = if pid == postgres.pid() {
            let mut client = postgres.client("postgres").unwrap();
            Box::new(move |sql| drop(client.query(sql)))
        } else {
            let mut client = mariadb.client().unwrap();
            Box::new(move |sql| drop(client.query(sql)))
        };
        for sql in
            ["BEGIN", "SELECT 1", "", "COMMIT", "BEGIN", "ROLLBACK", "BEGIN", "SELECT no_such", "ROLLBACK", "BEGIN"]
        {
            if sql.is_empty() { sleep(WAIT) } else { queries(sql) }
        }
        drop(queries);
        let seen = agent.settled().unwrap().instance(pid).unwrap().transactions.clone();
        assert_eq!((seen.committed, seen.rolled_back), (1, 3), "{pid}: {seen:?}");
        let idle = Duration::from_secs_f64(seen.idle_ms / 1e3);
        assert!(idle >= WAIT && idle < 10 * WAIT, "{pid}: {seen:?}");
    }
    assert!(agent.stop().unwrap().success());
}
