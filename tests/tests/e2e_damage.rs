//! Guarantee: a database that suffers is left alone. Whatever it suffers from, a question that goes wrong is not asked a fourth time, the agent has no more than two
//! connections and waits for no lock for longer than a tenth of a second, the wire is counted on, and once the database is well it is asked again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use querylens_tests::{
    agent::{Agent, AgentOptions},
    client::PostgresClient,
    process::{sleep, wait_for},
    servers::{Postgres, PostgresOptions},
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);
/// A circuit is first tried again after a minute, give or take a fifth.
const RECOVERY: Duration = Duration::from_secs(90);

/// A server, its agent, and sessions that were there before the damage.
struct Scene {
    server: Postgres,
    agent: Agent,
    watcher: PostgresClient,
    application: PostgresClient,
    executed: u64,
}

impl Scene {
    /// Everything is asked and answered.
    fn new(settings: &[(&str, &str)]) -> Scene {
        let mut options = PostgresOptions::new(17);
        options.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let server = Postgres::start(options).unwrap();
        server.client("postgres").unwrap().query("CREATE EXTENSION pg_stat_statements").unwrap();
        let agent = Agent::start(AgentOptions::collecting("")).unwrap();
        agent.wait_visible(server.pid()).unwrap();
        let (watcher, application) = (server.client("postgres").unwrap(), server.client("postgres").unwrap());
        let mut scene = Scene { server, agent, watcher, application, executed: 0 };
        for name in ["activity", "statements", "server", "tables", "replication"] {
            scene.wait(name, "to be answered", PATIENCE, |question| question["last"] == "answered");
        }
        scene
    }

    fn question(&self, name: &str) -> Option<Value> {
        let status = self.agent.status().unwrap();
        let questions = status.instance(self.server.pid())?.collect["questions"].as_array()?.clone();
        questions.into_iter().find(|question| question["name"] == name)
    }

    /// Waits for something to be true of a question; meanwhile the agent has at most two connections, and the wire is counted.
    #[track_caller]
    fn wait(&mut self, name: &str, what: &str, patience: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = wait_for(&format!("{name} {what}"), patience, || {
            self.work();
            let sessions = self.sessions();
            assert!(sessions.len() <= 2, "{sessions:?}");
            last = self.question(name);
            Ok(last.clone().filter(&holds))
        });
        found.unwrap_or_else(|error| panic!("{error:#}\n{last:#?}\n{}", self.agent.stderr()))
    }

    /// The agent's backends. No catalog is read, since those may be locked.
    fn sessions(&mut self) -> Vec<i32> {
        let sql = "SELECT pid FROM pg_stat_get_activity(NULL) WHERE application_name = 'querylens'";
        let rows = self.watcher.query(sql).unwrap();
        rows.into_iter().filter_map(|row| row[0].as_ref()?.parse().ok()).collect()
    }

