//! Metrics that databases keep themselves, as one catalogue. Those that the receivers of the OpenTelemetry Collector also have (`postgresqlreceiver`,
//! `mysqlreceiver`, metadata.yaml) have their names, units, kinds and attributes; what goes beyond is named `querylens.*`.

use super::names::{Instrument, Metric};

/// Names of attributes, beside those of semantic conventions in [`super::names::attribute`].
pub mod attribute {
    /// Where a buffer was written from, or a block read from.
    pub const SOURCE: &str = "source";
    /// Type of a checkpoint, or of the time it took.
    pub const TYPE: &str = "type";
    /// State of rows.
    pub const STATE: &str = "state";
    /// Kind of operation.
    pub const OPERATION: &str = "operation";
    /// Address of a standby; `unix` for one on this host.
    pub const REPLICATION_CLIENT: &str = "replication_client";
    /// Name of a PostgreSQL index.
    pub const INDEX_NAME: &str = "postgresql.index.name";
    /// Type of a conflict with recovery.
    pub const CONFLICT_TYPE: &str = "postgresql.conflict.type";
    /// Name of a sequence.
    pub const SEQUENCE_NAME: &str = "querylens.postgresql.sequence.name";
    /// Name of a replication slot.
    pub const SLOT: &str = "querylens.postgresql.slot.name";
    /// Kind of a MySQL counter.
    pub const KIND: &str = "kind";
    /// Status of a MySQL resource.
    pub const STATUS: &str = "status";
    /// MySQL command.
    pub const COMMAND: &str = "command";
    /// MySQL connection error.
    pub const ERROR: &str = "error";
    /// MySQL table.
    pub const TABLE: &str = "table";
    /// MySQL schema.
    pub const SCHEMA: &str = "schema";
    /// MySQL index.
    pub const INDEX: &str = "index";
    /// MySQL temporary resource.
    pub const RESOURCE: &str = "resource";
}

macro_rules! catalogue {
    ($module:ident, $about:literal; $($id:ident = $name:literal, $unit:literal, $instrument:ident, $description:literal, $attributes:expr;)*) => {
        #[doc = $about]
        pub mod $module {
            #[allow(unused_imports, reason = "not every engine has attributes of semantic conventions")]
            use crate::model::names::attribute as n;
            use super::{Instrument, Metric, attribute as a};
            $(
                #[doc = $description]
                pub static $id: Metric = Metric {
                    name: $name,
                    unit: $unit,
                    instrument: Instrument::$instrument,
                    description: $description,
                    attributes: $attributes,
                };
            )*

            /// All of them.
            pub static ALL: &[&Metric] = &[$(&$id,)*];
        }
    };
}

