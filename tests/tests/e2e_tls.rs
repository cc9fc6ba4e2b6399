//! Guarantee: encrypted sessions of MariaDB and MySQL are counted exactly at the server's own I/O functions: from the start where that strategy
//! was chosen, else from the moment when the first of them made the agent change over.
//!
//! Not proven here: PostgreSQL, see e2e_sessions.rs; sessions that are older than the change.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{Mysqlslap, Report, mysqlslap::Wrapping},
    servers::{Mysqld, MysqldOptions, Transport, mariadb, mysql},
    status::InstanceStatus,
};

fn servers() -> Vec<Mysqld> {
    let options = MysqldOptions { tls: true, ..MysqldOptions::default() };
    let mut servers = vec![mariadb::start(&options).unwrap()];
    if mysql::available() {
        servers.push(mysql::start(&options).unwrap());
    }
    servers
}

/// A load, and proof that it was encrypted.
fn run(server: &Mysqld) -> Report {
    let cipher = |client: &mut querylens_tests::client::MysqlClient| {
        let sql = "SHOW GLOBAL STATUS LIKE 'Ssl_finished_accepts'";
        client.query(sql).unwrap()[0][1].clone().unwrap().parse::<u64>().unwrap()
    };
    let mut client = server.client().unwrap();
    let before = cipher(&mut client);
    let statement = "SELECT 'some text', COUNT(*) FROM information_schema.schemata".to_owned();
    let load = Mysqlslap { transport: Transport::Tcp, wrapping: Wrapping::Tls, statement, clients: 4, executions: 500 };
    let report = load.run(server).unwrap();
    assert!(cipher(&mut client) >= before + 4, "the load was not encrypted");
    report
}

#[track_caller]
fn assert_counted(server: &Mysqld, agent: &Agent, before: &InstanceStatus, report: &Report) {
    let status = agent.settled().unwrap();
    let now = status.instance(server.pid()).unwrap();
    let comparison = report.compare(server.engine(), &now.since(before));
    assert!(comparison.differences.is_empty(), "{:?}\n{}", comparison.differences, now.table());
    assert_eq!(now.losses.get("desynchronised"), before.losses.get("desynchronised"), "{}", now.table());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn encrypted_sessions_make_the_agent_change_to_the_boundary() {
    for server in servers() {
        let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        run(&server);
        let before = agent.settled().unwrap().instance(server.pid()).unwrap().clone();
        assert_eq!(before.wire.strategy, "boundary", "{:?}: {:?} {:?}", server.engine(), before.wire, before.losses);
        assert!(before.losses["encrypted"] > 0, "{:?}: {:?}", server.engine(), before.losses);
        let report = run(&server);
        assert_counted(&server, &agent, &before, &report);
        assert!(agent.stop().unwrap().success());
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn encrypted_sessions_are_counted_at_the_boundary_from_the_start() {
    if !kernel_supports("boundary") {
        return;
    }
    for server in servers() {
        let agent = Agent::start(AgentOptions::capture("boundary")).unwrap();
        let before = agent.wait_visible(server.pid()).unwrap().instance(server.pid()).unwrap().clone();
        let report = run(&server);
        assert_counted(&server, &agent, &before, &report);
        assert!(agent.stop().unwrap().success());
    }
}
