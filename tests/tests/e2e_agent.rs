//! Guarantee: however the agent ends, databases and their clients do not notice, and nothing of it is left; without the privileges it needs
//! it says which.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    bpf, http,
    load::{
        Amount, Load, Pgbench, Sysbench,
        pgbench::{Protocol, Script},
    },
    process::{User, sleep},
    servers::{MysqldOptions, Postgres, PostgresOptions, Transport, free_port, mariadb},
};

fn select_only(seconds: u32) -> Pgbench {
    let (database, amount) = ("bench".to_owned(), Amount::Seconds(seconds));
    let (script, protocol) = (Script::SelectOnly, Protocol::Prepared);
    Pgbench { database, transport: Transport::Tcp, script, protocol, clients: 4, amount, rate: None }
}

/// Starts the agent, puts load on the server, kills the agent in the middle; the load must end as if nothing had been.
fn kill_under_load(strategy: &str, pid: u32, start: impl FnOnce() -> Load) {
    let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
    agent.wait_visible(pid).unwrap();
    assert!(
        bpf::objects(agent.pid()) > 0,
        "the agent holds no eBPF object, so the test could not see one that is left"
    );
    let load = start();
    sleep(Duration::from_secs(1)).unwrap();
    assert!(agent.status().unwrap().instance(pid).unwrap().executions > 0, "{}", agent.stderr());
    agent.kill().unwrap();
    let report = load.finish().unwrap();
    assert!(report.transactions > 0);
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_does_not_notice_a_killed_agent() {
    for strategy in ["boundary", "socket"].into_iter().filter(|strategy| kernel_supports(strategy)) {
        let server = Postgres::start(PostgresOptions::new(17)).unwrap();
        Pgbench::initialise(&server, "bench").unwrap();
        let log = server.log().len();
        kill_under_load(strategy, server.pid(), || select_only(3).start(&server).unwrap());
        let new = server.log().split_off(log);
        for sign in ["ERROR", "FATAL", "PANIC", "terminated", "lost"] {
            assert!(!new.contains(sign), "{strategy}: {new}");
        }
        // The next agent starts on clean ground and counts exactly again.
        let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        let report = select_only(1).run(&server).unwrap();
        let status = agent.settled().unwrap();
        let instance = status.instance(server.pid()).unwrap();
        let comparison = report.compare(Engine::Postgresql, &instance.by_fingerprint());
        assert!(comparison.differences.is_empty(), "{strategy}: {comparison:?}\n{}", instance.table());
        assert!(agent.stop().unwrap().success());
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_does_not_notice_a_killed_agent() {
    for strategy in ["boundary", "socket"].into_iter().filter(|strategy| kernel_supports(strategy)) {
        let server = mariadb::start(&MysqldOptions::default()).unwrap();
        Sysbench::initialise(&server).unwrap();
        let log = server.log().len();
        let (transport, amount) = (Transport::Tcp, Amount::Seconds(3));
        let load = Sysbench { transport, prepared: true, clients: 4, amount, rate: None };
        kill_under_load(strategy, server.pid(), || load.start(&server).unwrap());
        let new = server.log().split_off(log);
        assert!(!new.contains("[ERROR]") && !new.contains("got signal"), "{strategy}: {new}");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn an_agent_that_is_asked_to_end_leaves_nothing() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let load = select_only(3).start(&server).unwrap();
    sleep(Duration::from_secs(1)).unwrap();
    assert!(agent.stop().unwrap().success());
    load.finish().unwrap();
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn with_nothing_configured_it_serves_its_end_points() {
    let agent = Agent::start(AgentOptions::default()).unwrap();
    let status = agent.status().unwrap();
    assert!(!status.agent.version.is_empty() && status.agent.rss_mib > 1.0 && status.uptime_s >= 0.0, "{status:?}");
    let metrics = http::get(querylens_tests::agent::DEFAULT_ADDRESS, "/metrics").unwrap();
    assert_eq!(metrics.0, 200, "{}", metrics.1);
    assert!(metrics.1.contains("querylens"), "{}", metrics.1);
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn without_privileges_it_says_what_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("querylens");
    fs::copy(Agent::binary(), &binary).unwrap();
    let configuration = Some(String::new());
    let options =
        AgentOptions { binary: Some(binary), configuration, user: Some(User::NOBODY), ..AgentOptions::default() };
    let mut agent = Agent::spawn(options).unwrap();
    let status = agent.process().wait(Duration::from_secs(10)).unwrap();
    let said = agent.stderr();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("CAP_BPF") && said.contains("CAP_PERFMON"), "{said}");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_wrong_configuration_is_refused_with_its_place() {
    let port = free_port().unwrap();
    let configuration = Some(format!("captrue:\n  strategy: socket\n# {port}\n"));
    let mut agent = Agent::spawn(AgentOptions { configuration, ..AgentOptions::default() }).unwrap();
    let status = agent.process().wait(Duration::from_secs(10)).unwrap();
    let said = agent.stderr();
    assert_eq!(status.code(), Some(2), "{said}");
    // Its line, and the nearest known key.
    assert!(said.contains("querylens.yaml:3") && said.contains("capture"), "{said}");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn doctor_finds_everything_in_order_where_both_strategies_work() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    let (status, out, err) = Agent::command(&["doctor", "--json"]).unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    let servers = report["servers"].as_array().unwrap();
    let found = servers.iter().find(|found| found["pid"] == server.pid()).unwrap_or_else(|| panic!("{out}"));
    assert_eq!(found["wire"]["state"], "visible", "{out}");
    assert!(matches!(status.code(), Some(0 | 1)), "{status}: {out}");
    let capabilities = report["privileges"]["capabilities"].as_array().unwrap();
    assert!(capabilities.iter().any(|one| one["name"] == "CAP_BPF" && one["effective"] == true), "{out}");
}
