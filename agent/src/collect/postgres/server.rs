//! Counters of the whole server and of each database.

use std::sync::Arc;

use crate::{
    collect::{
        facts::{Facts, Grant},
        failure::Failure,
        ladder::{Need, Rung},
        own::OwnStatements,
        points::Points,
        row::{Malformed, Row, Rows},
        session::Session,
    },
    model::{
        database_names::{attribute as a, postgresql as m},
        names::{Metric, attribute as n},
    },
};

/// Databases with metrics of their own; of further ones, the smallest numbers, nothing is told.
const MAX_DATABASES: usize = 1000;
/// Version that moved checkpoints from pg_stat_bgwriter to pg_stat_checkpointer and buffers of backends to pg_stat_io.
const CHECKPOINTER: u32 = 170_000;
/// Version with pg_stat_wal.
const STAT_WAL: u32 = 140_000;

/// Sizes of databases need CONNECT on each of them, or pg_read_all_stats.
pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung { name: "statistics views with sizes", needs: &[Need::Grant(Grant::AllStats)] },
    Rung { name: "statistics views", needs: &[] },
];

/// Asks for all of them.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
    rung: &str,
) -> Result<Points, Failure> {
    let mut points = Points::default();
    let databases = session.ask(own, &databases_sql(rung == RUNGS[0].name)).await?;
    add_databases(&databases, &mut points)?;
    let server = session.ask(own, &server_sql(facts)).await?;
    add_server(&server, &mut points)?;
    Ok(points)
}

/// Databases of managed services that no user may connect to are left out, as are templates.
fn databases_sql(sizes: bool) -> String {
    let size = if sizes { "pg_database_size(d.oid)" } else { "NULL::bigint" };
    format!(
        "SELECT d.datname, s.numbackends, s.xact_commit, s.xact_rollback, s.blks_read, s.blks_hit, s.tup_returned, s.tup_fetched, \
         s.tup_inserted, s.tup_updated, s.tup_deleted, s.conflicts, s.temp_files, s.temp_bytes, s.deadlocks, age(d.datfrozenxid) AS xid_age, \
         c.confl_tablespace, c.confl_lock, c.confl_snapshot, c.confl_bufferpin, c.confl_deadlock, {size} AS size \
         FROM pg_catalog.pg_database d JOIN pg_catalog.pg_stat_database s ON s.datid = d.oid \
         LEFT JOIN pg_catalog.pg_stat_database_conflicts c ON c.datid = d.oid \
         WHERE d.datallowconn AND NOT d.datistemplate AND d.datname NOT IN ({INTERNAL}) ORDER BY s.xact_commit DESC LIMIT {MAX_DATABASES}"
    )
}

/// Databases of Amazon RDS, Google Cloud SQL and Azure, to which nobody else may connect.
pub(super) const INTERNAL: &str = "'rdsadmin', 'cloudsqladmin', 'azure_maintenance', 'azure_sys', 'alloydbadmin'";

fn server_sql(facts: &Facts) -> String {
    let wal =
        if facts.version >= STAT_WAL { "(SELECT wal_bytes FROM pg_catalog.pg_stat_wal)" } else { "NULL::numeric" };
    let (checkpoints, from) = match facts.version {
        CHECKPOINTER.. => (
            "c.num_timed AS timed, c.num_requested AS requested, c.write_time, c.sync_time, c.buffers_written AS checkpoint_buffers, \
             io.writes AS backend_buffers, io.fsyncs AS backend_fsyncs",
            "pg_catalog.pg_stat_bgwriter b, pg_catalog.pg_stat_checkpointer c, (SELECT sum(writes) AS writes, sum(fsyncs) AS fsyncs \
             FROM pg_catalog.pg_stat_io WHERE object = 'relation' AND backend_type NOT IN ('background writer', 'checkpointer')) io",
        ),
        _ => (
            "b.checkpoints_timed AS timed, b.checkpoints_req AS requested, b.checkpoint_write_time AS write_time, \
             b.checkpoint_sync_time AS sync_time, b.buffers_checkpoint AS checkpoint_buffers, b.buffers_backend AS backend_buffers, \
             b.buffers_backend_fsync AS backend_fsyncs",
            "pg_catalog.pg_stat_bgwriter b",
        ),
    };
    format!(
        "SELECT {checkpoints}, b.buffers_clean AS cleaned_buffers, b.maxwritten_clean AS maxwritten, b.buffers_alloc AS allocated, {wal} AS wal_bytes, \
         current_setting('max_connections') AS max_connections, (SELECT count(*) FROM pg_catalog.pg_prepared_xacts) AS prepared, \
         (SELECT count(*) FROM pg_catalog.pg_database WHERE NOT datistemplate AND datname NOT IN ({INTERNAL})) AS databases \
         FROM {from}"
    )
}

