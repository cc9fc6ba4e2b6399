//! Guarantee: a pooler is found as what it is, and each statement that passes through it is counted once on its client side and once on the
//! server behind it; its own connections to that server are nobody's sessions.
//!
//! Not proven here: ProxySQL, which Debian does not have (its identification has a unit test); encrypted sessions of a pooler, which are not visible.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use querylens::model::Engine;
use querylens_tests::{
    agent::{Agent, AgentOptions, kernel_supports},
    load::{
        Amount, Pgbench,
        pgbench::{Protocol, Script},
    },
    servers::{Pgbouncer, Postgres, PostgresOptions, Transport},
};
use serde_json::Value;

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn pgbouncer_and_the_server_behind_it_count_each_statement_once() {
    let server = Postgres::start(PostgresOptions::new(15)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let sides = [(Transport::Tcp, Transport::Unix), (Transport::Unix, Transport::Tcp)];
    for strategy in ["socket", "syscall"].into_iter().filter(|strategy| kernel_supports(strategy)) {
        for (front, back) in sides {
            let pooler = Pgbouncer::start(&server, back).unwrap();
            let agent = Agent::start(AgentOptions::capture(strategy)).unwrap();
            agent.wait_visible(server.pid()).unwrap();
            agent.wait_visible(pooler.pid()).unwrap();
            for protocol in Protocol::ALL {
                let what = format!("{strategy}, {front:?} to the pooler, {back:?} to the server, {protocol:?}");
                let before = agent.settled().unwrap();
                let (database, amount) = ("bench".to_owned(), Amount::Transactions(300));
                let load = Pgbench {
                    database,
                    transport: front,
                    script: Script::TpcB,
                    protocol,
                    clients: 4,
                    amount,
                    rate: None,
                };
                let report = load.start_through(&pooler, &server).unwrap().finish().unwrap();
                let after = agent.settled().unwrap();
                for pid in [pooler.pid(), server.pid()] {
                    let (before, after) = (before.instance(pid).unwrap(), after.instance(pid).unwrap());
                    let comparison = report.compare(Engine::Postgresql, &after.since(before));
                    assert!(
                        comparison.differences.is_empty(),
                        "{what}: {:?}\n{}",
                        comparison.differences,
                        after.table()
                    );
                    assert_eq!(after.losses, before.losses, "{what}");
                }
                assert_eq!(after.instance(pooler.pid()).unwrap().pooler.as_deref(), Some("pgbouncer"));
                assert_eq!(after.instance(server.pid()).unwrap().pooler, None);
            }
            assert!(agent.stop().unwrap().success());
        }
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn discover_shows_a_pooler_and_why_its_boundary_is_out_of_reach() {
    let server = Postgres::start(PostgresOptions::new(15)).unwrap();
    let pooler = Pgbouncer::start(&server, Transport::Unix).unwrap();
    let (_, out, err) = Agent::command(&["discover", "--json"]).unwrap();
    let found: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out} {err}"));
    let one = found.iter().find(|one| one["pid"] == pooler.pid()).unwrap_or_else(|| panic!("{found:#?}"));
    assert_eq!((&one["engine"], &one["pooler"]), (&"postgresql".into(), &"pgbouncer".into()), "{one:#}");
    assert!(one["version"].as_str().is_some_and(|version| version.starts_with("1.")), "{one:#}");
    let socket = format!("unix:{}/.s.PGSQL.{}", pooler.socket_dir().display(), pooler.port());
    assert_eq!(one["listen"], serde_json::json!([format!("tcp:127.0.0.1:{}", pooler.port()), socket]));

    let agent = Agent::start(AgentOptions::capture("boundary")).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let status = agent.settled().unwrap();
    let wire = &status.instance(pooler.pid()).unwrap().wire;
    assert_ne!(wire.state, "visible");
    assert!(wire.reason.contains("poolers have no such functions"), "{wire:?}");
    assert!(agent.stop().unwrap().success());
}
