//! The life of servers in a made-up /proc, with a made-up clock.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use super::{
    testing::{Elf, Proc},
    *,
};
use crate::model::{Engine, Listen};

const POSTGRES_VERSION: &str = "PostgreSQL 15.20 (Debian 15.20-1) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit";

/// A discovery over a made-up /proc that holds a PostgreSQL server's program, its data directory, and a shell.
struct Fixture {
    proc: Proc,
    postgres: PathBuf,
    shell: PathBuf,
    data: PathBuf,
    discovery: Discovery,
    now: Instant,
}

impl Fixture {
    fn new() -> Fixture {
        let proc = Proc::new();
        let elf = Elf::new().exports(&["PostmasterMain", "secure_read", "secure_write"]);
        let postgres = proc.file("bin/anything", &elf.strings(&[POSTGRES_VERSION]).build());
        let shell = proc.file("bin/sh", &Elf::new().build());
        let data = proc.file("data/PG_VERSION", b"15\n").parent().unwrap().to_owned();
        let config = Config { proc_root: proc.root().to_owned(), rescan_interval_seconds: 60 };
        Fixture { discovery: Discovery::new(config), proc, postgres, shell, data, now: Instant::now() }
    }

    /// A process that runs PostgreSQL's program and does not listen yet.
    fn starting(&self, pid: u32) {
        self.proc.process(pid, &self.postgres).cwd(&self.data).create();
    }

    fn scan(&mut self) -> Vec<Change> {
        self.discovery.scan(self.now)
    }

    /// Lets the time pass, calling `tick` exactly when asked for.
    fn pass(&mut self, time: Duration) -> Vec<Change> {
        let end = self.now + time;
        let mut changes = Vec::new();
        while self.discovery.next_tick() <= end {
            self.now = self.now.max(self.discovery.next_tick());
            changes.extend(self.discovery.tick(self.now));
            assert!(self.discovery.next_tick() > self.now, "a tick must do what is due");
        }
        self.now = end;
        changes
    }
}

fn found(changes: &[Change]) -> Arc<Instance> {
    match changes {
        [Change::Found(instance)] => instance.clone(),
        other => panic!("expected one server to be found, not {other:?}"),
    }
}

fn tcp(port: u16) -> Listen {
    Listen::Tcp(([127, 0, 0, 1], port).into())
}

#[test]
fn a_running_server_is_found_with_all_its_properties() {
    let mut fixture = Fixture::new();
    let id = "4f2c0a9b7d1e8365f4a2b1c09d8e7f60514233a4b5c6d7e8f90a1b2c3d4e5f60";
    fixture
        .proc
        .process(70, &fixture.postgres)
        .cwd(&fixture.data)
        .cgroup(&format!("/docker/{id}"))
        .listens(9999)
        .listens(15432)
        .create();
    let instance = found(&fixture.scan());
    assert_eq!(instance.key, ServerKey { pid: 70, start_ticks: 170 });
    assert_eq!(instance.engine, Engine::Postgresql);
    assert_eq!(instance.version.as_deref(), Some("15.20"));
    assert_eq!(instance.executable, fixture.postgres);
    assert_eq!(instance.data_dir.as_deref(), Some(&*fixture.data));
    assert_eq!(instance.uid, 70);
    assert_eq!(instance.listen, [tcp(9999), tcp(15432)]);
    let container = instance.container.as_ref().unwrap();
    assert_eq!((container.runtime.as_str(), container.id.as_deref()), ("docker", Some(id)));
    assert_eq!(fixture.scan(), [], "nothing changed");
    assert_eq!(fixture.discovery.instances().count(), 1);
}

#[test]
fn a_foreign_data_directory_makes_the_version_unknown() {
    let mut fixture = Fixture::new();
    let data = fixture.proc.file("data16/PG_VERSION", b"16\n").parent().unwrap().to_owned();
    fixture.proc.process(70, &fixture.postgres).cwd(&data).listens(5432).create();
    assert_eq!(found(&fixture.scan()).version, None);
}

#[test]
fn a_directory_without_a_cluster_is_not_a_data_directory() {
    let mut fixture = Fixture::new();
    fixture.proc.process(70, &fixture.postgres).cwd(Path::new("/")).listens(5432).create();
    let instance = found(&fixture.scan());
    assert_eq!((instance.data_dir.as_deref(), instance.version.as_deref()), (None, Some("15.20")));
}

#[test]
fn names_and_ports_prove_nothing() {
    let mut fixture = Fixture::new();
    let decoy = fixture.proc.file("bin/postgres", &Elf::new().exports(&["main"]).strings(&[POSTGRES_VERSION]).build());
    fixture.proc.process(70, &decoy).listens(5432).create();
    fixture.proc.process(71, &fixture.shell).listens(3306).create();
    assert_eq!(fixture.scan(), []);
    assert_eq!(fixture.pass(Duration::from_secs(90)), []);
}

