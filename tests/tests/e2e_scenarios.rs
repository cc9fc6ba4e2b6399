//! Guarantee: what goes wrong in a database is told as what it is, within two seconds: the right class of wait, the right table, the right standby.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use querylens_tests::{
    agent::{Agent, AgentOptions},
    client::PostgresClient,
    metrics,
    process::{Launch, wait_for},
    servers::{Postgres, PostgresOptions},
    status::InstanceStatus,
};
use serde_json::Value;

/// In which each scenario has to be told.
const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);
/// Tables are looked at as often as everything else, so that the limit holds for them too; that may cost more than it usually may.
const OFTEN: &str = "collect:\n  activity_interval: 500ms\n  statements_interval: 500ms\n  server_interval: 500ms\n  tables_interval: 500ms\n  max_cpu_percent: 100\n";

/// A server and an agent that has looked at everything once.
fn scene(settings: &[(&str, &str)], prepare: &str) -> (Postgres, Agent) {
    let mut options = PostgresOptions::new(17);
    options.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let server = Postgres::start(options).unwrap();
    let mut client = server.client("postgres").unwrap();
    client.query("CREATE EXTENSION pg_stat_statements").unwrap();
    client.query(prepare).unwrap();
    let configuration = Some(OFTEN.to_owned());
    let agent = Agent::start(AgentOptions { configuration, ..AgentOptions::default() }).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    for question in ["activity", "statements", "tables", "replication"] {
        told(&agent, server.pid(), "a first look", PATIENCE, |instance| {
            let questions = instance.collect["questions"].as_array()?;
            questions.iter().any(|one| one["name"] == question && one["last"] == "answered").then_some(())
        });
    }
    (server, agent)
}

/// What the agent's status holds, once it does.
#[track_caller]
fn told<T>(agent: &Agent, pid: u32, what: &str, patience: Duration, holds: impl Fn(&InstanceStatus) -> Option<T>) -> T {
    let mut last = None;
    let found = wait_for(what, patience, || {
        last = agent.status()?.instance(pid).cloned();
        Ok(last.as_ref().and_then(&holds))
    });
    found.unwrap_or_else(|error| panic!("{error:#}\n{:#?}\n{}", last.map(|one| one.collect), agent.stderr()))
}

/// Sessions in a state that wait for a class of events.
fn sessions(collect: &Value, state: &str, class: &str) -> u64 {
    let groups = collect["sessions"].as_array().into_iter().flatten();
    let groups = groups.filter(|group| group["state"] == state && group["wait_class"] == class);
    groups.filter_map(|group| group["count"].as_u64()).sum()
}

