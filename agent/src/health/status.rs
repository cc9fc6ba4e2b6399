//! The one shape in which the agent tells its state: JSON lines on the console, `/status`, `querylens top` and everything that reads them.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration, time::UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Collect, Known};
use crate::model::{
    self, AgentStats, Code, Ending, Engine, InstanceSnapshot, SessionCounts, Snapshot, StatementSnapshot,
    TransactionStats, Verdict,
};

/// The agent and all servers at one moment. Counts and times are cumulative since the agent found the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// When, in Unix seconds.
    pub at: f64,
    /// Seconds since the agent started to count.
    pub uptime_s: f64,
    /// The agent itself.
    pub agent: Agent,
    /// What was probed at start, in the order of probing.
    pub features: Vec<Feature>,
    /// The servers that run now, ordered by engine and pid.
    pub instances: Vec<Instance>,
}

/// What the agent itself costs and loses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Version.
    pub version: String,
    /// CPU time of the process in milliseconds.
    pub cpu_ms: f64,
    /// Run time of the eBPF programs in milliseconds; `null` where kernel.bpf_stats_enabled is 0.
    pub program_ms: Option<f64>,
    /// Resident memory in MiB.
    pub rss_mib: f64,
    /// Records read from the ring buffer.
    pub records: u64,
    /// Records that carried information and are gone.
    pub events_lost: u64,
    /// Records lost, cut or refused, by cause.
    pub losses: BTreeMap<String, u64>,
}

/// Outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// What was probed.
    pub name: String,
    /// `ok`, `unsupported`, `denied`, `broken` or `not applicable`.
    pub verdict: String,
    /// Why, empty for `ok`.
    pub reason: String,
}

/// A database server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// `postgresql`, `mysql` or `mariadb`.
    pub engine: String,
    /// `pgbouncer` or `proxysql`, if it stands in front of servers of that engine.
    pub pooler: Option<String>,
    /// Version as the server writes it.
    pub version: Option<String>,
    /// Process id of its main process.
    pub pid: u32,
    /// Executable.
    pub executable: String,
    /// Data directory.
    pub data_dir: Option<String>,
    /// Where it accepts connections: `tcp:ADDRESS:PORT`, `unix:PATH`.
    pub listen: Vec<String>,
    /// Container it runs in.
    pub container: Option<Container>,
    /// Identity that a restart keeps.
    pub service_instance_id: String,
    /// How its wire is seen.
    pub wire: Wire,
    /// Over what the sessions came: `unix`, `tcp`, `tcp+unix` or `none`.
    pub transport: String,
    /// Sessions by state.
    pub sessions: Sessions,
    /// Connections accepted.
    pub connects: u64,
    /// Connection attempts refused, by error code.
    pub connect_failures: BTreeMap<String, u64>,
    /// Executions of all statements, whether listed below or not.
    pub executions: u64,
    /// Executions that failed.
    pub errors: u64,
    /// Mean duration in microseconds.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Losses that hit its sessions, by cause.
    pub losses: BTreeMap<String, u64>,
    /// Transactions that have ended.
    pub transactions: Transactions,
    /// Executions that failed or were slow, the latest last.
    pub outliers: Vec<Outlier>,
    /// Statements by total time, heaviest first.
    pub statements: Vec<Statement>,
    /// What the database said of itself; absent where nobody asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collect: Option<Collect>,
}

/// Transactions of a server that lasted longer than a statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transactions {
    /// How many were committed.
    pub committed: u64,
    /// How many were rolled back.
    pub rolled_back: u64,
    /// Mean duration in microseconds.
    pub mean_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Time within them that the server waited for its clients, in milliseconds.
    pub idle_ms: f64,
}

/// An execution that failed or was slow for its statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// Database or schema.
    pub database: Option<String>,
    /// User.
    pub user: Option<String>,
    /// Identity of the normalised statement: 16 hexadecimal digits.
    pub fingerprint: String,
    /// How long it took, in microseconds.
    pub duration_us: f64,
    /// Error code, `_OTHER` for a failure without one; absent if it was slow only.
    pub error: Option<String>,
    /// Rows sent and changed.
    pub rows: u64,
}

/// Container, chroot or namespace of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Runtime by the shape of the cgroup path.
    pub runtime: String,
    /// Container id.
    pub id: Option<String>,
    /// Kubernetes pod UID.
    pub pod_uid: Option<String>,
    /// Root directory as the host sees it, for a chroot.
    pub root: Option<String>,
}

/// Whether and how the agent sees a server's wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// `visible` or `hidden`.
    pub state: String,
    /// Attach strategy.
    pub strategy: String,
    /// Why this one, or why nothing is visible.
    pub reason: String,
}

