//! The agent's `/status` as its readers see it: only what tests and the demo read, and no type of the agent's own, so that a change of
//! its shape is noticed here.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

/// Everything at one moment.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Seconds since the agent started.
    pub uptime_s: f64,
    /// The agent itself.
    pub agent: AgentStatus,
    /// The servers that run now.
    pub instances: Vec<InstanceStatus>,
}

/// What the agent costs and loses.
#[derive(Clone, Debug, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// CPU time of its process in milliseconds.
    pub cpu_ms: f64,
    /// Run time of its eBPF programs in milliseconds, where the kernel keeps it.
    pub program_ms: Option<f64>,
    /// Resident memory.
    pub rss_mib: f64,
    /// Records read.
    pub records: u64,
    /// Records that are gone.
    pub events_lost: u64,
    /// Losses by cause.
    pub losses: BTreeMap<String, u64>,
}

/// One server.
#[derive(Clone, Debug, Deserialize)]
pub struct InstanceStatus {
    /// `postgresql`, `mysql` or `mariadb`.
    pub engine: String,
    /// `pgbouncer` or `proxysql`.
    pub pooler: Option<String>,
    /// As the server itself writes it.
    pub version: Option<String>,
    /// Main process.
    pub pid: u32,
    /// Path in the server's mount namespace.
    pub executable: String,
    /// Path in the server's mount namespace.
    pub data_dir: Option<String>,
    /// `tcp:ADDRESS` or `unix:PATH`.
    pub listen: Vec<String>,
    /// Container, chroot or namespace.
    pub container: Option<serde_json::Value>,
    /// UUID.
    pub service_instance_id: String,
    /// Whether and how its wire is seen.
    pub wire: WireStatus,
    /// `unix`, `tcp`, `tcp+unix` or `none`.
    pub transport: String,
    /// Executions over all statements.
    pub executions: u64,
    /// Errors over all statements.
    pub errors: u64,
    /// Microseconds, over all statements.
    pub p50_us: f64,
    /// Microseconds, over all statements.
    pub p99_us: f64,
    /// Transactions that ended.
    pub transactions: TransactionsStatus,
    /// Losses by cause.
    pub losses: BTreeMap<String, u64>,
    /// Rows of statistics.
    pub statements: Vec<StatementStatus>,
    /// What the database said of itself, where it is asked.
    #[serde(default)]
    pub collect: serde_json::Value,
}

/// Transactions of one server.
#[derive(Clone, Debug, Deserialize)]
pub struct TransactionsStatus {
    /// Those that were committed.
    pub committed: u64,
    /// Those that were rolled back.
    pub rolled_back: u64,
    /// Time in them that the server waited for its client, milliseconds.
    pub idle_ms: f64,
}

/// How a server's wire is seen.
#[derive(Clone, Debug, Deserialize)]
pub struct WireStatus {
    /// `visible`, `hidden`, or `gone` for a server that has ended.
    pub state: String,
    /// `boundary`, `socket`, `syscall` or `none`.
    pub strategy: String,
    /// Why.
    pub reason: String,
}

/// One (database, user, fingerprint).
#[derive(Clone, Debug, Deserialize)]
pub struct StatementStatus {
    /// Database or schema.
    pub database: Option<String>,
    /// Database user.
    pub user: Option<String>,
    /// 16 hexadecimal digits.
    pub fingerprint: String,
    /// Normalised text.
    pub text: String,
    /// Executions, successful or not.
    pub executions: u64,
    /// Executions and preparations that failed.
    pub errors: u64,
    /// Preparations that failed.
    pub failed_prepares: u64,
    /// Failed executions and preparations by error code.
    pub error_codes: BTreeMap<String, u64>,
    /// Rows sent.
    pub rows_sent: u64,
    /// Sum of durations, milliseconds.
    pub total_ms: f64,
    /// Microseconds.
    pub mean_us: f64,
    /// Microseconds.
    pub p50_us: f64,
    /// Microseconds.
    pub p99_us: f64,
    /// Microseconds.
    pub max_us: f64,
    /// What the server and the kernel know of it, where the server is asked.
    #[serde(default)]
    pub known: serde_json::Value,
}

impl Status {
    /// Reads it.
    pub fn parse(json: &str) -> Result<Status> {
        serde_json::from_str(json).context("the agent's status does not have the documented shape")
    }

    /// The server with this main process.
    pub fn instance(&self, pid: u32) -> Option<&InstanceStatus> {
        self.instances.iter().find(|instance| instance.pid == pid)
    }

    /// Executions of all servers.
    pub fn executions(&self) -> u64 {
        self.instances.iter().map(|instance| instance.executions).sum()
    }
}

impl InstanceStatus {
    /// Successful executions per fingerprint, over all databases and users.
    pub fn by_fingerprint(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for row in &self.statements {
            *sums.entry(row.fingerprint.clone()).or_default() += row.executions - (row.errors - row.failed_prepares);
        }
        sums
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &InstanceStatus) -> BTreeMap<String, u64> {
        let earlier = before.by_fingerprint();
        let now = self.by_fingerprint().into_iter();
        now.map(|(key, count)| {
            let rest = count - earlier.get(&key).copied().unwrap_or(0);
            (key, rest)
        })
        .collect()
    }

    /// Everything a failed comparison should show.
    pub fn table(&self) -> String {
        let rows = self.statements.iter().map(|row| {
            let (database, user) = (row.database.as_deref().unwrap_or("?"), row.user.as_deref().unwrap_or("?"));
            format!("  {:>9} {} {database} {user} {} {:?}", row.executions, row.fingerprint, row.text, row.error_codes)
        });
        let head = format!("{} {} {:?} losses {:?}", self.engine, self.pid, self.wire, self.losses);
        std::iter::once(head).chain(rows).collect::<Vec<_>>().join("\n")
    }
}