/// Waits until a metric of a server is as wanted.
#[track_caller]
fn measured(agent: &Agent, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
    let mut last = None;
    let found = wait_for(name, LIMIT, || {
        last = metrics::sum(&agent.metrics()?, name, labels);
        Ok(last.filter(|value| wanted(*value)))
    });
    assert!(found.is_ok(), "{found:?}: {name} {labels:?} is {last:?}\n{}", agent.stderr());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn commits_that_wait_for_the_disk_wait_for_io() {
    let (server, agent) = scene(&[("fsync", "on")], "CREATE TABLE journal (entry text)");
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.client("postgres").unwrap();
            thread::spawn(move || {
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(5) {
                    client.query("INSERT INTO journal VALUES ('an entry')").unwrap();
                }
            })
        })
        .collect();
    told(&agent, server.pid(), "waits for I/O", LIMIT, |instance| {
        (sessions(&instance.collect, "active", "IO") > 0).then_some(())
    });
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    // Summed up every ten seconds, by statement.
    told(&agent, server.pid(), "the statement that waited", PATIENCE, |instance| {
        let waited = |row: &&querylens_tests::status::StatementStatus| row.known["waits_ms"]["IO"].as_f64() > Some(0.0);
        instance.statements.iter().find(waited).map(drop)
    });
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_burnt_cpu_is_charged_to_its_statement() {
    const TEXT: &str = "SELECT COUNT(*) FROM generate_series(?, ?)";
    let (server, agent) = scene(&[], "SELECT 1");
    let mut client = server.client("postgres").unwrap();
    let burning = thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(14) {
            client.query("SELECT count(*) FROM generate_series(1, 2000000)").unwrap();
        }
    });
    told(&agent, server.pid(), "work", LIMIT, |instance| {
        (sessions(&instance.collect, "active", "CPU") > 0).then_some(())
    });
    burning.join().unwrap();
    let known = told(&agent, server.pid(), "its CPU time", PATIENCE, |instance| {
        let row = instance.statements.iter().find(|row| row.text.eq_ignore_ascii_case(TEXT))?;
        let number = |name: &str| row.known[name].as_f64();
        // A look before the first execution, one after the last: most of it was seen.
        let (cpu, queue, total) = (number("cpu_ms")?, number("run_queue_ms")?, number("exec_ms")?);
        (cpu + queue > 0.5 * total).then_some((cpu, queue, total))
    });
    let (cpu, queue, total) = known;
    assert!(cpu > 0.0 && cpu + queue < 1.2 * total, "{cpu} ms on and {queue} ms waiting for a CPU in {total} ms");
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_forgotten_transaction_grows_old() {
    let (server, agent) = scene(&[], "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let mut client = server.client("postgres").unwrap();
    client.query("BEGIN; UPDATE t SET id = 2").unwrap();
    told(&agent, server.pid(), "a session idle in its transaction", LIMIT, |instance| {
        (sessions(&instance.collect, "idle in transaction", "Client") == 1).then_some(())
    });
    let age = |instance: &InstanceStatus| instance.collect["ages"]["idle_in_transaction_s"].as_f64();
    told(&agent, server.pid(), "its age", PATIENCE, |instance| age(instance).filter(|age| *age >= 3.0));
    client.query("COMMIT").unwrap();
    told(&agent, server.pid(), "its end", LIMIT, |instance| {
        instance.collect["ages"]["idle_in_transaction_s"].is_null().then_some(())
    });
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn dead_rows_are_counted() {
    let (server, agent) = scene(
        &[("autovacuum", "off")],
        "CREATE TABLE bloated (id int) WITH (autovacuum_enabled = off); INSERT INTO bloated SELECT generate_series(1, 5000)",
    );
    let table = |state| [("db_collection_name", "bloated"), ("state", state)];
    measured(&agent, "postgresql_rows", &table("live"), |rows| rows == 5000.0);
    let mut client = server.client("postgres").unwrap();
    client.query("DELETE FROM bloated WHERE id <= 4000").unwrap();
    // A session tells the server's statistics what it did when it ends, else within ten seconds.
    drop(client);
    measured(&agent, "postgresql_rows", &table("dead"), |rows| rows == 4000.0);
    server.client("postgres").unwrap().query("VACUUM bloated").unwrap();
    measured(&agent, "postgresql_rows", &table("dead"), |rows| rows == 0.0);
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_missing_index_shows_in_its_table() {
    const LOOKUPS: f64 = 50.0;
    let (server, agent) = scene(
        &[],
        "CREATE TABLE unindexed (id int, v int); INSERT INTO unindexed SELECT n, n FROM generate_series(1, 20000) n",
    );
    let scans = "postgresql_sequential_scans_total";
    let table = [("db_collection_name", "unindexed")];
    let before = metrics::sum(&agent.metrics().unwrap(), scans, &table).unwrap_or(0.0);
    let mut client = server.client("postgres").unwrap();
    for id in 0..LOOKUPS as u32 {
        client.query(&format!("SELECT v FROM unindexed WHERE id = {id}")).unwrap();
    }
    // See above.
    drop(client);
    measured(&agent, scans, &table, |scans| scans == before + LOOKUPS);
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn useless_indexes_and_exhausted_sequences_are_told() {
    let (server, agent) = scene(&[], "CREATE TABLE t (id smallserial PRIMARY KEY, v int)");
    let table = [("db_namespace", "postgres")];
    let mut client = server.client("postgres").unwrap();
    measured(&agent, "querylens_postgresql_index_unused", &table, |count| count == 0.0);
    client
        .query("CREATE INDEX one ON t (v); CREATE INDEX two ON t (v); CREATE INDEX other ON t (v) WHERE v > 0")
        .unwrap();
    measured(&agent, "querylens_postgresql_index_unused", &table, |count| count == 3.0);
    measured(&agent, "querylens_postgresql_index_duplicate", &table, |count| count == 1.0);
    client.query("SELECT setval('t_id_seq', 24576)").unwrap();
    let sequence = [("querylens_postgresql_sequence_name", "t_id_seq")];
    measured(&agent, "querylens_postgresql_sequence_used", &sequence, |used| (used - 0.75).abs() < 0.001);
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_standby_that_stands_still_falls_behind() {
    let (server, agent) = scene(&[], "CREATE TABLE t (id int)");
    let user = Postgres::user();
    let dir = tempfile::tempdir().unwrap();
    user.own(dir.path()).unwrap();
    let data = dir.path().join("standby");
    let port = server.port().to_string();
    let copy = Launch::new(server.program("pg_basebackup")).arg("-D").arg(&data).arg("-h").arg(server.socket_dir());
    let copy = copy.args(["-p", &port, "-U", "postgres", "-R", "-c", "fast", "--no-sync"]).user(user);
    copy.run(Duration::from_secs(60)).unwrap();
    let settings = format!("listen_addresses = ''\nunix_socket_directories = '{}'\n", dir.path().display());
    fs::write(data.join("harness.conf"), settings).unwrap();
    let mut standby = Launch::new(server.program("postgres")).arg("-D").arg(&data).user(user).start().unwrap();
    let mut there = wait_for("the standby to accept connections", PATIENCE, || {
        standby.check_running()?;
        Ok(PostgresClient::connect(dir.path(), server.port(), "postgres").ok())
    })
    .unwrap();
    wait_for("the standby to be seen", PATIENCE, || {
        Ok(metrics::sum(
            &agent.metrics()?,
            "postgresql_replication_data_delay_bytes",
            &[("replication_client", "unix")],
        ))
    })
    .unwrap();
    there.query("SELECT pg_wal_replay_pause()").unwrap();
    wait_for("replay to pause", PATIENCE, || {
        Ok((there.value("SELECT pg_get_wal_replay_pause_state()")? == "paused").then_some(()))
    })
    .unwrap();
    server.client("postgres").unwrap().query("INSERT INTO t SELECT generate_series(1, 100000)").unwrap();
    // A row takes 59 bytes of log at least.
    measured(&agent, "postgresql_replication_data_delay_bytes", &[("replication_client", "unix")], |bytes| bytes > 5e6);
    there.query("SELECT pg_wal_replay_resume()").unwrap();
    drop(there);
    wait_for("the standby to catch up", PATIENCE, || {
        let delay = metrics::sum(
            &agent.metrics()?,
            "postgresql_replication_data_delay_bytes",
            &[("replication_client", "unix")],
        );
        Ok(delay.filter(|bytes| *bytes < 1e5))
    })
    .unwrap();
    assert!(standby.end(libc::SIGINT, PATIENCE).unwrap().success());
    assert!(agent.stop().unwrap().success());
}