    /// How long a session of the agent has been waiting for a lock, in milliseconds.
    fn waited(&mut self) -> f64 {
        let sql = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000), 0) \
                   FROM pg_lock_status() l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid \
                   WHERE a.application_name = 'querylens' AND NOT l.granted";
        self.watcher.value(sql).unwrap().parse().unwrap()
    }

    /// What an application does all the time.
    fn work(&mut self) {
        self.application.query("SELECT 'counted on the wire'::text").unwrap();
        self.executed += 1;
    }

    /// Everything that the application executed was counted on the wire.
    #[track_caller]
    fn counted(&self) {
        let status = self.agent.settled().unwrap();
        let instance = status.instance(self.server.pid()).unwrap();
        let rows = instance.statements.iter().filter(|row| row.text == "select ?::text");
        assert_eq!(rows.map(|row| row.executions).sum::<u64>(), self.executed, "{}", instance.table());
    }

    /// A question is held back after three failures at most, and asked again once the damage has gone.
    #[track_caller]
    fn opens(&mut self, name: &str, why: &str) {
        let before = self.question(name).unwrap()["failed"].as_u64().unwrap();
        let held = self.wait(name, "to be held", PATIENCE, |question| question["why_held"].is_string());
        let failed = held["failed"].as_u64().unwrap() - before;
        assert!(failed <= 3, "{failed} failures: {held:#}");
        assert_eq!(held["why_held"], why, "{held:#}");
        self.counted();
    }

    #[track_caller]
    fn recovers(&mut self, name: &str) {
        let asked = self.question(name).unwrap()["asked"].as_u64().unwrap();
        // Three canaries, and then some.
        let well = |question: &Value| question["last"] == "answered" && question["asked"].as_u64() >= Some(asked + 5);
        self.wait(name, "to be asked again", RECOVERY, well);
        self.counted();
    }
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_question_that_takes_too_long_is_left_alone() {
    let mut scene = Scene::new(&[]);
    let slow = "ALTER FUNCTION pg_stat_statements(boolean) RENAME TO fast; \
                CREATE FUNCTION pg_stat_statements(texts boolean) RETURNS SETOF pg_stat_statements LANGUAGE plpgsql \
                AS $$ BEGIN PERFORM pg_sleep(60); RETURN QUERY SELECT * FROM pg_stat_statements; END $$";
    scene.watcher.query(slow).unwrap();
    scene.opens("statements", "circuit open: timeout");
    // The others are asked as before.
    let asked = scene.question("activity").unwrap()["asked"].as_u64();
    scene.wait("activity", "to be asked", PATIENCE, |question| question["asked"].as_u64() > asked);
    scene
        .watcher
        .query("DROP FUNCTION pg_stat_statements(boolean); ALTER FUNCTION fast(boolean) RENAME TO pg_stat_statements")
        .unwrap();
    scene.recovers("statements");
    assert!(scene.agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_locked_catalog_is_left_alone() {
    /// The agent's limit, and what watching may add.
    const LIMIT_MS: f64 = 100.0 + 50.0;
    let mut scene = Scene::new(&[]);
    let mut administrator = scene.server.client("postgres").unwrap();
    scene.waited();
    administrator.query("BEGIN; LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE").unwrap();
    let began = Instant::now();
    let mut longest = 0.0_f64;
    while began.elapsed() < Duration::from_secs(3) {
        longest = longest.max(scene.waited());
    }
    assert!(longest > 0.0, "nothing has waited for the lock");
    assert!(longest < LIMIT_MS, "a lock was waited for for {longest} ms");
    scene.opens("activity", "circuit open: locks");
    administrator.query("ROLLBACK").unwrap();
    scene.recovers("activity");
    assert!(scene.agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn a_server_without_connections_is_left_alone_as_a_whole() {
    let mut scene =
        Scene::new(&[("max_connections", "8"), ("superuser_reserved_connections", "0"), ("max_wal_senders", "0")]);
    scene.watcher.query("CREATE DATABASE other").unwrap();
    let mut crowd = Vec::new();
    // Also the connection that the agent may just have given back.
    for _ in 0..3 {
        while let Ok(client) = scene.server.client("postgres") {
            crowd.push(client);
            assert!(crowd.len() < 8);
        }
        sleep(Duration::from_millis(200)).unwrap();
    }
    // The next look at the tables of the other database needs a connection.
    scene.opens("activity", "circuit open: too many connections");
    drop(crowd);
    scene.recovers("activity");
    assert!(scene.agent.stop().unwrap().success());
}

#[test]
#[ignore = "needs root, eBPF and database servers; run by cargo xtask test"]
fn sessions_that_hang_are_not_replaced_without_end() {
    let mut scene = Scene::new(&[]);
    let mut stopped: Vec<i32> = Vec::new();
    let began = Instant::now();
    // Whatever comes is stopped.
    while began.elapsed() < Duration::from_secs(20) {
        scene.work();
        let sessions = scene.sessions();
        assert!(sessions.len() <= 2, "{sessions:?}");
        for pid in sessions {
            if !stopped.contains(&pid) {
                // SAFETY: the agent's backend, a process of the server that this test started.
                unsafe { libc::kill(pid, libc::SIGSTOP) };
                stopped.push(pid);
            }
        }
        sleep(Duration::from_millis(20)).unwrap();
    }
    assert_eq!(stopped.len(), 2, "{}", scene.agent.stderr());
    scene.counted();
    for pid in &stopped {
        // SAFETY: as above.
        unsafe { libc::kill(*pid, libc::SIGCONT) };
    }
    scene.recovers("activity");
    let sessions = scene.sessions();
    assert!(!sessions.iter().any(|pid| stopped.contains(pid)), "{sessions:?} {stopped:?}");
    assert!(scene.agent.stop().unwrap().success());
}