catalogue! { postgresql, "Metrics of PostgreSQL.";
    BACKENDS = "postgresql.backends", "1", UpDownCounter, "Backends of each database", &[n::DB_NAMESPACE];
    BUFFERS_ALLOCATED = "postgresql.bgwriter.buffers.allocated", "{buffers}", Counter, "Buffers allocated", &[];
    BUFFERS_WRITES = "postgresql.bgwriter.buffers.writes", "{buffers}", Counter, "Buffers written", &[a::SOURCE];
    CHECKPOINT_COUNT = "postgresql.bgwriter.checkpoint.count", "{checkpoints}", Counter, "Checkpoints performed", &[a::TYPE];
    BGWRITER_DURATION = "postgresql.bgwriter.duration", "ms", Counter, "Time in which checkpoints wrote and synced files", &[a::TYPE];
    MAXWRITTEN = "postgresql.bgwriter.maxwritten", "1", Counter, "Times the background writer stopped because it had written too much", &[];
    BLKS_HIT = "postgresql.blks_hit", "{blks_hit}", Counter, "Blocks found in the buffer cache", &[n::DB_NAMESPACE];
    BLKS_READ = "postgresql.blks_read", "{blks_read}", Counter, "Blocks read from disk", &[n::DB_NAMESPACE];
    BLOCKS_READ = "postgresql.blocks_read", "1", Counter, "Blocks read, by where they were found",
        &[a::SOURCE, n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    COMMITS = "postgresql.commits", "1", Counter, "Transactions committed", &[n::DB_NAMESPACE];
    CONNECTION_MAX = "postgresql.connection.max", "{connections}", Gauge, "Connections that the server accepts at most", &[];
    DATABASE_COUNT = "postgresql.database.count", "{databases}", UpDownCounter, "Databases of users", &[];
    DB_SIZE = "postgresql.db_size", "By", UpDownCounter, "Disk space of a database", &[n::DB_NAMESPACE];
    DEADLOCKS = "postgresql.deadlocks", "{deadlock}", Counter, "Deadlocks", &[n::DB_NAMESPACE];
    INDEX_SCANS = "postgresql.index.scans", "{scans}", Counter, "Scans of an index",
        &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME, a::INDEX_NAME];
    INDEX_SIZE = "postgresql.index.size", "By", Gauge, "Disk space of an index",
        &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME, a::INDEX_NAME];
    OPERATIONS = "postgresql.operations", "1", Counter, "Rows inserted, updated and deleted",
        &[a::OPERATION, n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    QUERY_CONFLICTS = "postgresql.query.conflicts", "{query}", Counter, "Queries cancelled by conflicts with recovery",
        &[a::CONFLICT_TYPE, n::DB_NAMESPACE];
    DATA_DELAY = "postgresql.replication.data_delay", "By", Gauge, "Write-ahead log that a standby has yet to replay", &[a::REPLICATION_CLIENT];
    ROLLBACKS = "postgresql.rollbacks", "1", Counter, "Transactions rolled back", &[n::DB_NAMESPACE];
    ROWS = "postgresql.rows", "1", UpDownCounter, "Rows of a table", &[a::STATE, n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    SEQUENTIAL_SCANS = "postgresql.sequential_scans", "{sequential_scan}", Counter, "Sequential scans of a table",
        &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    TABLE_COUNT = "postgresql.table.count", "{table}", UpDownCounter, "Tables of users in a database", &[n::DB_NAMESPACE];
    TABLE_SIZE = "postgresql.table.size", "By", UpDownCounter, "Disk space of a table", &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    VACUUM_COUNT = "postgresql.table.vacuum.count", "{vacuum}", Counter, "Times a table was vacuumed by hand",
        &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    TEMP_IO = "postgresql.temp.io", "By", Counter, "Bytes written to temporary files", &[n::DB_NAMESPACE];
    TEMP_FILES = "postgresql.temp_files", "{temp_file}", Counter, "Temporary files", &[n::DB_NAMESPACE];
    TUP_DELETED = "postgresql.tup_deleted", "{tup_deleted}", Counter, "Rows deleted", &[n::DB_NAMESPACE];
    TUP_FETCHED = "postgresql.tup_fetched", "{tup_fetched}", Counter, "Rows fetched by index scans", &[n::DB_NAMESPACE];
    TUP_INSERTED = "postgresql.tup_inserted", "{tup_inserted}", Counter, "Rows inserted", &[n::DB_NAMESPACE];
    TUP_RETURNED = "postgresql.tup_returned", "{tup_returned}", Counter, "Rows returned by scans", &[n::DB_NAMESPACE];
    TUP_UPDATED = "postgresql.tup_updated", "{tup_updated}", Counter, "Rows updated", &[n::DB_NAMESPACE];
    WAL_AGE = "postgresql.wal.age", "s", Gauge, "Age of the oldest file of the write-ahead log", &[];
    WAL_DELAY = "postgresql.wal.delay", "s", Gauge, "Time between a local flush and the standby's report that it has followed",
        &[a::OPERATION, a::REPLICATION_CLIENT];
    WAL_LAG = "postgresql.wal.lag", "s", Gauge, "The same in whole seconds", &[a::OPERATION, a::REPLICATION_CLIENT];
    WAL_WRITTEN = "querylens.postgresql.wal.written", "By", Counter, "Bytes of write-ahead log generated", &[];
    XID_AGE = "querylens.postgresql.database.age", "{transaction}", Gauge,
        "Transactions since the oldest one that a database still has to freeze; 2^31 is the wraparound", &[n::DB_NAMESPACE];
    SLOT_RETAINED = "querylens.postgresql.slot.retained", "By", Gauge, "Write-ahead log that a replication slot holds back", &[a::SLOT];
    PREPARED_TRANSACTIONS = "querylens.postgresql.prepared_transactions", "{transaction}", UpDownCounter, "Transactions prepared for two-phase commit", &[];
    AUTOVACUUM_COUNT = "querylens.postgresql.table.autovacuum.count", "{vacuum}", Counter, "Times a table was vacuumed automatically",
        &[n::DB_NAMESPACE, n::DB_COLLECTION_NAME];
    INVALID_INDEXES = "querylens.postgresql.index.invalid", "{index}", UpDownCounter, "Indexes that queries do not use because their creation failed",
        &[n::DB_NAMESPACE];
    UNUSED_INDEXES = "querylens.postgresql.index.unused", "{index}", UpDownCounter,
        "Indexes that no query has used since the statistics were reset, and that no constraint needs", &[n::DB_NAMESPACE];
    DUPLICATE_INDEXES = "querylens.postgresql.index.duplicate", "{index}", UpDownCounter,
        "Indexes that another one of the same table equals in columns, expressions and conditions", &[n::DB_NAMESPACE];
    SEQUENCE_USED = "querylens.postgresql.sequence.used", "1", Gauge, "Share of its range that a sequence has used up",
        &[n::DB_NAMESPACE, a::SEQUENCE_NAME];
    REPLAY_DELAY = "querylens.postgresql.replication.replay_delay", "s", Gauge, "On a standby, age of the last transaction replayed", &[];
}

catalogue! { mysql, "Metrics of MySQL and MariaDB.";
    BUFFER_POOL_PAGES = "mysql.buffer_pool.pages", "1", UpDownCounter, "Pages in the InnoDB buffer pool", &[a::KIND];
    BUFFER_POOL_DATA_PAGES = "mysql.buffer_pool.data_pages", "1", UpDownCounter, "Data pages in the InnoDB buffer pool", &[a::STATUS];
    BUFFER_POOL_PAGE_FLUSHES = "mysql.buffer_pool.page_flushes", "1", Counter, "Requests to flush pages of the InnoDB buffer pool", &[];
    BUFFER_POOL_OPERATIONS = "mysql.buffer_pool.operations", "1", Counter, "Operations on the InnoDB buffer pool", &[a::OPERATION];
    BUFFER_POOL_LIMIT = "mysql.buffer_pool.limit", "By", UpDownCounter, "Configured size of the InnoDB buffer pool", &[];
    BUFFER_POOL_USAGE = "mysql.buffer_pool.usage", "By", UpDownCounter, "Bytes in the InnoDB buffer pool", &[a::STATUS];
    PREPARED_STATEMENTS = "mysql.prepared_statements", "1", Counter, "Commands on prepared statements", &[a::COMMAND];
    COMMANDS = "mysql.commands", "1", Counter, "Executions of each type of command", &[a::COMMAND];
    HANDLERS = "mysql.handlers", "1", Counter, "Requests to storage handlers", &[a::KIND];
    DOUBLE_WRITES = "mysql.double_writes", "1", Counter, "Writes to the InnoDB doublewrite buffer", &[a::KIND];
    LOG_OPERATIONS = "mysql.log_operations", "1", Counter, "Operations on the InnoDB log", &[a::OPERATION];
    OPERATIONS = "mysql.operations", "1", Counter, "InnoDB file operations", &[a::OPERATION];
    PAGE_OPERATIONS = "mysql.page_operations", "1", Counter, "InnoDB page operations", &[a::OPERATION];
    TABLE_IO_WAIT_COUNT = "mysql.table.io.wait.count", "1", Counter, "I/O waits of a table", &[a::OPERATION, a::TABLE, a::SCHEMA];
    TABLE_IO_WAIT_TIME = "mysql.table.io.wait.time", "ns", Counter, "Time in I/O waits of a table", &[a::OPERATION, a::TABLE, a::SCHEMA];
    INDEX_IO_WAIT_COUNT = "mysql.index.io.wait.count", "1", Counter, "I/O waits of an index",
        &[a::OPERATION, a::TABLE, a::SCHEMA, a::INDEX];
    INDEX_IO_WAIT_TIME = "mysql.index.io.wait.time", "ns", Counter, "Time in I/O waits of an index",
        &[a::OPERATION, a::TABLE, a::SCHEMA, a::INDEX];
    ROW_LOCKS = "mysql.row_locks", "1", Counter, "InnoDB row locks: waits, and milliseconds waited", &[a::KIND];
    ROW_OPERATIONS = "mysql.row_operations", "1", Counter, "InnoDB row operations", &[a::OPERATION];
    LOCKS = "mysql.locks", "1", Counter, "Table locks", &[a::KIND];
    SORTS = "mysql.sorts", "1", Counter, "Sorts", &[a::KIND];
    THREADS = "mysql.threads", "1", UpDownCounter, "Threads", &[a::KIND];
    CLIENT_NETWORK_IO = "mysql.client.network.io", "By", Counter, "Bytes between server and clients", &[a::KIND];
    OPENED_RESOURCES = "mysql.opened_resources", "1", Counter, "Resources opened", &[a::KIND];
    UPTIME = "mysql.uptime", "s", Counter, "Seconds since the server started", &[];
    TMP_RESOURCES = "mysql.tmp_resources", "1", Counter, "Temporary resources created", &[a::RESOURCE];
    CONNECTION_COUNT = "mysql.connection.count", "1", Counter, "Connection attempts, successful or not", &[];
    CONNECTION_ERRORS = "mysql.connection.errors", "1", Counter, "Errors while connecting", &[a::ERROR];
    JOINS = "mysql.joins", "1", Counter, "Joins that scan", &[a::KIND];
    QUERY_COUNT = "mysql.query.count", "1", Counter, "Statements executed, those within stored programs too", &[];
    QUERY_CLIENT_COUNT = "mysql.query.client.count", "1", Counter, "Statements that clients sent", &[];
    QUERY_SLOW_COUNT = "mysql.query.slow.count", "1", Counter, "Statements slower than long_query_time", &[];
    TABLE_OPEN_CACHE = "mysql.table_open_cache", "1", Counter, "Look-ups in the cache of open tables", &[a::STATUS];
    REPLICA_DELAY = "mysql.replica.time_behind_source", "s", UpDownCounter, "How far the replica is behind its source", &[];
    REPLICA_SQL_DELAY = "mysql.replica.sql_delay", "s", UpDownCounter, "How far the replica is told to stay behind its source", &[];
}

/// Metrics of all engines.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    postgresql::ALL.iter().chain(mysql::ALL).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::model::names;

    /// The default metrics of the receivers, with unit and kind (metadata.yaml; `mysql.mysqlx_connections` belongs to another protocol).
    const DEFAULTS: &[(&str, &str, Instrument)] = &[
        ("postgresql.backends", "1", Instrument::UpDownCounter),
        ("postgresql.bgwriter.buffers.allocated", "{buffers}", Instrument::Counter),
        ("postgresql.bgwriter.buffers.writes", "{buffers}", Instrument::Counter),
        ("postgresql.bgwriter.checkpoint.count", "{checkpoints}", Instrument::Counter),
        ("postgresql.bgwriter.duration", "ms", Instrument::Counter),
        ("postgresql.bgwriter.maxwritten", "1", Instrument::Counter),
        ("postgresql.blocks_read", "1", Instrument::Counter),
        ("postgresql.commits", "1", Instrument::Counter),
        ("postgresql.connection.max", "{connections}", Instrument::Gauge),
        ("postgresql.database.count", "{databases}", Instrument::UpDownCounter),
        ("postgresql.db_size", "By", Instrument::UpDownCounter),
        ("postgresql.index.scans", "{scans}", Instrument::Counter),
        ("postgresql.index.size", "By", Instrument::Gauge),
        ("postgresql.operations", "1", Instrument::Counter),
        ("postgresql.replication.data_delay", "By", Instrument::Gauge),
        ("postgresql.rollbacks", "1", Instrument::Counter),
        ("postgresql.rows", "1", Instrument::UpDownCounter),
        ("postgresql.table.count", "{table}", Instrument::UpDownCounter),
        ("postgresql.table.size", "By", Instrument::UpDownCounter),
        ("postgresql.table.vacuum.count", "{vacuum}", Instrument::Counter),
        ("postgresql.wal.age", "s", Instrument::Gauge),
        ("postgresql.wal.lag", "s", Instrument::Gauge),
        ("mysql.buffer_pool.data_pages", "1", Instrument::UpDownCounter),
        ("mysql.buffer_pool.limit", "By", Instrument::UpDownCounter),
        ("mysql.buffer_pool.operations", "1", Instrument::Counter),
        ("mysql.buffer_pool.page_flushes", "1", Instrument::Counter),
        ("mysql.buffer_pool.pages", "1", Instrument::UpDownCounter),
        ("mysql.buffer_pool.usage", "By", Instrument::UpDownCounter),
        ("mysql.double_writes", "1", Instrument::Counter),
        ("mysql.handlers", "1", Instrument::Counter),
        ("mysql.index.io.wait.count", "1", Instrument::Counter),
        ("mysql.index.io.wait.time", "ns", Instrument::Counter),
        ("mysql.locks", "1", Instrument::Counter),
        ("mysql.log_operations", "1", Instrument::Counter),
        ("mysql.opened_resources", "1", Instrument::Counter),
        ("mysql.operations", "1", Instrument::Counter),
        ("mysql.page_operations", "1", Instrument::Counter),
        ("mysql.prepared_statements", "1", Instrument::Counter),
        ("mysql.row_locks", "1", Instrument::Counter),
        ("mysql.row_operations", "1", Instrument::Counter),
        ("mysql.sorts", "1", Instrument::Counter),
        ("mysql.table.io.wait.count", "1", Instrument::Counter),
        ("mysql.table.io.wait.time", "ns", Instrument::Counter),
        ("mysql.threads", "1", Instrument::UpDownCounter),
        ("mysql.tmp_resources", "1", Instrument::Counter),
        ("mysql.uptime", "s", Instrument::Counter),
    ];

    #[test]
    fn the_defaults_of_the_receivers_are_there_with_their_units_and_kinds() {
        for (name, unit, instrument) in DEFAULTS {
            let own = all().find(|metric| metric.name == *name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!((own.unit, own.instrument), (*unit, *instrument), "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_none_is_an_attribute() {
        let mut seen: HashSet<_> = names::METRICS.iter().map(|metric| metric.name).collect();
        for metric in all() {
            assert!(seen.insert(metric.name), "{} twice", metric.name);
            assert!(!metric.description.is_empty() && !metric.description.ends_with('.'), "{}", metric.name);
            assert!(metric.attributes.iter().all(|attribute| *attribute != metric.name));
        }
    }
}
