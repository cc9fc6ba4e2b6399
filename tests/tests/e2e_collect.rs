//! Guarantee: with nothing configured the agent logs in wherever its place on the host lets it, says why where it does not and what would change it; what it
//! collects is what the server counts, who blocks whom is told within two seconds, and its own questions are in no statistic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use querylens_tests::{
    agent::{Agent, AgentOptions},
    load::{
        Amount, Pgbench, Sysbench,
        pgbench::{Protocol, Script},
    },
    process::{sleep, wait_for},
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
    status::{InstanceStatus, StatementStatus},
};
use serde_json::Value;

/// What `discover --explain` says of the server with this main process.
#[track_caller]
fn explained(pid: u32, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["discover", "--explain", "--json"].iter().chain(arguments).copied().collect();
    let (_, out, err) = Agent::command(&all).unwrap();
    let found: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}"));
    let one = found.iter().find(|one| one["pid"] == pid).unwrap_or_else(|| panic!("{pid} is not in {out}"));
    one["collect"].clone()
}

/// The rung of a question.
#[track_caller]
fn rung<'a>(collect: &'a Value, question: &str) -> &'a str {
    let questions = collect["questions"].as_array().unwrap_or_else(|| panic!("{collect:#}"));
    let found = questions.iter().find(|one| one["name"] == question);
    found.and_then(|one| one["rung"].as_str()).unwrap_or_else(|| panic!("{question}: {collect:#}"))
}

/// The server's state once `wanted` holds of what it said.
#[track_caller]
fn once(agent: &Agent, pid: u32, what: &str, patience: Duration, wanted: impl Fn(&Value) -> bool) -> InstanceStatus {
    let mut last = None;
    let found = wait_for(what, patience, || {
        let instance = agent.status()?.instance(pid).cloned();
        let holds = instance.as_ref().is_some_and(|instance| wanted(&instance.collect));
        last = instance.clone();
        Ok(instance.filter(|_| holds))
    });
    found.unwrap_or_else(|error| {
        panic!("{error:#}\n{:#}\n{}", last.map(|one| one.collect).unwrap_or_default(), agent.stderr())
    })
}

fn answered(collect: &Value, question: &str) -> bool {
    let questions = collect["questions"].as_array();
    questions.is_some_and(|all| all.iter().any(|one| one["name"] == question && one["last"] == "answered"))
}

