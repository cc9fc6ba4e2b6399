//! Scenario: the ring buffer has one page, 64 clients run at full speed, and most of what the kernel would show to the agent is lost.
//!
//! Guarantee: every execution is counted all the same, statement by statement; those of a text that was lost itself, because it was prepared in that
//! moment and never again, as `<unknown>`. What is lost is said, by cause.
//!
//! Not proven here: statements that the kernel leaves to userspace (`agent_ebpf::blind`); those are lost with their records.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions},
    load::{
        Amount, Pgbench, Report, Sysbench,
        pgbench::{Protocol, Script},
    },
    process::wait_for,
    servers::{MysqldOptions, Postgres, PostgresOptions, Transport, mariadb},
    status::InstanceStatus,
};

const CLIENTS: u32 = 64;

/// An agent with the smallest ring that the kernel takes.
fn agent() -> Agent {
    let configuration = Some("capture:\n  ring_bytes: 4096\n".to_owned());
    Agent::start(AgentOptions { configuration, ..AgentOptions::default() }).unwrap()
}

/// Waits until all that `report` tells of was counted since `last`: a count waits for its text, and texts come slowly through so small a ring.
fn assert_counted(agent: &Agent, engine: Engine, last: &mut InstanceStatus, what: &str, report: &Report) {
    const UNKNOWN: &str = "0000000000000000";
    let mut seen = None;
    let counted = wait_for("every execution to be counted", Duration::from_secs(20), || {
        let now = agent.status()?.instance(last.pid).unwrap().clone();
        let since = now.since(last);
        let comparison = report.compare(engine, &since);
        let unknown = since.get(UNKNOWN).copied().unwrap_or(0);
        let more = comparison.differences.iter().any(|difference| difference.counted > difference.executed);
        let exact = comparison.counted + unknown == report.total() && !more;
        seen = Some((comparison, unknown));
        Ok(exact.then_some(now))
    });
    *last = counted.unwrap_or_else(|error| panic!("{what}: {error:#}\n{seen:#?}"));
}

fn assert_lost_and_end(agent: Agent) {
    let lost = agent.status().unwrap().agent.losses["ring_full_data"];
    assert!(lost > 0, "the ring was never full: the test shows nothing");
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_is_counted_exactly() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let agent = agent();
    let mut last = agent.wait_visible(server.pid()).unwrap().instance(server.pid()).unwrap().clone();
    for protocol in Protocol::ALL {
        for script in [Script::SelectOnly, Script::TpcB] {
            let (database, transport, amount) = ("bench".to_owned(), Transport::Tcp, Amount::Seconds(2));
            let load = Pgbench { database, transport, script, protocol, clients: CLIENTS, amount, rate: None };
            let report = load.run(&server).unwrap();
            assert_counted(&agent, Engine::Postgresql, &mut last, &format!("{protocol:?}, {script:?}"), &report);
        }
    }
    assert_lost_and_end(agent);
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_is_counted_exactly() {
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    Sysbench::initialise(&server).unwrap();
    let agent = agent();
    let mut last = agent.wait_visible(server.pid()).unwrap().instance(server.pid()).unwrap().clone();
    for prepared in [true, false] {
        let (transport, amount) = (Transport::Tcp, Amount::Seconds(2));
        let load = Sysbench { transport, prepared, clients: CLIENTS, amount, rate: None };
        let report = load.run(&server).unwrap();
        assert_counted(&agent, Engine::Mariadb, &mut last, &format!("prepared {prepared}"), &report);
    }
    assert_lost_and_end(agent);
}