#[test]
fn children_that_hold_the_sockets_are_not_servers() {
    let mut fixture = Fixture::new();
    // Lower in number than the postmaster: looked at first.
    fixture.proc.process(60, &fixture.postgres).parent(70).create();
    fixture.starting(70);
    fixture.proc.listen(70, 5432);
    fixture.proc.inherit(60, 5432);
    fixture.proc.process(80, &fixture.postgres).parent(70).create();
    fixture.proc.process(81, &fixture.shell).parent(70).create();
    fixture.proc.children(70, "60 80 81 ");
    assert_eq!(found(&fixture.scan()).key.pid, 70);
    assert_eq!(fixture.pass(Duration::from_secs(61)), []);
    assert_eq!(fixture.discovery.backends(70), [60, 80]);
}

#[test]
fn a_server_that_starts_is_found_within_a_second_of_listening() {
    for (start_up, limit) in [(5, 100), (50, 100), (3_000, 200), (600_000, 500)] {
        let mut fixture = Fixture::new();
        fixture.scan();
        fixture.starting(70);
        fixture.discovery.process_started(70, fixture.now);
        assert_eq!(fixture.pass(Duration::from_millis(start_up)), [], "{start_up}");
        fixture.proc.listen(70, 5432);
        let changes = fixture.pass(Duration::from_millis(limit));
        assert_eq!(found(&changes).listen, [tcp(5432)]);
    }
}

#[test]
fn a_server_is_found_without_the_kernels_events() {
    let mut fixture = Fixture::new();
    fixture.scan();
    // A script does things for a while and then executes the server.
    fixture.proc.process(70, &fixture.shell).cwd(&fixture.data).create();
    assert_eq!(fixture.pass(Duration::from_secs(20)), []);
    fixture.proc.execute(70, &fixture.postgres);
    assert_eq!(fixture.pass(Duration::from_secs(20)), []);
    fixture.proc.listen(70, 5432);
    assert_eq!(found(&fixture.pass(Duration::from_secs(1))).key.pid, 70);

    fixture.starting(71);
    fixture.proc.listen(71, 5433);
    assert_eq!(found(&fixture.pass(Duration::from_secs(1))).key.pid, 71, "it listened from the first look");
}

#[test]
fn a_daemon_forked_after_exec_is_found() {
    let mut fixture = Fixture::new();
    fixture.scan();
    fixture.starting(70);
    fixture.discovery.process_started(70, fixture.now);
    fixture.proc.process(71, &fixture.postgres).parent(70).cwd(&fixture.data).create();
    fixture.proc.children(70, "71");
    assert_eq!(fixture.pass(Duration::from_millis(300)), []);
    fixture.proc.listen(71, 5432);
    let changes = fixture.pass(Duration::from_secs(1));
    assert_eq!(found(&changes).key.pid, 71);
}