fn postgres(major: u32) -> Postgres {
    let server = Postgres::start(PostgresOptions::new(major)).unwrap();
    server.client("postgres").unwrap().query("CREATE EXTENSION pg_stat_statements").unwrap();
    server
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_lets_in_whoever_is_its_own_user() {
    for (major, best) in [
        (15, "pg_stat_statements"),
        (17, "pg_stat_statements with times of birth"),
        (18, "pg_stat_statements with times of birth"),
    ] {
        let server = postgres(major);
        let collect = explained(server.pid(), &[]);
        assert!(collect["login"].as_str().unwrap().contains("unix socket"), "{collect:#}");
        assert_eq!(rung(&collect, "statements"), best);
        assert_eq!(rung(&collect, "activity"), "pg_stat_activity with query ids, pg_locks");
        for question in ["server", "tables", "replication", "settings"] {
            assert_ne!(rung(&collect, question), "wire only", "{collect:#}");
        }
        assert_eq!(collect["remedy"], Value::Array(Vec::new()));
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn peer_is_who_connects() {
    let server = postgres(15);
    // Not even the harness could come as this role from its own user.
    let rules = "local all postgres peer\n";
    let mut client = server.client("postgres").unwrap();
    fs::write(server.data_dir().join("pg_hba.conf"), rules).unwrap();
    client.query("SELECT pg_reload_conf()").unwrap();
    wait_for("the rules to count", Duration::from_secs(5), || Ok(server.client("postgres").is_err().then_some(())))
        .unwrap();
    let collect = explained(server.pid(), &[]);
    assert!(collect["login"].as_str().is_some_and(|way| way.contains("operating-system user")), "{collect:#}");
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_password_only_server_is_left_to_the_wire_until_a_user_is_configured() {
    const PASSWORD: &str = "correct-horse-battery";
    let server = Postgres::start(PostgresOptions { tls: true, ..PostgresOptions::new(17) }).unwrap();
    let mut client = server.client("postgres").unwrap();
    client.query(&format!("CREATE ROLE monitor LOGIN PASSWORD '{PASSWORD}'; GRANT pg_monitor TO monitor; CREATE EXTENSION pg_stat_statements")).unwrap();
    let rules = "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.data_dir().join("pg_hba.conf"), rules).unwrap();
    client.query("SELECT pg_reload_conf()").unwrap();
    wait_for("the rules to count", Duration::from_secs(5), || Ok(server.client("postgres").is_err().then_some(())))
        .unwrap();

    let collect = explained(server.pid(), &[]);
    assert_eq!(collect["login"], Value::Null, "{collect:#}");
    let denied = |one: &Value| one["verdict"] == "denied" && one["what"].as_str().unwrap().contains("unix socket");
    assert!(collect["attempts"].as_array().unwrap().iter().any(denied), "{collect:#}");
    assert_eq!(rung(&collect, "statements"), "wire only");
    let remedy = collect["remedy"].to_string();
    assert!(remedy.contains("GRANT pg_monitor TO querylens"), "{remedy}");

    let dir = tempfile::tempdir().unwrap();
    let (secret, file) = (dir.path().join("secret"), dir.path().join("querylens.yaml"));
    fs::write(&secret, format!("{PASSWORD}\n")).unwrap();
    let configured = |rest: &str| {
        let user = format!(
            "collect:\n  users:\n    - match: {{ engine: postgresql, port: {} }}\n      name: monitor\n      password: {{ file: {} }}\n{rest}",
            server.port(),
            secret.display()
        );
        fs::write(&file, user).unwrap();
        explained(server.pid(), &["--config", file.to_str().unwrap()])
    };
    let collect = configured("");
    assert!(collect["login"].as_str().is_some_and(|way| way.ends_with("as monitor")), "{collect:#}");
    assert_eq!(rung(&collect, "statements"), "pg_stat_statements with times of birth");
    assert_eq!(collect["remedy"], Value::Array(Vec::new()), "pg_monitor is all that it takes");
    let collect = configured("      host: 127.0.0.1\n      tls: { mode: require }\n");
    assert!(collect["login"].as_str().is_some_and(|way| way.starts_with("tcp 127.0.0.1")), "{collect:#}");
    // Nobody vouches for the server's certificate.
    let collect = configured("      host: 127.0.0.1\n      tls: { mode: verify-full }\n");
    assert_eq!(collect["login"], Value::Null, "{collect:#}");
    assert!(!collect.to_string().contains(PASSWORD));
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_and_mysql_let_in_root() {
    let check = |server: &Mysqld, statements: &str, activity: &str| {
        let collect = explained(server.pid(), &[]);
        assert!(collect["login"].as_str().is_some_and(|way| way.ends_with("as root")), "{collect:#}");
        assert_eq!(rung(&collect, "statements"), statements);
        assert_eq!(rung(&collect, "activity"), activity);
        assert_eq!(rung(&collect, "tables"), "table and index I/O summaries");
        assert_eq!(rung(&collect, "replication"), "replica status");
        assert_eq!(collect["remedy"], Value::Array(Vec::new()), "{collect:#}");
    };
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    check(&server, "digest summaries", "process list, InnoDB locks");
    drop(server);
    let without = MysqldOptions { performance_schema: false, ..MysqldOptions::default() };
    let server = mariadb::start(&without).unwrap();
    let collect = explained(server.pid(), &[]);
    assert_eq!(rung(&collect, "statements"), "wire only", "{collect:#}");
    assert!(collect.to_string().contains("needs performance_schema = ON"), "{collect:#}");
    drop(server);
    if mysql::available() {
        let server = mysql::start(&MysqldOptions::default()).unwrap();
        check(&server, "digest summaries with quantiles", "threads, data and metadata locks");
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn calls_are_those_on_the_wire() {
    let server = postgres(17);
    Pgbench::initialise(&server, "bench").unwrap();
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    agent.wait_visible(server.pid()).unwrap();
    let patience = Duration::from_secs(15);
    once(&agent, server.pid(), "a first look at the statements", patience, |collect| answered(collect, "statements"));
    let (script, protocol, amount) = (Script::TpcB, Protocol::Simple, Amount::Seconds(2));
    let load = Pgbench {
        database: "bench".to_owned(),
        transport: Transport::Tcp,
        script,
        protocol,
        clients: 2,
        amount,
        rate: None,
    };
    let report = load.run(&server).unwrap();
    let transactions = report.transactions;
    assert!(transactions > 0);
    // What the server itself says to somebody else, by its own identity of each statement.
    let truth = "SELECT queryid, sum(calls) FROM pg_stat_statements \
                 WHERE dbid = (SELECT oid FROM pg_database WHERE datname = 'bench') GROUP BY queryid";
    let truth = server.client("postgres").unwrap().query(truth).unwrap();
    let truth: BTreeMap<String, u64> =
        truth.into_iter().map(|row| (row[0].clone().unwrap(), row[1].as_ref().unwrap().parse().unwrap())).collect();
    // Each statement of a transaction, but not those by which pgbench begins.
    let of_transactions = |row: &&StatementStatus| row.executions == transactions;
    let agrees = |row: &&StatementStatus| {
        let ids = row.known["ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let own: u64 = ids.filter_map(|id| truth.get(id)).sum();
        row.known["join"] == "matched" && row.known["calls"] == row.executions && own == row.executions
    };
    let agreed = wait_for("all counts to agree", patience, || {
        let status = agent.status()?;
        let rows = &status.instance(server.pid()).unwrap().statements;
        let (all, agreeing) =
            (rows.iter().filter(of_transactions).count(), rows.iter().filter(of_transactions).filter(agrees).count());
        Ok((all == 7 && agreeing == 7).then_some(()))
    });
    let status = agent.status().unwrap();
    let instance = status.instance(server.pid()).unwrap();
    assert!(
        agreed.is_ok(),
        "{agreed:?} of {transactions}\n{truth:#?}\n{:#?}\n{}",
        instance.statements,
        instance.table()
    );
    assert_eq!(
        instance.statements.iter().filter(of_transactions).map(|row| row.user.as_deref()).min(),
        Some(Some("postgres"))
    );
    assert!(agent.stop().unwrap().success());
}

/// Share of the executions on the wire whose statements were joined with the server's.
fn share(collect: &Value) -> f64 {
    let count = |join: &str| collect["joined"][join].as_f64().unwrap_or(0.0);
    let matched = count("matched");
    matched / (matched + count("ambiguous") + count("unmatched"))
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn digests_are_joined_with_the_wire() {
    let check = |server: &Mysqld| {
        Sysbench::initialise(server).unwrap();
        let agent = Agent::start(AgentOptions::collecting("")).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        once(&agent, server.pid(), "a first look at the statements", Duration::from_secs(15), |collect| {
            answered(collect, "statements")
        });
        let (transport, amount) = (Transport::Unix, Amount::Seconds(3));
        // MariaDB 10.11 makes no digests of prepared statements, and with several connections MySQL loses some.
        Sysbench { transport, prepared: false, clients: 1, amount, rate: None }.run(server).unwrap();
        let agreed = wait_for("99 % to be joined, and the counts to agree", Duration::from_secs(15), || {
            let status = agent.status()?;
            let instance = status.instance(server.pid()).unwrap();
            let heaviest = instance.statements.iter().max_by_key(|row| row.executions).unwrap();
            let agree = heaviest.executions > 100 && heaviest.known["calls"] == heaviest.executions;
            Ok((agree && share(&instance.collect) >= 0.99).then_some(()))
        });
        let status = agent.status().unwrap();
        let instance = status.instance(server.pid()).unwrap();
        assert!(agreed.is_ok(), "{agreed:?} {:#}\n{}", instance.collect["joined"], instance.table());
        assert!(agent.stop().unwrap().success());
    };
    check(&mariadb::start(&MysqldOptions::default()).unwrap());
    if mysql::available() {
        check(&mysql::start(&MysqldOptions::default()).unwrap());
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_chain_of_three_is_told_within_two_seconds() {
    const LIMIT: Duration = Duration::from_secs(2);
    let server = postgres(17);
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    let patience = Duration::from_secs(15);
    once(&agent, server.pid(), "a first look at the sessions", patience, |collect| answered(collect, "activity"));
    let session = || server.client("postgres").unwrap();
    session()
        .query("CREATE TABLE queue (id int PRIMARY KEY, v int); INSERT INTO queue VALUES (1, 0), (2, 0), (3, 0)")
        .unwrap();
    let mut root = session();
    let pid = root.value("SELECT pg_backend_pid()").unwrap();
    root.query("BEGIN; UPDATE queue SET v = 1 WHERE id = 1").unwrap();
    let mut waiters = Vec::new();
    for id in [1, 2, 3] {
        let mut client = session();
        client.query(&format!("BEGIN; UPDATE queue SET v = 1 WHERE id = {}", id + 1)).unwrap();
        waiters.push(thread::spawn(move || {
            client.query(&format!("UPDATE queue SET v = 2 WHERE id = {id}; COMMIT")).map(drop)
        }));
        // Each is to wait for the one before it.
        sleep(Duration::from_millis(100)).unwrap();
    }
    let began = Instant::now();
    let depth = |collect: &Value| collect["blocking"][0]["depth"] == 3;
    let instance = once(&agent, server.pid(), "the chain", patience, depth);
    let took = began.elapsed();
    assert!(took < LIMIT, "told after {took:?}");
    let chain = &instance.collect["blocking"][0];
    assert_eq!(chain["root"].to_string(), pid);
    assert_eq!(chain["root_state"], "idle in transaction", "{chain:#}");
    assert_eq!((&chain["deadlock"], chain["blocked"].as_array().unwrap().len()), (&Value::Bool(false), 3));
    assert_eq!(chain["blocked"][0]["relation"], "queue", "{chain:#}");
    let waiting = instance.collect["sessions"].as_array().unwrap().iter().filter(|group| group["wait_class"] == "Lock");
    assert_eq!(waiting.map(|group| group["count"].as_u64().unwrap()).sum::<u64>(), 3);
    assert!(instance.collect["ages"]["idle_in_transaction_s"].as_f64().unwrap() > 0.0);
    root.query("COMMIT").unwrap();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
    let gone = |collect: &Value| collect["blocking"] == Value::Array(Vec::new());
    once(&agent, server.pid(), "the end of the chain", patience, gone);
    assert!(agent.stop().unwrap().success());
}

/// Blocks one session by another and checks what the agent tells of it.
fn blocks(server: &Mysqld) {
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    let patience = Duration::from_secs(15);
    once(&agent, server.pid(), "a first look at the sessions", patience, |collect| answered(collect, "activity"));
    let mut root = server.client().unwrap();
    root.query("CREATE TABLE queue (id int PRIMARY KEY, v int)").unwrap();
    root.query("INSERT INTO queue VALUES (1, 0)").unwrap();
    let id = root.value("SELECT CONNECTION_ID()").unwrap();
    root.query("BEGIN").unwrap();
    root.query("UPDATE queue SET v = 1 WHERE id = 1").unwrap();
    let mut other = server.client().unwrap();
    let waiter = thread::spawn(move || other.query("UPDATE queue SET v = 2 WHERE id = 1").map(drop));
    let began = Instant::now();
    let blocked = |collect: &Value| collect["blocking"][0]["depth"] == 1;
    let instance = once(&agent, server.pid(), "the chain", patience, blocked);
    let took = began.elapsed();
    let chain = &instance.collect["blocking"][0];
    assert_eq!((chain["root"].to_string(), &chain["root_state"]), (id, &Value::from("Sleep")), "{chain:#}");
    assert!(chain["blocked"][0]["relation"].as_str().unwrap().contains("queue"), "{chain:#}");
    // MySQL itself counts the seconds of a transaction whole.
    assert!(took < Duration::from_secs(2), "told after {took:?}");
    root.query("COMMIT").unwrap();
    waiter.join().unwrap().unwrap();
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mariadb_and_mysql_tell_who_blocks_whom() {
    blocks(&mariadb::start(&MysqldOptions::default()).unwrap());
    if mysql::available() {
        blocks(&mysql::start(&MysqldOptions::default()).unwrap());
    }
}

/// Metrics of the Collector's receivers that every server has; replication ones need a replica.
const POSTGRES_METRICS: &[&str] = &[
    "postgresql.backends",
    "postgresql.bgwriter.buffers.allocated",
    "postgresql.bgwriter.buffers.writes",
    "postgresql.bgwriter.checkpoint.count",
    "postgresql.bgwriter.duration",
    "postgresql.bgwriter.maxwritten",
    "postgresql.blocks_read",
    "postgresql.commits",
    "postgresql.connection.max",
    "postgresql.database.count",
    "postgresql.db_size",
    "postgresql.index.scans",
    "postgresql.index.size",
    "postgresql.operations",
    "postgresql.rollbacks",
    "postgresql.rows",
    "postgresql.table.count",
    "postgresql.table.size",
    "postgresql.table.vacuum.count",
    "postgresql.wal.age",
    "postgresql.deadlocks",
    "postgresql.temp_files",
    "postgresql.sequential_scans",
];

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn postgresql_gives_the_metrics_that_dashboards_know() {
    for major in [15, 17, 18] {
        let server = postgres(major);
        Pgbench::initialise(&server, "bench").unwrap();
        let agent = Agent::start(AgentOptions::collecting("")).unwrap();
        let tables = |collect: &Value| {
            collect["metrics"]["postgresql.index.size"].as_u64() >= Some(3) && answered(collect, "replication")
        };
        let instance = once(&agent, server.pid(), "the metrics of tables", Duration::from_secs(20), tables);
        for name in POSTGRES_METRICS {
            assert!(
                instance.collect["metrics"][name].as_u64() > Some(0),
                "{major}: {name} in {:#}",
                instance.collect["metrics"]
            );
        }
        assert!(agent.stop().unwrap().success());
    }
}

const MYSQL_METRICS: &[&str] = &[
    "mysql.buffer_pool.data_pages",
    "mysql.buffer_pool.limit",
    "mysql.buffer_pool.operations",
    "mysql.buffer_pool.page_flushes",
    "mysql.buffer_pool.pages",
    "mysql.buffer_pool.usage",
    "mysql.double_writes",
    "mysql.handlers",
    "mysql.index.io.wait.count",
    "mysql.index.io.wait.time",
    "mysql.locks",
    "mysql.log_operations",
    "mysql.opened_resources",
    "mysql.operations",
    "mysql.page_operations",
    "mysql.prepared_statements",
    "mysql.row_locks",
    "mysql.sorts",
    "mysql.table.io.wait.count",
    "mysql.table.io.wait.time",
    "mysql.threads",
    "mysql.tmp_resources",
    "mysql.uptime",
];

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn mysql_and_mariadb_give_the_metrics_that_dashboards_know() {
    let check = |server: &Mysqld| {
        let mut client = server.client().unwrap();
        client.query("CREATE TABLE metrics (id int PRIMARY KEY)").unwrap();
        client.query("INSERT INTO metrics VALUES (1), (2)").unwrap();
        client.query("SELECT * FROM metrics WHERE id = 1").unwrap();
        let agent = Agent::start(AgentOptions::collecting("")).unwrap();
        let tables = |collect: &Value| {
            collect["metrics"]["mysql.index.io.wait.count"].as_u64() > Some(0) && answered(collect, "server")
        };
        let instance = once(&agent, server.pid(), "the metrics of tables", Duration::from_secs(20), tables);
        for name in MYSQL_METRICS {
            assert!(
                instance.collect["metrics"][name].as_u64() > Some(0),
                "{name} in {:#}",
                instance.collect["metrics"]
            );
        }
        assert!(agent.stop().unwrap().success());
    };
    check(&mariadb::start(&MysqldOptions::default()).unwrap());
    if mysql::available() {
        check(&mysql::start(&MysqldOptions::default()).unwrap());
    }
}

/// Waits until each question was answered, and then some, and looks for the agent's statements on the wire and in the server's own statistics.
fn leaves_no_trace(pid: u32) {
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    agent.wait_visible(pid).unwrap();
    let all = |collect: &Value| {
        ["activity", "statements", "server", "tables", "settings"].iter().all(|question| answered(collect, question))
    };
    once(&agent, pid, "all questions to be answered", Duration::from_secs(20), all);
    sleep(Duration::from_secs(3)).unwrap();
    let status = agent.status().unwrap();
    let instance = status.instance(pid).unwrap();
    assert!(instance.statements.is_empty(), "{}", instance.table());
    let own = |row: &&Value| row["calls"].as_u64() > Some(0);
    let counted: Vec<&Value> = instance.collect["statements"].as_array().unwrap().iter().filter(own).collect();
    assert!(counted.is_empty(), "{counted:#?}");
    let failed: Vec<_> =
        instance.collect["questions"].as_array().unwrap().iter().filter(|one| one["failed"] != 0).collect();
    assert!(failed.is_empty(), "{failed:#?}\n{}", agent.stderr());
    assert!(agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn its_own_questions_are_in_no_statistic() {
    let server = postgres(17);
    leaves_no_trace(server.pid());
    drop(server);
    let server = mariadb::start(&MysqldOptions::default()).unwrap();
    leaves_no_trace(server.pid());
    drop(server);
    if mysql::available() {
        let server = mysql::start(&MysqldOptions::default()).unwrap();
        leaves_no_trace(server.pid());
    }
}

/// The agent's own connections, as the server sees them.
fn own_connections(server: &Postgres) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'querylens' ORDER BY backend_start";
    let rows = server.client("postgres").unwrap().query(sql).unwrap();
    rows.into_iter().filter_map(|row| row[0].as_ref()?.parse().ok()).collect()
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_session_that_hangs_is_given_up_and_at_most_two_connections_are_there() {
    let server = postgres(17);
    Pgbench::initialise(&server, "bench").unwrap();
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    let patience = Duration::from_secs(20);
    let tables = |collect: &Value| collect["metrics"]["postgresql.table.size"].as_u64() >= Some(4);
    once(&agent, server.pid(), "the metrics of tables", patience, tables);
    let hanging = *own_connections(&server).first().unwrap();
    // SAFETY: the agent's backend, a process of the server that this test started.
    unsafe { libc::kill(hanging, libc::SIGSTOP) };
    let timed_out = |collect: &Value| {
        let questions = collect["questions"].as_array();
        questions
            .is_some_and(|all| all.iter().any(|one| one["failed"].as_u64() > Some(0) && one["last"] == "timed out"))
    };
    let given_up = wait_for("the question to be given up", Duration::from_secs(8), || {
        Ok(agent.status()?.instance(server.pid()).is_some_and(|instance| timed_out(&instance.collect)).then_some(()))
    });
    let back = wait_for("another login", patience, || {
        assert!(own_connections(&server).len() <= 2, "{:?}", own_connections(&server));
        let status = agent.status()?;
        let login = status.instance(server.pid()).is_some_and(|instance| instance.collect["login"].is_string());
        Ok((login && own_connections(&server).iter().any(|pid| *pid != hanging)).then_some(()))
    });
    // SAFETY: as above.
    unsafe { libc::kill(hanging, libc::SIGCONT) };
    assert!(given_up.is_ok() && back.is_ok(), "{given_up:?} {back:?}\n{}", agent.stderr());
    assert!(agent.stop().unwrap().success());
    let gone = wait_for("all connections to end", Duration::from_secs(5), || {
        Ok(own_connections(&server).is_empty().then_some(()))
    });
    assert!(gone.is_ok(), "{:?}", own_connections(&server));
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_locked_table_is_left_alone_and_hides_no_other() {
    let server = postgres(17);
    Pgbench::initialise(&server, "bench").unwrap();
    let mut client = server.client("bench").unwrap();
    client.query("BEGIN; LOCK TABLE pgbench_accounts IN ACCESS EXCLUSIVE MODE").unwrap();
    let agent = Agent::start(AgentOptions::collecting("")).unwrap();
    let patience = Duration::from_secs(20);
    // Four tables, of which one cannot be measured.
    let tables = |collect: &Value| collect["metrics"]["postgresql.rows"].as_u64() == Some(8);
    let instance = once(&agent, server.pid(), "the metrics of tables", patience, tables);
    assert_eq!(instance.collect["metrics"]["postgresql.table.size"], 3, "{:#}", instance.collect["metrics"]);
    assert!(answered(&instance.collect, "tables"));
    client.query("COMMIT").unwrap();
    once(&agent, server.pid(), "the size of the fourth", patience, |collect| {
        collect["metrics"]["postgresql.table.size"] == 4
    });
    assert!(agent.stop().unwrap().success());
}
