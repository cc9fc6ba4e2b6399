//! Guarantee: every server is found by what it is, not by its name or port; what only looks like one is not; a server is known within a
//! second of accepting connections and forgotten within a second of its end.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use querylens_tests::{
    agent::{Agent, AgentOptions},
    process::{Launch, Network, Process, wait_for},
    servers::{MysqldOptions, Postgres, PostgresOptions, mariadb, mysql},
    status::Status,
};
use serde_json::Value;

/// What `discover --json` finds; its exit code is 0 or 1, since other servers of this machine may be out of sight.
fn discover() -> Vec<Value> {
    let (status, out, err) = Agent::command(&["discover", "--json"]).unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{status}: {out}\n{err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"))
}

#[track_caller]
fn assert_found(found: &[Value], pid: u32, engine: &str, version: &str, listen: &[String]) -> Value {
    let one = found.iter().find(|one| one["pid"] == pid).unwrap_or_else(|| panic!("{pid} is not in {found:#?}"));
    assert_eq!(one["engine"], engine, "{one:#}");
    // Distributions append to it.
    let known = one["version"].as_str().unwrap_or_default();
    let number = version.split([' ', '-']).next().unwrap();
    assert!(known.starts_with(number), "version {known}, the server says {version}");
    let mut places: Vec<&str> = one["listen"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    places.sort_unstable();
    assert_eq!(places, listen, "{one:#}");
    assert_eq!(one["wire"]["state"], "visible", "{one:#}");
    one.clone()
}

fn unix(server: &Postgres) -> String {
    format!("unix:{}/.s.PGSQL.{}", server.socket_dir().display(), server.port())
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_by_what_it_is() {
    let odd_port = Postgres::start(PostgresOptions::new(15)).unwrap();
    let only_unix = Postgres::start(PostgresOptions { tcp: false, ..PostgresOptions::new(17) }).unwrap();
    let executable = Some("elephant".to_owned());
    let renamed = Postgres::start(PostgresOptions { executable, ..PostgresOptions::new(18) }).unwrap();
    let own_network = Postgres::start(PostgresOptions { network: Network::Own, ..PostgresOptions::new(17) }).unwrap();
    let found = discover();
    for server in [&odd_port, &renamed, &own_network] {
        let listen = [format!("tcp:127.0.0.1:{}", server.port()), unix(server)];
        let one = assert_found(&found, server.pid(), "postgresql", server.version(), &listen);
        assert_eq!(one["data_dir"], server.data_dir().to_str().unwrap());
    }
    assert_found(&found, only_unix.pid(), "postgresql", only_unix.version(), &[unix(&only_unix)]);
    let pids: Vec<u32> = [&odd_port, &only_unix, &renamed, &own_network].map(Postgres::pid).to_vec();
    // Backends and helpers of a server are no servers.
    let ours = |one: &&Value| parent(one["pid"].as_u64().unwrap()).is_some_and(|parent| pids.contains(&parent));
    assert_eq!(found.iter().find(ours), None);
}

fn parent(pid: u64) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split(' ').nth(2)?.parse().ok()
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_and_mysql_are_told_apart() {
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    let socket = format!("unix:{}", server.socket().display());
    let listen = [format!("tcp:127.0.0.1:{}", server.port().unwrap()), socket];
    assert_found(&discover(), server.pid(), "mariadb", server.version(), &listen);
    if mysql::available() {
        let server = mysql::start(&MysqldOptions::default()).unwrap();
        // As the server sees it, within its root directory.
        let inside = Path::new("/").join(server.socket().strip_prefix(format!("/proc/{}/root", server.pid())).unwrap());
        let listen = [format!("tcp:127.0.0.1:{}", server.port().unwrap()), format!("unix:{}", inside.display())];
        let one = assert_found(&discover(), server.pid(), "mysql", server.version(), &listen);
        assert_eq!(one["container"]["runtime"], "chroot", "{one:#}");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn what_only_looks_like_a_server_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut decoys: Vec<Process> = Vec::new();
    for name in ["postgres", "mysqld", "mariadbd"] {
        let program = dir.path().join(name);
        fs::copy("/bin/sleep", &program).unwrap();
        decoys.push(Launch::new(program).arg("60").start().unwrap());
    }
    // A client is none either, and nor is somebody who listens where a server might.
    decoys.push(Launch::new("sleep").arg("60").start().unwrap());
    let listener = TcpListener::bind(("127.0.0.1", 5432)).or_else(|_| TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let found = discover();
    let own: Vec<u32> = decoys.iter().map(Process::pid).chain([std::process::id()]).collect();
    let wrong = found.iter().find(|one| own.iter().any(|pid| one["pid"] == *pid));
    assert_eq!(wrong, None);
    drop(listener);
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_server_is_known_within_a_second_and_forgotten_within_a_second() {
    const LIMIT: Duration = Duration::from_secs(1);
    let agent = Agent::start(AgentOptions::capture("auto")).unwrap();
    let time_until = |what: &str, pid: u32, there: bool| {
        let start = Instant::now();
        // One that has ended is still shown for a while, as such, so that its last counts reach their readers.
        let is_there = |status: Status| status.instance(pid).is_some_and(|instance| instance.wire.state != "gone");
        let changed = || Ok((is_there(agent.status()?) == there).then_some(()));
        let changed = wait_for(what, Duration::from_secs(10), changed);
        assert!(changed.is_ok(), "{changed:?}\n{:#?}\n{}", agent.status(), agent.stderr());
        start.elapsed()
    };
    let mut server = Postgres::start(PostgresOptions::new(17)).unwrap();
    let found = time_until("the agent to find the server", server.pid(), true);
    assert!(found < LIMIT, "found {found:?} after it accepted connections");
    server.stop().unwrap();
    let forgotten = time_until("the agent to forget the server", server.pid(), false);
    assert!(forgotten < LIMIT, "forgotten {forgotten:?} after its end");

    let mut server = mariadb::start(&MysqldOptions::default()).unwrap();
    let found = time_until("the agent to find the server", server.pid(), true);
    assert!(found < LIMIT, "found {found:?} after it accepted connections");
    server.stop().unwrap();
    let forgotten = time_until("the agent to forget the server", server.pid(), false);
    assert!(forgotten < LIMIT, "forgotten {forgotten:?} after its end");
    assert!(agent.stop().unwrap().success());
}