#[test]
fn an_end_is_reported_at_once_or_noticed_within_a_second() {
    let mut fixture = Fixture::new();
    for pid in [70, 71, 72] {
        fixture.proc.process(pid, &fixture.postgres).cwd(&fixture.data).listens(5400 + pid as u16).create();
    }
    assert_eq!(fixture.scan().len(), 3);
    let gone = |pid| Change::Gone(ServerKey { pid, start_ticks: u64::from(pid) + 100 });
    assert_eq!(fixture.discovery.process_ended(70), [gone(70)]);
    assert_eq!(fixture.discovery.process_ended(70), []);
    fixture.proc.end(70);

    fixture.proc.end(71);
    assert_eq!(fixture.pass(Duration::from_secs(1)), [gone(71)]);

    // The number is used again at once: another server, with another start.
    fixture.proc.end(72);
    fixture.proc.process(72, &fixture.postgres).start_ticks(999).cwd(&fixture.data).listens(5500).create();
    let changes = fixture.pass(Duration::from_secs(1));
    let [first, Change::Found(instance)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(first, &gone(72));
    assert_eq!(instance.key.start_ticks, 999);
}

#[test]
fn a_server_that_executes_something_else_is_gone() {
    let mut fixture = Fixture::new();
    fixture.proc.process(70, &fixture.postgres).cwd(&fixture.data).listens(5432).create();
    fixture.scan();
    fixture.proc.execute(70, &fixture.shell);
    fixture.discovery.process_started(70, fixture.now);
    assert_eq!(fixture.pass(Duration::from_millis(50)), [Change::Gone(ServerKey { pid: 70, start_ticks: 170 })]);
}

#[test]
fn a_further_socket_is_an_update() {
    let mut fixture = Fixture::new();
    fixture.proc.process(70, &fixture.postgres).cwd(&fixture.data).listens(5432).create();
    let first = found(&fixture.scan());
    fixture.proc.listen(70, 5433);
    let changes = fixture.pass(Duration::from_secs(1));
    let [Change::Updated(second)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(second.listen, [tcp(5432), tcp(5433)]);
    assert_eq!(second.service_instance_id, first.service_instance_id);
    assert_eq!(fixture.pass(Duration::from_secs(120)), []);
}

#[test]
fn a_static_build_is_found_by_its_messages() {
    let mut fixture = Fixture::new();
    let messages = [
        "database system is ready to accept connections",
        "received smart shutdown request",
        "invalid length of startup packet",
        POSTGRES_VERSION,
    ];
    let program = fixture.proc.file("bin/static", &Elf::new().strings(&messages).padded(8 << 20).build());
    fixture.scan();
    fixture.proc.process(70, &program).cwd(&fixture.data).create();
    fixture.discovery.process_started(70, fixture.now);
    assert_eq!(fixture.pass(Duration::from_secs(5)), []);
    fixture.proc.listen(70, 5432);
    assert_eq!(found(&fixture.pass(Duration::from_secs(1))).version.as_deref(), Some("15.20"));
}

#[test]
fn the_watch_list_is_bounded_and_empties_itself() {
    let mut fixture = Fixture::new();
    fixture.scan();
    for pid in 10_000..10_000 + 2 * WATCH_LIMIT as u32 {
        fixture.discovery.process_started(pid, fixture.now);
    }
    assert_eq!(fixture.discovery.watched.len(), WATCH_LIMIT);
    assert_eq!(fixture.discovery.counters().unwatched, WATCH_LIMIT as u64);
    assert_eq!(fixture.pass(Duration::from_secs(1)), []);
    assert_eq!(fixture.discovery.watched.len(), 0, "none of them exists");
}

#[test]
fn what_no_event_told_is_found_by_the_next_scan_in_pieces() {
    let mut fixture = Fixture::new();
    fixture.scan();
    // Links to one file: a thousand directories take seconds to make. They are processes that cannot be read.
    let file = fixture.proc.file("anything", b"");
    for pid in 1000..1000 + 2 * SCAN_PIECE as u32 {
        std::fs::hard_link(&file, fixture.proc.root().join(pid.to_string())).unwrap();
    }
    for pid in [70, 99_999] {
        fixture.proc.process(pid, &fixture.shell).cwd(&fixture.data).create();
    }
    fixture.pass(Duration::from_secs(1));
    // Events come, but not those of these two.
    fixture.discovery.process_started(5000, fixture.now);
    fixture.discovery.watched.clear();
    for (pid, port) in [(70, 5432), (99_999, 5433)] {
        fixture.proc.execute(pid, &fixture.postgres);
        fixture.proc.listen(pid, port);
    }
    assert_eq!(fixture.pass(Duration::from_secs(58)), []);
    let changes = fixture.pass(Duration::from_secs(2));
    let mut found: Vec<u32> = changes
        .iter()
        .map(|change| match change {
            Change::Found(instance) => instance.key.pid,
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [70, 99_999]);
    assert_eq!(fixture.discovery.unseen().count(), UNSEEN_LIMIT);
    assert!(fixture.discovery.counters().unseen_omitted > 0);
}

#[test]
fn programs_that_are_no_servers_are_not_watched_after_exec() {
    let mut fixture = Fixture::new();
    fixture.scan();
    fixture.proc.process(70, &fixture.shell).create();
    fixture.discovery.process_started(70, fixture.now);
    fixture.pass(Duration::from_millis(30));
    assert_eq!(fixture.discovery.watched.len(), 0);
}

#[test]
fn hidden_processes_are_told() {
    let mut fixture = Fixture::new();
    fixture.scan();
    assert_eq!(fixture.discovery.unseen().count(), 0);
    fixture.proc.end(1);
    fixture.scan();
    let unseen: Vec<_> = fixture.discovery.unseen().cloned().collect();
    assert_eq!(unseen.len(), 1);
    assert!(matches!(&unseen[0], Unseen { pid: None, verdict: Verdict::Denied(why), .. } if why.contains("hidepid")));
}

#[test]
fn a_missing_procfs_is_told() {
    let config = Config { proc_root: PathBuf::from("/nonexistent"), ..Config::default() };
    let mut discovery = Discovery::new(config);
    assert_eq!(discovery.scan(Instant::now()), []);
    let unseen: Vec<_> = discovery.unseen().collect();
    assert!(matches!(&unseen[0].verdict, Verdict::Broken(why) if why.contains("/nonexistent")), "{unseen:?}");
}

#[test]
fn half_a_process_directory_is_no_reason_to_panic() {
    let mut fixture = Fixture::new();
    for (pid, missing) in (70..).zip(["stat", "status", "fd", "exe", "cwd", "root", "cgroup", "net", "ns/net"]) {
        fixture.proc.process(pid, &fixture.postgres).cwd(&fixture.data).listens(5400 + pid as u16).create();
        let path = fixture.proc.root().join(pid.to_string()).join(missing);
        if path.is_dir() && !path.is_symlink() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }
            .unwrap();
    }
    fixture.scan();
    fixture.pass(Duration::from_secs(61));
}

#[test]
fn configuration_refuses_unknown_keys() {
    let config: Config = serde_json::from_str(r#"{"rescan_interval_seconds": 5}"#).unwrap();
    assert_eq!(config, Config { rescan_interval_seconds: 5, ..Config::default() });
    assert!(serde_json::from_str::<Config>(r#"{"rescan": 5}"#).is_err());
}