/// Sessions by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Executing a command.
    pub active: u64,
    /// Waiting for a command outside a transaction.
    pub idle: u64,
    /// Waiting for a command inside a transaction.
    pub idle_in_transaction: u64,
    /// Waiting for a command inside a failed transaction.
    pub idle_in_failed_transaction: u64,
    /// In start-up or authentication.
    pub starting: u64,
    /// Nothing provable seen yet.
    pub unknown: u64,
    /// Encrypted, compressed or otherwise not followed.
    pub opaque: u64,
}

/// A statement of one database and user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Database or default schema; `null` where the connection is older than the agent.
    pub database: Option<String>,
    /// Database user; `null` likewise.
    pub user: Option<String>,
    /// Identity of the normalised statement: 16 hexadecimal digits.
    pub fingerprint: String,
    /// Text without literals.
    pub text: String,
    /// Operations and targets.
    pub summary: String,
    /// First keyword.
    pub operation: Option<String>,
    /// Table, where there is exactly one.
    pub collection: Option<String>,
    /// Executions, successful or not.
    pub executions: u64,
    /// Executions that failed.
    pub errors: u64,
    /// The same by error code; `_OTHER` is what failed without one.
    pub error_codes: BTreeMap<String, u64>,
    /// Preparations that were not part of an execution.
    pub prepares: u64,
    /// Preparations that failed: among the errors, but not among the executions.
    pub failed_prepares: u64,
    /// Rows sent to clients.
    pub rows_sent: u64,
    /// Rows inserted, updated or deleted.
    pub rows_affected: u64,
    /// Request bytes.
    pub bytes_in: u64,
    /// Response bytes.
    pub bytes_out: u64,
    /// Time in all executions, in milliseconds.
    pub total_ms: f64,
    /// Mean duration in microseconds.
    pub mean_us: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
    /// Mean time to the first byte of the response.
    pub first_byte_mean_us: f64,
    /// Executions whose duration is an estimate.
    pub estimated: u64,
    /// Executions whose text was cut.
    pub truncated: u64,
    /// What the server and the kernel know of it; absent where nobody asks the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

impl Status {
    /// Renders `snapshot`, with at most the `top` heaviest statements of each server.
    pub fn new(snapshot: &Snapshot, top: Option<usize>) -> Status {
        let feature = |(name, verdict): &(&'static str, Verdict)| Feature {
            name: (*name).to_owned(),
            verdict: verdict.word().to_owned(),
            reason: verdict.reason().to_owned(),
        };
        Status {
            at: snapshot.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            uptime_s: snapshot.at.duration_since(snapshot.start).unwrap_or_default().as_secs_f64(),
            agent: agent(&snapshot.agent),
            features: snapshot.features.iter().map(feature).collect(),
            instances: snapshot
                .instances
                .iter()
                .map(|server| {
                    let collected = snapshot.collected.get(&server.instance.key);
                    let collect = collected.map(|collected| Collect::new(collected, top));
                    Instance { collect, ..instance(server, top) }
                })
                .collect(),
        }
    }
}

fn agent(stats: &AgentStats) -> Agent {
    Agent {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        cpu_ms: millis(stats.cpu),
        program_ms: stats.program_time.map(millis),
        rss_mib: stats.rss_bytes as f64 / f64::from(1 << 20),
        records: stats.records,
        events_lost: stats.events_lost(),
        losses: counts(&stats.losses),
    }
}

fn instance(server: &InstanceSnapshot, top: Option<usize>) -> Instance {
    let model::Instance {
        key,
        engine,
        pooler,
        version,
        executable,
        data_dir,
        uid: _,
        listen,
        container,
        service_instance_id,
    } = &*server.instance;
    let mut heaviest: Vec<_> = server.statements.iter().collect();
    heaviest.sort_by_cached_key(|row| {
        (Reverse(row.stats.total()), row.digest.fingerprint, row.database.clone(), row.user.clone())
    });
    heaviest.truncate(top.unwrap_or(usize::MAX));
    let durations = server.durations();
    Instance {
        engine: Engine::name(*engine).to_owned(),
        pooler: pooler.map(|pooler| pooler.name().to_owned()),
        version: version.clone(),
        pid: key.pid,
        executable: executable.to_string_lossy().into_owned(),
        data_dir: data_dir.as_ref().map(|path| path.to_string_lossy().into_owned()),
        listen: listen.iter().map(ToString::to_string).collect(),
        container: container.as_ref().map(|container| Container {
            runtime: container.runtime.clone(),
            id: container.id.clone(),
            pod_uid: container.pod_uid.clone(),
            root: container.root.as_ref().map(|root| root.to_string_lossy().into_owned()),
        }),
        service_instance_id: service_instance_id.to_string(),
        wire: Wire {
            state: server.wire.state.to_owned(),
            strategy: server.wire.strategy.to_owned(),
            reason: server.wire.reason.clone(),
        },
        transport: server.transport.to_owned(),
        sessions: server.sessions.into(),
        connects: server.connects,
        connect_failures: by_code(server.connect_failures.iter().map(|(code, count)| (*code, *count))),
        executions: durations.count(),
        errors: server.errors(),
        mean_us: micros(durations.mean()),
        p50_us: micros(durations.quantile(0.5)),
        p99_us: micros(durations.quantile(0.99)),
        losses: counts(&server.losses),
        transactions: transactions(&server.transactions),
        outliers: server.outliers.iter().map(outlier).collect(),
        statements: heaviest.into_iter().map(statement).collect(),
        collect: None,
    }
}

