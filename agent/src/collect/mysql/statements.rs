//! performance_schema.events_statements_summary_by_digest.

use std::{sync::Arc, time::Duration};

use crate::{
    collect::{
        facts::{Facts, Grant},
        failure::Failure,
        ladder::{Need, Rung},
        own::OwnStatements,
        row::{Malformed, Row, Rows},
        session::Session,
        statements::{COUNTERS, Entry, Key, Statements, at},
    },
    model::Engine,
};

/// Texts asked for in one question.
const TEXTS: usize = 500;

const DIGESTS: [Need; 3] = [
    Need::Setting("performance_schema", &["ON"]),
    Need::Grant(Grant::PerformanceSchema),
    Need::Setting("consumer statements_digest", &["YES"]),
];

pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung {
        name: "digest summaries with quantiles",
        needs: &[Need::Engine(Engine::Mysql), Need::Version(80_000, "8.0"), DIGESTS[0], DIGESTS[1], DIGESTS[2]],
    },
    Rung { name: "digest summaries", needs: &DIGESTS },
];

/// Asks for the counters, and for the texts of what is new. Returns the executions that the server counted under no digest, because its table
/// was full.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
    memory: &mut Statements,
) -> Result<u64, Failure> {
    let rows = session.ask(own, &counters_sql(facts.engine, memory.bound())).await?;
    let (entries, without) = decode(&rows)?;
    memory.look(entries);
    let unknown = memory.unknown(TEXTS);
    if !unknown.is_empty() {
        let rows = session.ask(own, &texts_sql(&unknown)).await?;
        for row in rows.iter() {
            if let (Some(id), Some(text)) = (row.text("digest")?, row.text("text")?) {
                memory.learn(id, text);
            }
        }
    }
    Ok(without)
}

fn counters_sql(engine: Engine, limit: usize) -> String {
    let quantiles = match engine {
        Engine::Mysql => "QUANTILE_95 AS p95, QUANTILE_99 AS p99",
        _ => "NULL AS p95, NULL AS p99",
    };
    format!(
        "SELECT DIGEST AS digest, SCHEMA_NAME AS db, CAST(UNIX_TIMESTAMP(FIRST_SEEN) * 1000000 AS SIGNED) AS since, COUNT_STAR AS calls, \
         SUM_TIMER_WAIT AS exec_time, SUM_LOCK_TIME AS lock_time, SUM_ERRORS AS errors, SUM_ROWS_AFFECTED AS rows_affected, \
         SUM_ROWS_SENT AS rows_sent, SUM_ROWS_EXAMINED AS rows_examined, SUM_CREATED_TMP_DISK_TABLES AS tmp_disk_tables, \
         SUM_NO_INDEX_USED AS no_index_used, {quantiles} \
         FROM performance_schema.events_statements_summary_by_digest ORDER BY COUNT_STAR DESC LIMIT {limit}"
    )
}

fn texts_sql(ids: &[Arc<str>]) -> String {
    // They are hexadecimal numbers that the server itself has written.
    let plain = |id: &&Arc<str>| id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ids: Vec<String> = ids.iter().filter(plain).map(|id| format!("'{id}'")).collect();
    format!(
        "SELECT DIGEST AS digest, MAX(DIGEST_TEXT) AS text FROM performance_schema.events_statements_summary_by_digest \
         WHERE DIGEST IN ({}) GROUP BY DIGEST",
        ids.join(",")
    )
}

/// Entries, and the executions of the row that has no digest.
fn decode(rows: &Rows) -> Result<(Vec<Entry>, u64), Malformed> {
    let picoseconds = |row: &Row<'_>, column: &str| -> Result<Option<Duration>, Malformed> {
        Ok(row.get::<u64>(column)?.map(|picoseconds| Duration::from_nanos(picoseconds / 1000)))
    };
    let (mut entries, mut without) = (Vec::new(), 0u64);
    for row in rows.iter() {
        let Some(id) = row.name("digest")? else {
            without = without.saturating_add(row.number("calls")?);
            continue;
        };
        let mut values = [0; COUNTERS];
        for (place, column) in [
            (at::CALLS, "calls"),
            (at::EXEC_TIME, "exec_time"),
            (at::LOCK_TIME, "lock_time"),
            (at::ERRORS, "errors"),
            (at::ROWS_EXAMINED, "rows_examined"),
            (at::TMP_DISK_TABLES, "tmp_disk_tables"),
            (at::NO_INDEX_USED, "no_index_used"),
        ] {
            values[place] = row.number(column)?;
        }
        let (affected, sent): (u64, u64) = (row.number("rows_affected")?, row.number("rows_sent")?);
        values[at::ROWS] = affected.wrapping_add(sent);
        entries.push(Entry {
            key: Key { id, database: row.name("db")?, user: None, numbers: (0, 0) },
            since: row.get("since")?,
            values,
            p95: picoseconds(&row, "p95")?,
            p99: picoseconds(&row, "p99")?,
        });
    }
    Ok((entries, without))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn rows_become_entries_and_the_overflow_is_told() {
        let rows = table(
            "digest db since calls exec_time lock_time errors rows_affected rows_sent rows_examined tmp_disk_tables no_index_used p95 p99\n\
             ab12 shop 17 5 7000000 3000 1 2 30 400 6 7 5000000 -\n\
             - - 17 99 1 1 0 0 0 0 0 0 - -",
        );
        let (entries, without) = decode(&rows).unwrap();
        assert_eq!((entries.len(), without), (1, 99));
        let entry = &entries[0];
        assert_eq!((entry.values[at::ROWS], entry.values[at::EXEC_TIME], entry.since), (32, 7_000_000, Some(17)));
        assert_eq!((entry.p95, entry.p99), (Some(Duration::from_micros(5)), None));
    }

    #[test]
    fn only_digests_get_into_a_question() {
        assert!(texts_sql(&["ab12".into(), "x' OR 1".into(), "FF".into()]).contains("IN ('ab12','FF')"));
        assert!(counters_sql(Engine::Mariadb, 5).contains("NULL AS p95"));
        assert!(counters_sql(Engine::Mysql, 5).contains("QUANTILE_95 AS p95"));
    }
}
