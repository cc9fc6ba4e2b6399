//! A statement's statistics as its server keeps them.

use std::{sync::Arc, time::Duration};

use super::Digest;

/// Counters of one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerCounters {
    /// Executions that the server counted.
    pub calls: u64,
    /// Rows returned or changed.
    pub rows: u64,
    /// Time of execution.
    pub exec_time: Duration,
    /// Time of planning, where the server measures it (`pg_stat_statements.track_planning`).
    pub plan_time: Duration,
    /// Time waited for locks (MySQL and MariaDB).
    pub lock_time: Duration,
    /// Shared buffers found in memory, blocks of `block_size` (PostgreSQL).
    pub shared_hit: u64,
    /// Shared buffers read.
    pub shared_read: u64,
    /// Shared buffers dirtied.
    pub shared_dirtied: u64,
    /// Shared buffers written.
    pub shared_written: u64,
    /// Blocks of temporary files read.
    pub temp_read: u64,
    /// Blocks of temporary files written.
    pub temp_written: u64,
    /// Time of reading and writing shared buffers, where `track_io_timing` is on.
    pub io_time: Duration,
    /// Bytes of write-ahead log.
    pub wal_bytes: u64,
    /// Rows looked at (MySQL and MariaDB).
    pub rows_examined: u64,
    /// Executions that failed (MySQL and MariaDB).
    pub errors: u64,
    /// Executions that used no index (MySQL and MariaDB).
    pub no_index_used: u64,
    /// Temporary tables on disk (MySQL and MariaDB).
    pub tmp_disk_tables: u64,
}

impl ServerCounters {
    /// Adds all of `other`.
    pub fn add(&mut self, other: &ServerCounters) {
        let time = |own: &mut Duration, more: Duration| *own = own.saturating_add(more);
        time(&mut self.exec_time, other.exec_time);
        time(&mut self.plan_time, other.plan_time);
        time(&mut self.lock_time, other.lock_time);
        time(&mut self.io_time, other.io_time);
        let count = |own: &mut u64, more: u64| *own = own.saturating_add(more);
        count(&mut self.calls, other.calls);
        count(&mut self.rows, other.rows);
        count(&mut self.shared_hit, other.shared_hit);
        count(&mut self.shared_read, other.shared_read);
        count(&mut self.shared_dirtied, other.shared_dirtied);
        count(&mut self.shared_written, other.shared_written);
        count(&mut self.temp_read, other.temp_read);
        count(&mut self.temp_written, other.temp_written);
        count(&mut self.wal_bytes, other.wal_bytes);
        count(&mut self.rows_examined, other.rows_examined);
        count(&mut self.errors, other.errors);
        count(&mut self.no_index_used, other.no_index_used);
        count(&mut self.tmp_disk_tables, other.tmp_disk_tables);
    }
}

/// A statement, told apart as the server tells them apart.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStatement {
    /// Database or default schema.
    pub database: Option<Arc<str>>,
    /// User; MySQL's digests know none.
    pub user: Option<Arc<str>>,
    /// The server's own identity: `queryid`, or the digest's hash.
    pub id: Arc<str>,
    /// The normalised statement, by the same rules as on the wire.
    pub digest: Arc<Digest>,
    /// Cumulative since the agent's first look.
    pub total: ServerCounters,
    /// Greatest latency of 95 % of all executions since the server's reset, where it tells (MySQL 8 and later).
    pub p95: Option<Duration>,
    /// The same for 99 %.
    pub p99: Option<Duration>,
}
