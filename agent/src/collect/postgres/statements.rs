//! pg_stat_statements, by the columns that each of its versions has.

use std::sync::Arc;

use crate::collect::{
    facts::Facts,
    failure::Failure,
    ladder::{Need, Rung},
    own::OwnStatements,
    row::{Malformed, Rows},
    session::Session,
    statements::{COUNTERS, Entry, Key, Statements, at},
};

/// Texts asked for in one question. The server reads all of them to find these.
const TEXTS: usize = 1000;

const EXTENSION: &str = "pg_stat_statements";

/// Before 1.8 (PostgreSQL 13) it had no times of planning and other names.
pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung {
        name: "pg_stat_statements with times of birth",
        needs: &[Need::Preloaded(EXTENSION), Need::Extension(EXTENSION, 111)],
    },
    Rung { name: "pg_stat_statements", needs: &[Need::Preloaded(EXTENSION), Need::Extension(EXTENSION, 108)] },
];

/// Asks for the counters, and for the texts of what is new.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
    memory: &mut Statements,
) -> Result<(), Failure> {
    let Some(extension) = facts.extensions.get(EXTENSION) else { return Ok(()) };
    let rows = session.ask(own, &counters_sql(&extension.schema, extension.version, memory.bound())).await?;
    memory.look(decode(&rows)?);
    let unknown = memory.unknown(TEXTS);
    if !unknown.is_empty() {
        let rows = session.ask(own, &texts_sql(&extension.schema, &unknown)).await?;
        for row in rows.iter() {
            if let (Some(id), Some(text)) = (row.text("queryid")?, row.text("query")?) {
                memory.learn(id, text);
            }
        }
    }
    Ok(())
}

/// Only what clients sent themselves is counted, where the extension tells it apart (1.9): what functions execute within it is not seen on the wire.
fn counters_sql(schema: &str, version: u32, limit: usize) -> String {
    let toplevel = if version >= 109 { " AND s.toplevel" } else { "" };
    let io_time = match version {
        111.. => "s.shared_blk_read_time + s.shared_blk_write_time",
        _ => "s.blk_read_time + s.blk_write_time",
    };
    let since = match version {
        111.. => "(extract(epoch FROM s.stats_since) * 1000000)::bigint",
        _ => "NULL::bigint",
    };
    format!(
        "SELECT s.queryid, s.dbid, s.userid, d.datname, r.rolname, {since} AS since, s.calls, s.rows, s.total_exec_time, s.total_plan_time, \
         s.shared_blks_hit, s.shared_blks_read, s.shared_blks_dirtied, s.shared_blks_written, s.temp_blks_read, s.temp_blks_written, \
         {io_time} AS io_time, s.wal_bytes \
         FROM {schema}.pg_stat_statements(false) s \
         LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.userid \
         WHERE s.queryid IS NOT NULL{toplevel} ORDER BY s.calls DESC LIMIT {limit}"
    )
}

fn texts_sql(schema: &str, ids: &[Arc<str>]) -> String {
    // They are numbers that the server itself has written.
    let ids: Vec<&str> = ids.iter().map(|id| &**id).filter(|id| id.parse::<i64>().is_ok()).collect();
    format!(
        "SELECT DISTINCT ON (queryid) queryid, query FROM {schema}.pg_stat_statements(true) \
         WHERE query IS NOT NULL AND queryid = ANY ('{{{}}}'::bigint[])",
        ids.join(",")
    )
}

fn decode(rows: &Rows) -> Result<Vec<Entry>, Malformed> {
    rows.iter()
        .map(|row| {
            let mut values = [0; COUNTERS];
            for (place, column) in [
                (at::CALLS, "calls"),
                (at::ROWS, "rows"),
                (at::SHARED_HIT, "shared_blks_hit"),
                (at::SHARED_READ, "shared_blks_read"),
                (at::SHARED_DIRTIED, "shared_blks_dirtied"),
                (at::SHARED_WRITTEN, "shared_blks_written"),
                (at::TEMP_READ, "temp_blks_read"),
                (at::TEMP_WRITTEN, "temp_blks_written"),
                (at::WAL_BYTES, "wal_bytes"),
            ] {
                values[place] = row.number(column)?;
            }
            for (place, column) in
                [(at::EXEC_TIME, "total_exec_time"), (at::PLAN_TIME, "total_plan_time"), (at::IO_TIME, "io_time")]
            {
                let millis: f64 = row.number(column)?;
                values[place] = (millis * 1e6) as u64;
            }
            Ok(Entry {
                key: Key {
                    id: row.name("queryid")?.unwrap_or_default(),
                    database: row.name("datname")?,
                    user: row.name("rolname")?,
                    numbers: (row.number("dbid")?, row.number("userid")?),
                },
                since: row.get("since")?,
                values,
                p95: None,
                p99: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn each_version_is_asked_for_the_columns_it_has() {
        let old = counters_sql("public", 108, 10);
        assert!(old.contains("s.blk_read_time") && !old.contains("toplevel") && old.contains("NULL::bigint AS since"));
        let middle = counters_sql("public", 110, 10);
        assert!(middle.contains("s.blk_read_time") && middle.contains("s.toplevel"));
        let new = counters_sql("\"My schema\"", 112, 10);
        assert!(new.contains("s.shared_blk_read_time") && new.contains("stats_since"));
        assert!(new.contains("FROM \"My schema\".pg_stat_statements(false)") && new.ends_with("LIMIT 10"));
    }

    #[test]
    fn only_numbers_get_into_a_question() {
        let ids = ["-7".into(), "8".into(), "9}'; DROP TABLE t; --".into()];
        assert!(texts_sql("public", &ids).ends_with("ANY ('{-7,8}'::bigint[])"));
    }

    #[test]
    fn rows_become_entries() {
        let rows = table(
            "queryid dbid userid datname rolname since calls rows total_exec_time total_plan_time shared_blks_hit shared_blks_read \
             shared_blks_dirtied shared_blks_written temp_blks_read temp_blks_written io_time wal_bytes\n\
             -77 5 10 bench app 1700000000000000 12 34 1.5 0.25 1 2 3 4 5 6 0.001 789",
        );
        let entries = decode(&rows).unwrap();
        let entry = &entries[0];
        assert_eq!((&*entry.key.id, entry.key.numbers, entry.since), ("-77", (5, 10), Some(1_700_000_000_000_000)));
        let values = [12, 34, 1_500_000, 250_000, 0, 1, 2, 3, 4, 5, 6, 1000, 789, 0, 0, 0, 0];
        assert_eq!(entry.values, values);
    }
}