fn transactions(stats: &TransactionStats) -> Transactions {
    let mut all = stats.committed.clone();
    all.merge(&stats.rolled_back);
    Transactions {
        committed: stats.committed.count(),
        rolled_back: stats.rolled_back.count(),
        mean_us: micros(all.mean()),
        p99_us: micros(all.quantile(0.99)),
        idle_ms: millis(stats.idle),
    }
}

fn outlier(outlier: &model::Outlier) -> Outlier {
    let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    Outlier {
        database: owned(&outlier.database),
        user: owned(&outlier.user),
        fingerprint: outlier.digest.hex(),
        duration_us: micros(outlier.duration),
        error: match outlier.ending {
            Ending::Ok => None,
            Ending::Failed(code) => Some(Code::error_type(code).into_owned()),
            Ending::Incomplete => Some(Code::error_type(None).into_owned()),
        },
        rows: outlier.rows,
    }
}

fn statement(row: &StatementSnapshot) -> Statement {
    let (stats, digest) = (&row.stats, &row.digest);
    let durations = stats.durations();
    let owned = |text: &Option<std::sync::Arc<str>>| text.as_deref().map(str::to_owned);
    Statement {
        database: owned(&row.database),
        user: owned(&row.user),
        fingerprint: digest.hex(),
        text: digest.text.to_string(),
        summary: digest.summary.to_string(),
        operation: owned(&digest.operation),
        collection: owned(&digest.collection),
        executions: durations.count(),
        errors: stats.errors(),
        error_codes: by_code(stats.errors_by_code().iter().map(|(code, count)| (*code, *count))),
        prepares: stats.prepares,
        failed_prepares: stats.failed_prepares.values().sum(),
        rows_sent: stats.rows_sent,
        rows_affected: stats.rows_affected,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        total_ms: millis(stats.total()),
        mean_us: micros(durations.mean()),
        p50_us: micros(durations.quantile(0.5)),
        p99_us: micros(durations.quantile(0.99)),
        max_us: micros(durations.max()),
        first_byte_mean_us: micros(stats.first_byte.get()),
        estimated: stats.estimated,
        truncated: stats.truncated,
        known: stats.known.as_deref().map(Known::new),
    }
}

impl From<SessionCounts> for Sessions {
    fn from(counts: SessionCounts) -> Sessions {
        let SessionCounts { active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown, opaque } =
            counts;
        Sessions { active, idle, idle_in_transaction, idle_in_failed_transaction, starting, unknown, opaque }
    }
}

fn by_code(codes: impl Iterator<Item = (Option<Code>, u64)>) -> BTreeMap<String, u64> {
    codes.map(|(code, count)| (Code::error_type(code).into_owned(), count)).collect()
}

