//! SHOW GLOBAL STATUS, as metrics.

use std::{collections::HashMap, sync::Arc};

use crate::{
    collect::{
        failure::Failure,
        ladder::Rung,
        own::OwnStatements,
        points::Points,
        row::{Malformed, Rows},
        session::Session,
    },
    model::{
        database_names::{attribute as a, mysql as m},
        names::Metric,
    },
};

pub(in crate::collect) const RUNGS: &[Rung] = &[Rung { name: "global status", needs: &[] }];

const STATUS: &str = "SHOW GLOBAL STATUS";
const LIMITS: &str = "SELECT @@GLOBAL.innodb_buffer_pool_size AS buffer_pool_size";

/// Metrics whose points differ in one attribute: metric, attribute, and for each of its values the status variable.
type Kinds = (&'static Metric, &'static str, &'static [(&'static str, &'static str)]);

const KINDS: &[Kinds] = &[
    (
        &m::BUFFER_POOL_PAGES,
        a::KIND,
        &[
            ("data", "innodb_buffer_pool_pages_data"),
            ("free", "innodb_buffer_pool_pages_free"),
            ("misc", "innodb_buffer_pool_pages_misc"),
        ],
    ),
    (
        &m::BUFFER_POOL_OPERATIONS,
        a::OPERATION,
        &[
            ("read_ahead_rnd", "innodb_buffer_pool_read_ahead_rnd"),
            ("read_ahead", "innodb_buffer_pool_read_ahead"),
            ("read_ahead_evicted", "innodb_buffer_pool_read_ahead_evicted"),
            ("read_requests", "innodb_buffer_pool_read_requests"),
            ("reads", "innodb_buffer_pool_reads"),
            ("wait_free", "innodb_buffer_pool_wait_free"),
            ("write_requests", "innodb_buffer_pool_write_requests"),
        ],
    ),
    (
        &m::PREPARED_STATEMENTS,
        a::COMMAND,
        &[
            ("execute", "com_stmt_execute"),
            ("close", "com_stmt_close"),
            ("fetch", "com_stmt_fetch"),
            ("prepare", "com_stmt_prepare"),
            ("reset", "com_stmt_reset"),
            ("send_long_data", "com_stmt_send_long_data"),
        ],
    ),
    (
        &m::COMMANDS,
        a::COMMAND,
        &[("delete", "com_delete"), ("insert", "com_insert"), ("select", "com_select"), ("update", "com_update")],
    ),
    (
        &m::HANDLERS,
        a::KIND,
        &[
            ("commit", "handler_commit"),
            ("delete", "handler_delete"),
            ("discover", "handler_discover"),
            ("external_lock", "handler_external_lock"),
            ("mrr_init", "handler_mrr_init"),
            ("prepare", "handler_prepare"),
            ("read_first", "handler_read_first"),
            ("read_key", "handler_read_key"),
            ("read_last", "handler_read_last"),
            ("read_next", "handler_read_next"),
            ("read_prev", "handler_read_prev"),
            ("read_rnd", "handler_read_rnd"),
            ("read_rnd_next", "handler_read_rnd_next"),
            ("rollback", "handler_rollback"),
            ("savepoint", "handler_savepoint"),
            ("savepoint_rollback", "handler_savepoint_rollback"),
            ("update", "handler_update"),
            ("write", "handler_write"),
        ],
    ),
    (&m::DOUBLE_WRITES, a::KIND, &[("pages_written", "innodb_dblwr_pages_written"), ("writes", "innodb_dblwr_writes")]),
    (
        &m::LOG_OPERATIONS,
        a::OPERATION,
        &[
            ("waits", "innodb_log_waits"),
            ("write_requests", "innodb_log_write_requests"),
            ("writes", "innodb_log_writes"),
        ],
    ),
    (
        &m::OPERATIONS,
        a::OPERATION,
        &[("fsyncs", "innodb_data_fsyncs"), ("reads", "innodb_data_reads"), ("writes", "innodb_data_writes")],
    ),
    (
        &m::PAGE_OPERATIONS,
        a::OPERATION,
        &[("created", "innodb_pages_created"), ("read", "innodb_pages_read"), ("written", "innodb_pages_written")],
    ),
    (&m::ROW_LOCKS, a::KIND, &[("waits", "innodb_row_lock_waits"), ("time", "innodb_row_lock_time")]),
    (
        &m::ROW_OPERATIONS,
        a::OPERATION,
        &[
            ("deleted", "innodb_rows_deleted"),
            ("inserted", "innodb_rows_inserted"),
            ("read", "innodb_rows_read"),
            ("updated", "innodb_rows_updated"),
        ],
    ),
    (&m::LOCKS, a::KIND, &[("immediate", "table_locks_immediate"), ("waited", "table_locks_waited")]),
    (
        &m::SORTS,
        a::KIND,
        &[("merge_passes", "sort_merge_passes"), ("range", "sort_range"), ("rows", "sort_rows"), ("scan", "sort_scan")],
    ),
    (
        &m::THREADS,
        a::KIND,
        &[
            ("cached", "threads_cached"),
            ("connected", "threads_connected"),
            ("created", "threads_created"),
            ("running", "threads_running"),
        ],
    ),
    (&m::CLIENT_NETWORK_IO, a::KIND, &[("received", "bytes_received"), ("sent", "bytes_sent")]),
    (
        &m::OPENED_RESOURCES,
        a::KIND,
        &[("file", "opened_files"), ("table_definition", "opened_table_definitions"), ("table", "opened_tables")],
    ),
    (
        &m::TMP_RESOURCES,
        a::RESOURCE,
        &[("disk_tables", "created_tmp_disk_tables"), ("files", "created_tmp_files"), ("tables", "created_tmp_tables")],
    ),
    (
        &m::CONNECTION_ERRORS,
        a::ERROR,
        &[
            ("accept", "connection_errors_accept"),
            ("internal", "connection_errors_internal"),
            ("max_connections", "connection_errors_max_connections"),
            ("peer_address", "connection_errors_peer_address"),
            ("select", "connection_errors_select"),
            ("tcpwrap", "connection_errors_tcpwrap"),
            ("aborted", "aborted_connects"),
            ("aborted_clients", "aborted_clients"),
            ("locked", "locked_connects"),
        ],
    ),
    (
        &m::JOINS,
        a::KIND,
        &[
            ("full", "select_full_join"),
            ("full_range", "select_full_range_join"),
            ("range", "select_range"),
            ("range_check", "select_range_check"),
            ("scan", "select_scan"),
        ],
    ),
    (
        &m::TABLE_OPEN_CACHE,
        a::STATUS,
        &[
            ("hit", "table_open_cache_hits"),
            ("miss", "table_open_cache_misses"),
            ("overflow", "table_open_cache_overflows"),
        ],
    ),
];

const PLAIN: &[(&Metric, &str)] = &[
    (&m::BUFFER_POOL_PAGE_FLUSHES, "innodb_buffer_pool_pages_flushed"),
    (&m::UPTIME, "uptime"),
    (&m::CONNECTION_COUNT, "connections"),
    (&m::QUERY_COUNT, "queries"),
    (&m::QUERY_CLIENT_COUNT, "questions"),
    (&m::QUERY_SLOW_COUNT, "slow_queries"),
];

/// Metrics that split a sum: metric, variable with the dirty part, variable with the whole.
const SPLIT: &[(&Metric, &str, &str)] = &[
    (&m::BUFFER_POOL_DATA_PAGES, "innodb_buffer_pool_pages_dirty", "innodb_buffer_pool_pages_data"),
    (&m::BUFFER_POOL_USAGE, "innodb_buffer_pool_bytes_dirty", "innodb_buffer_pool_bytes_data"),
];

/// Asks for all of them.
pub(in crate::collect) async fn ask(session: &mut Session, own: &mut OwnStatements) -> Result<Points, Failure> {
    let status = session.ask(own, STATUS).await?;
    let limits = session.ask(own, LIMITS).await?;
    Ok(decode(&status, &limits)?)
}

fn decode(status: &Rows, limits: &Rows) -> Result<Points, Malformed> {
    let mut values: HashMap<String, i64> = HashMap::new();
    for row in status.iter() {
        // Many variables are no numbers.
        if let (Some(name), Ok(Some(value))) = (row.text("variable_name")?, row.get("value")) {
            values.insert(name.to_ascii_lowercase(), value);
        }
    }
    let value = |name: &str| values.get(name).copied();
    let mut points = Points::default();
    for (metric, attribute, kinds) in KINDS {
        for (kind, variable) in *kinds {
            points.int(metric, &[(*attribute, &Arc::from(*kind))], value(variable));
        }
    }
    for (metric, variable) in PLAIN {
        points.int(metric, &[], value(variable));
    }
    for (metric, dirty, all) in SPLIT {
        let clean = value(all).zip(value(dirty)).map(|(all, dirty)| (all - dirty).max(0));
        points.int(metric, &[(a::STATUS, &"dirty".into())], value(dirty));
        points.int(metric, &[(a::STATUS, &"clean".into())], clean);
    }
    if let Some(row) = limits.first() {
        points.int(&m::BUFFER_POOL_LIMIT, &[], row.get("buffer_pool_size")?);
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{collect::row::table, model::Value};

    #[test]
    fn status_variables_become_points() {
        let status = table(
            "Variable_name Value\nThreads_running 3\nInnodb_buffer_pool_pages_data 100\nInnodb_buffer_pool_pages_dirty 30\n\
             Innodb_have_atomic_builtins ON\nUptime 77",
        );
        let limits = table("buffer_pool_size\n67108864");
        let points = decode(&status, &limits).unwrap().into_vec();
        let texts: Vec<_> = points
            .iter()
            .map(|point| {
                let attributes: Vec<_> =
                    point.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let Value::Int(value) = point.value else { panic!("{point:?}") };
                format!("{} {} {value}", point.metric.name, attributes.join(" "))
            })
            .collect();
        assert_eq!(
            texts,
            [
                "mysql.buffer_pool.pages kind=data 100",
                "mysql.threads kind=running 3",
                "mysql.uptime  77",
                "mysql.buffer_pool.data_pages status=dirty 30",
                "mysql.buffer_pool.data_pages status=clean 70",
                "mysql.buffer_pool.limit  67108864",
            ]
        );
    }

    #[test]
    fn every_metric_has_the_attribute_of_its_catalogue_entry() {
        for (metric, attribute, _) in KINDS {
            assert_eq!(metric.attributes, [*attribute], "{}", metric.name);
        }
    }
}
