//! The harness without the agent: what it starts works, ends, and leaves nothing; what the load generators say, the servers say too.
//!
//! This proves the ground truth, nothing about the agent.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use querylens::model::Engine;
use querylens_tests::{
    load::{
        Amount, Load, Mysqlslap, Pgbench, Sysbench,
        mysqlslap::Wrapping,
        pgbench::{Protocol, Script},
    },
    oracle,
    process::{Launch, Network, Process, User, wait_for},
    servers::{Mysqld, MysqldOptions, Postgres, PostgresOptions, Transport, mariadb, mysql},
};

const SECONDS: Amount = Amount::Seconds(1);

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Processes whose parent chain leads to `pid`.
fn descendants(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([pid]);
    loop {
        let before = found.len();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // The name in parentheses may hold anything; the parent is the second field behind it.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)?.parse::<u32>().ok());
            let own = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            if parent.is_some_and(|parent| found.contains(&parent)) {
                found.extend(own);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// System V segments, which outlive their processes.
fn shared_memory() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect()
}

fn assert_gone(processes: &BTreeSet<u32>, dir: &Path) {
    // Whoever had another parent is collected by init a moment later.
    wait_for("the end of all processes", Duration::from_secs(5), || {
        Ok(processes.iter().all(|pid| !exists(*pid)).then_some(()))
    })
    .unwrap();
    assert!(!dir.exists(), "{} is left", dir.display());
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn postgres_leaves_nothing_behind() {
    for major in [15, 17, 18] {
        let before = shared_memory();
        let server = Postgres::start(PostgresOptions::new(major)).unwrap();
        assert!(server.version().starts_with(&major.to_string()), "{}", server.version());
        let (processes, dir) = (descendants(server.pid()), server.socket_dir().to_owned());
        assert!(processes.len() > 3, "{processes:?}");
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok());
        drop(server);
        assert_gone(&processes, &dir);
        assert!(shared_memory().is_subset(&before), "shared memory is left");
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn a_server_ends_with_the_thread_that_started_it() {
    let start = || {
        let server = Postgres::start(PostgresOptions::new(15)).unwrap();
        let found = (descendants(server.pid()), server.socket_dir().to_owned());
        // Neither dropped nor stopped, as after SIGKILL of this process.
        std::mem::forget(server);
        found
    };
    let (processes, dir) = std::thread::spawn(start).join().unwrap();
    let postmaster = *processes.iter().next().unwrap();
    wait_for("the end of the postmaster", Duration::from_secs(10), || {
        // A zombie until somebody waits for it: this process is still its parent.
        let state = fs::read_to_string(format!("/proc/{postmaster}/stat")).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
    })
    .unwrap();
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn postgres_with_every_option() {
    let options = PostgresOptions { tcp: false, ..PostgresOptions::new(17) };
    let server = Postgres::start(options).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err(), "listens on TCP");
    drop(server);

    let options = PostgresOptions { tls: true, ..PostgresOptions::new(15) };
    let server = Postgres::start(options).unwrap();
    assert_eq!(server.client("postgres").unwrap().value("SHOW ssl").unwrap(), "on");
    drop(server);

    let options = PostgresOptions { executable: Some("elephant".to_owned()), ..PostgresOptions::new(18) };
    let server = Postgres::start(options).unwrap();
    let executable = fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap();
    assert_eq!(executable.file_name().unwrap(), "elephant");
    drop(server);

    let options = PostgresOptions { network: Network::Own, ..PostgresOptions::new(17) };
    let server = Postgres::start(options).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err(), "reachable from outside of its namespace");
    Pgbench::initialise(&server, "bench").unwrap();
    let report = select_only(Transport::Tcp, Protocol::Simple).run(&server).unwrap();
    assert!(report.transactions > 100, "{report:?}");
}

fn select_only(transport: Transport, protocol: Protocol) -> Pgbench {
    let database = "bench".to_owned();
    Pgbench { database, transport, script: Script::SelectOnly, protocol, clients: 4, amount: SECONDS, rate: None }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn pgbench_and_pg_stat_statements_agree() {
    for major in [15, 17, 18] {
        let server = Postgres::start(PostgresOptions::new(major)).unwrap();
        Pgbench::initialise(&server, "bench").unwrap();
        for protocol in Protocol::ALL {
            for (script, transport) in [(Script::SelectOnly, Transport::Tcp), (Script::TpcB, Transport::Unix)] {
                oracle::reset_pg_stat_statements(&server).unwrap();
                let report = Pgbench { script, ..select_only(transport, protocol) }.run(&server).unwrap();
                let counted = oracle::pg_stat_statements(&server, "bench").unwrap();
                for (statement, executed) in report.executed {
                    let calls = counted.get(&oracle::canonical(&statement)).map(|counted| counted.calls);
                    let exact = oracle::counts_executions(&statement, protocol == Protocol::Prepared);
                    // One first execution a client.
                    let expected = if exact { executed } else { 4 };
                    assert_eq!(calls, Some(expected), "PostgreSQL {major}, {protocol:?}: {statement}: {counted:#?}");
                }
            }
        }
    }
}

fn mysqld_leaves_nothing_behind(start: impl Fn() -> Mysqld) {
    let server = start();
    let (processes, dir) = (descendants(server.pid()), server_dir(&server));
    assert!(dir.exists());
    assert!(UnixStream::connect(server.socket()).is_ok());
    assert!(TcpStream::connect(("127.0.0.1", server.port().unwrap())).is_ok());
    drop(server);
    assert_gone(&processes, &dir);

    let mut server = start();
    assert!(server.stop().unwrap().success(), "{}", server.log());
}

fn server_dir(server: &Mysqld) -> PathBuf {
    let parent = server.socket().parent().unwrap();
    // What is seen through /proc ends with the process: its real place is asked for.
    parent.canonicalize().unwrap()
}

fn sysbench_and_performance_schema_agree(server: &Mysqld) {
    Sysbench::initialise(server).unwrap();
    let slap = |transport| Mysqlslap {
        transport,
        wrapping: Wrapping::None,
        statement: "SELECT 41 + 1".into(),
        clients: 3,
        executions: 50,
    };
    for transport in [Transport::Tcp, Transport::Unix] {
        assert_eq!(slap(transport).run(server).unwrap().total(), 150);
        for prepared in [true, false] {
            server.client().unwrap().query("TRUNCATE performance_schema.events_statements_summary_by_digest").unwrap();
            let report = Sysbench { transport, prepared, clients: 1, amount: SECONDS, rate: None }.run(server).unwrap();
            let counted = oracle::statement_digests(server).unwrap();
            let has_digests = !(prepared && server.engine() == Engine::Mariadb);
            for (statement, executed) in report.executed.into_iter().filter(|_| has_digests) {
                let calls = counted.get(&oracle::canonical(&statement)).map(|counted| counted.calls);
                assert_eq!(calls, Some(executed), "{statement}: {counted:#?}");
            }
            let mut client = server.client().unwrap();
            let before = oracle::global_status(&mut client).unwrap();
            let report = Sysbench { transport, prepared, clients: 4, amount: SECONDS, rate: None }.run(server).unwrap();
            let after = oracle::global_status(&mut client).unwrap();
            let selects = report.executed.iter().filter(|(text, _)| text.starts_with("SELECT")).map(|(_, n)| n);
            assert_eq!(after["Com_select"] - before["Com_select"], selects.sum::<u64>());
        }
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn mariadb_leaves_nothing_behind() {
    mysqld_leaves_nothing_behind(|| mariadb::start(&MysqldOptions::default()).unwrap());
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn mysql_leaves_nothing_behind() {
    if mysql::available() {
        mysqld_leaves_nothing_behind(|| mysql::start(&MysqldOptions::default()).unwrap());
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn mariadb_with_every_option() {
    let server = mariadb::start(&MysqldOptions { tls: true, ..MysqldOptions::default() }).unwrap();
    assert_eq!(server.client().unwrap().value("SELECT @@have_ssl").unwrap(), "YES");
    drop(server);
    let options = MysqldOptions { tcp: false, performance_schema: false, ..MysqldOptions::default() };
    let server = mariadb::start(&options).unwrap();
    assert_eq!(server.port(), None);
    assert_eq!(server.client().unwrap().value("SELECT @@performance_schema").unwrap(), "0");
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn sysbench_and_mariadb_agree() {
    sysbench_and_performance_schema_agree(&mariadb::start(&MysqldOptions::default()).unwrap());
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn sysbench_and_mysql_agree() {
    if mysql::available() {
        sysbench_and_performance_schema_agree(&mysql::start(&MysqldOptions::default()).unwrap());
    }
}

#[test]
#[ignore = "needs root and database servers; run by cargo xtask test"]
fn a_load_that_is_dropped_ends() {
    let server = Postgres::start(PostgresOptions::new(17)).unwrap();
    Pgbench::initialise(&server, "bench").unwrap();
    let run = Pgbench { amount: Amount::Seconds(60), ..select_only(Transport::Tcp, Protocol::Prepared) };
    let mut load: Load = run.start(&server).unwrap();
    assert!(!load.is_done().unwrap());
    let pid = load.process().pid();
    drop(load);
    assert!(!exists(pid));
}

#[test]
fn a_process_that_fails_shows_what_it_said() {
    let launch = Launch::new("sh").args(["-c", "echo what went wrong >&2; exit 3"]);
    let error = launch.run(Duration::from_secs(5)).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("what went wrong"), "{error}");
    assert_eq!(Launch::new("echo").arg("fine").run(Duration::from_secs(5)).unwrap(), "fine\n");
}

#[test]
fn the_whole_group_of_a_process_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let launch = Launch::new("sh").args(["-c", "sleep 60 & echo $! > \"$0\"; wait"]).arg(&file);
    let process: Process = launch.start().unwrap();
    let child: u32 = wait_for("the child", Duration::from_secs(5), || {
        Ok(fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()))
    })
    .unwrap();
    let parent = process.pid();
    drop(process);
    wait_for("the end of the group", Duration::from_secs(5), || {
        let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        Ok((!exists(parent) && (state.is_empty() || state.contains(") Z "))).then_some(()))
    })
    .unwrap();
}

#[test]
fn users_by_name() {
    assert_eq!(User::named_or_nobody("root"), User { uid: 0, gid: 0 });
    assert_eq!(User::named_or_nobody("no such user"), User::NOBODY);
}