pub(super) fn counts(losses: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    losses.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect()
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::model::testing::{self, HOSTILE};

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn every_number_is_where_its_readers_look() {
        let status = serde_json::to_value(Status::new(&testing::busy(), None)).unwrap();
        assert_eq!(keys(&status), ["agent", "at", "features", "instances", "uptime_s"]);
        assert_eq!((&status["at"], &status["uptime_s"]), (&json!(1_700_000_060.5), &json!(60.5)));
        assert_eq!(
            status["agent"],
            json!({
                "version": env!("CARGO_PKG_VERSION"), "cpu_ms": 1250.0, "program_ms": 75.0, "rss_mib": 32.0, "records": 1000,
                "events_lost": 4, "losses": { "ring_full_data": 4, "truncated": 9 },
            })
        );
        assert_eq!(status["features"], json!([{ "name": "ring_buffer", "verdict": "ok", "reason": "" }]));
        let mut first = status["instances"][0].clone();
        let statements = first.as_object_mut().unwrap().remove("statements").unwrap();
        let collect = first.as_object_mut().unwrap().remove("collect").unwrap();
        assert_eq!(collect["joined"], json!({ "matched": 6, "ambiguous": 2, "unmatched": 1 }));
        for quantile in ["p50_us", "p99_us"] {
            let value = first.as_object_mut().unwrap().remove(quantile).unwrap().as_f64().unwrap();
            let truth = if quantile == "p50_us" { 3_000.0 } else { 2_000_000.0 };
            assert!((value / truth - 1.0).abs() < 0.0906, "{quantile}: {value}");
        }
        assert_eq!(
            first,
            json!({
                "engine": "postgresql", "pooler": null, "version": "15.18", "pid": 4711, "executable": "/usr/lib/postgresql/15/bin/postgres",
                "data_dir": "/var/lib/postgresql/15/main", "listen": ["tcp:127.0.0.1:5432", "unix:/run/postgresql/.s.PGSQL.5432"],
                "container": null, "service_instance_id": "00000000-0000-0000-0000-000000001234",
                "wire": { "state": "visible", "strategy": "boundary", "reason": "symbols are there" },
                "transport": "tcp+unix",
                "sessions": { "active": 3, "idle": 5, "idle_in_transaction": 0, "idle_in_failed_transaction": 0, "starting": 0,
                              "unknown": 0, "opaque": 1 },
                "connects": 12, "connect_failures": { "28P01": 2, "_OTHER": 1 },
                "executions": 6, "errors": 3, "mean_us": 341_833.333, "losses": { "desynchronised": 6 },
                "transactions": { "committed": 2, "rolled_back": 1, "mean_us": 12_000.0, "p99_us": 30_000.0, "idle_ms": 1_500.0 }, "outliers": [],
            })
        );
        let mut statement = statements[0].clone();
        for quantile in ["p50_us", "p99_us"] {
            statement.as_object_mut().unwrap().remove(quantile).unwrap();
        }
        assert_eq!(
            statement,
            json!({
                "database": "bench", "user": "app", "fingerprint": "000000000000feed",
                "text": "SELECT * FROM pgbench_accounts WHERE aid = ?", "summary": "SELECT * FROM pgbench_accounts WHERE aid = ?",
                "operation": "SELECT", "collection": "pgbench_accounts",
                "executions": 6, "errors": 3, "error_codes": { "42P01": 2, "_OTHER": 1 },
                "prepares": 4, "failed_prepares": 0, "rows_sent": 300, "rows_affected": 7, "bytes_in": 1000, "bytes_out": 50000,
                "total_ms": 2051.0, "mean_us": 341_833.333, "max_us": 2_000_000.0, "first_byte_mean_us": 400.0,
                "estimated": 2, "truncated": 1,
                "known": {
                    "join": "matched", "source": "pg_stat_statements", "ids": ["-77"], "calls": 6, "exec_ms": 51.0,
                    "waits_ms": { "Lock": 4000.0 }, "cpu_ms": 1500.0, "run_queue_ms": 20.0, "block_io_ms": 10.0,
                    "read_bytes": 8192, "written_bytes": null,
                },
            })
        );
        let container = &status["instances"][1]["container"];
        assert_eq!(*container, json!({ "runtime": "docker", "id": "c0ffee", "pod_uid": "pod-1", "root": null }));
    }

    #[test]
    fn the_heaviest_go_first_and_top_limits_only_the_list() {
        let rows: Vec<_> = [3u64, 9, 1, 7]
            .into_iter()
            .map(|millis| {
                let mut row = testing::statement("bench", "app", millis, "SELECT 1");
                row.stats.ok.record(Duration::from_millis(millis));
                row
            })
            .collect();
        let status = Status::new(&testing::with_statements(rows), Some(2));
        let totals: Vec<_> = status.instances[0].statements.iter().map(|row| row.total_ms).collect();
        assert_eq!(totals, [9.0, 7.0]);
        assert_eq!(status.instances[0].executions, 4);
    }

    #[test]
    fn hostile_names_survive_and_paths_that_are_not_utf8_do_not_break_it() {
        let mut snapshot = testing::with_statements(vec![testing::statement(HOSTILE, HOSTILE, 7, HOSTILE)]);
        let mut instance = (*snapshot.instances[1].instance).clone();
        let path: std::path::PathBuf =
            std::ffi::OsString::into(std::os::unix::ffi::OsStringExt::from_vec(b"/data/\xff\"x".to_vec()));
        (instance.executable, instance.data_dir) = (path.clone(), Some(path.clone()));
        instance.listen = vec![crate::model::Listen::Unix(path.clone())];
        instance.container.as_mut().unwrap().root = Some(path);
        snapshot.instances[1].instance = instance.into();
        let status = Status::new(&snapshot, None);
        let read: Status = serde_json::from_str(&serde_json::to_string(&status).unwrap()).unwrap();
        assert_eq!(read, status, "what is written reads back");
        assert_eq!(read.instances[0].statements[0].text, HOSTILE);
        assert_eq!(read.instances[1].executable, "/data/\u{fffd}\"x");
        assert_eq!(read.instances[1].container.as_ref().unwrap().root.as_deref(), Some("/data/\u{fffd}\"x"));
        assert_eq!(read.instances[1].listen, ["unix:/data/\u{fffd}\"x"]);
    }
}