fn add_databases(rows: &Rows, points: &mut Points) -> Result<(), Malformed> {
    const COUNTERS: &[(&str, &Metric)] = &[
        ("numbackends", &m::BACKENDS),
        ("xact_commit", &m::COMMITS),
        ("xact_rollback", &m::ROLLBACKS),
        ("blks_read", &m::BLKS_READ),
        ("blks_hit", &m::BLKS_HIT),
        ("tup_returned", &m::TUP_RETURNED),
        ("tup_fetched", &m::TUP_FETCHED),
        ("tup_inserted", &m::TUP_INSERTED),
        ("tup_updated", &m::TUP_UPDATED),
        ("tup_deleted", &m::TUP_DELETED),
        ("temp_files", &m::TEMP_FILES),
        ("temp_bytes", &m::TEMP_IO),
        ("deadlocks", &m::DEADLOCKS),
        ("xid_age", &m::XID_AGE),
        ("size", &m::DB_SIZE),
    ];
    const CONFLICTS: &[(&str, &str)] = &[
        ("confl_tablespace", "tablespace"),
        ("confl_lock", "lock"),
        ("confl_snapshot", "snapshot"),
        ("confl_bufferpin", "bufferpin"),
        ("confl_deadlock", "deadlock"),
    ];
    for row in rows.iter() {
        let Some(database) = row.name("datname")? else { continue };
        for (column, metric) in COUNTERS {
            points.int(metric, &[(n::DB_NAMESPACE, &database)], row.get(column)?);
        }
        for (column, kind) in CONFLICTS {
            let attributes = [(a::CONFLICT_TYPE, &Arc::from(*kind)), (n::DB_NAMESPACE, &database)];
            points.int(&m::QUERY_CONFLICTS, &attributes, row.get(column)?);
        }
    }
    Ok(())
}

fn add_server(rows: &Rows, points: &mut Points) -> Result<(), Malformed> {
    let Some(row) = rows.first() else { return Ok(()) };
    let kind = |name: &str| -> Arc<str> { name.into() };
    let int = |row: &Row<'_>, column: &str| row.get::<i64>(column);
    for (column, source) in [
        ("checkpoint_buffers", "checkpoints"),
        ("cleaned_buffers", "bgwriter"),
        ("backend_buffers", "backend"),
        ("backend_fsyncs", "backend_fsync"),
    ] {
        points.int(&m::BUFFERS_WRITES, &[(a::SOURCE, &kind(source))], int(&row, column)?);
    }
    for (column, name) in [("timed", "scheduled"), ("requested", "requested")] {
        points.int(&m::CHECKPOINT_COUNT, &[(a::TYPE, &kind(name))], int(&row, column)?);
    }
    for (column, name) in [("write_time", "write"), ("sync_time", "sync")] {
        points.double(&m::BGWRITER_DURATION, &[(a::TYPE, &kind(name))], row.get(column)?);
    }
    for (column, metric) in [
        ("allocated", &m::BUFFERS_ALLOCATED),
        ("maxwritten", &m::MAXWRITTEN),
        ("max_connections", &m::CONNECTION_MAX),
        ("databases", &m::DATABASE_COUNT),
        ("prepared", &m::PREPARED_TRANSACTIONS),
        ("wal_bytes", &m::WAL_WRITTEN),
    ] {
        points.int(metric, &[], int(&row, column)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        collect::{facts::sample, row::table},
        model::{Engine, Value},
    };

    #[test]
    fn columns_that_moved_are_asked_for_where_they_are() {
        let at = |version| server_sql(&Facts { version, ..sample(Engine::Postgresql) });
        assert!(at(130_000).contains("b.checkpoints_timed") && at(130_000).contains("NULL::numeric AS wal_bytes"));
        assert!(at(160_000).contains("b.buffers_backend ") && at(160_000).contains("pg_stat_wal"));
        assert!(at(170_000).contains("pg_stat_checkpointer c") && at(170_000).contains("pg_stat_io"));
        assert!(!at(170_000).contains("checkpoints_timed"));
    }

    #[test]
    fn rows_become_points() {
        let mut points = Points::default();
        let server = "timed requested write_time sync_time checkpoint_buffers backend_buffers backend_fsyncs cleaned_buffers maxwritten \
             allocated wal_bytes max_connections prepared databases\n1 2 3.5 4 5 - 7 8 9 10 11 100 0 3";
        add_server(&table(server), &mut points).unwrap();
        let points = points.into_vec();
        let find = |metric: &Metric, value: &str| {
            points
                .iter()
                .find(|point| point.metric == metric && point.attributes.iter().all(|(_, own)| &**own == value))
                .map(|point| point.value)
        };
        assert_eq!(find(&m::CHECKPOINT_COUNT, "scheduled"), Some(Value::Int(1)));
        assert_eq!(find(&m::BGWRITER_DURATION, "write"), Some(Value::Double(3.5)));
        assert_eq!(find(&m::BUFFERS_WRITES, "backend"), None, "what the server does not tell has no point");
        assert_eq!(find(&m::CONNECTION_MAX, ""), Some(Value::Int(100)));
    }
}
