//! What the servers themselves count: a second truth beside that of the load generators.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};

use crate::{
    client::{MysqlClient, Rows},
    servers::{Mysqld, Postgres},
};

/// What a server counted of one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Executions.
    pub calls: u64,
    /// Mean duration of the execution inside the server.
    pub mean: Duration,
    /// Shortest one.
    pub min: Duration,
}

/// Spelling-independent form of a normalised statement, so that script, pg_stat_statements and performance_schema can be compared without the
/// normaliser under test: lower case, no blanks, no quotes, `?` for every parameter, and the synonyms of performance_schema's digests undone.
pub fn canonical(statement: &str) -> String {
    let lower = statement.to_lowercase().replace("distinctrow", "distinct");
    let mut text = String::new();
    let mut characters = lower.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '`' | '"' | ';' => {}
            c if c.is_whitespace() => {}
            '$' if characters.peek().is_some_and(char::is_ascii_digit) => {
                while characters.next_if(char::is_ascii_digit).is_some() {}
                text.push('?');
            }
            c => text.push(c),
        }
    }
    text
}

/// pg_stat_statements of one database, by [`canonical`] text; it counts under a lock, so exactly, except that of a prepared BEGIN or END it
/// counts only the first execution (versions 15 to 18; see [`counts_executions`]).
pub fn pg_stat_statements(server: &Postgres, database: &str) -> Result<BTreeMap<String, Counted>> {
    let mut client = server.client(database)?;
    client.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")?;
    let rows = client.query(
        "SELECT query, calls, mean_exec_time * 1e3, min_exec_time * 1e3 FROM pg_stat_statements \
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )?;
    read(rows)
}

/// Forgets what pg_stat_statements counted so far.
pub fn reset_pg_stat_statements(server: &Postgres) -> Result<()> {
    let mut client = server.client("postgres")?;
    client.query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")?;
    client.query("SELECT pg_stat_statements_reset()").map(drop)
}

/// Whether pg_stat_statements counts every execution of a statement: not if it is both prepared and no query but a command.
pub fn counts_executions(statement: &str, prepared: bool) -> bool {
    let command = ["BEGIN", "END", "COMMIT"].contains(&statement);
    !(command && prepared)
}

/// performance_schema's digests, by [`canonical`] text.
///
/// Its counters are added to without a lock or an atomic operation, so concurrent sessions lose updates (two sysbench threads: some 10
/// of 60,000, on MySQL 9.7): only a load of one connection is counted exactly. MariaDB 10.11 makes no digest of prepared statements.
pub fn statement_digests(server: &Mysqld) -> Result<BTreeMap<String, Counted>> {
    let rows = server.client()?.query(
        "SELECT digest_text, count_star, avg_timer_wait / 1e6, min_timer_wait / 1e6 \
         FROM performance_schema.events_statements_summary_by_digest WHERE schema_name = database()",
    )?;
    // MySQL tells the commands of the binary protocol apart by a word in front.
    let executions = rows.into_iter().filter_map(|mut row| {
        let text = row[0].take()?;
        let not_run = ["PREPARE ", "DEALLOCATE "].iter().any(|word| text.starts_with(word));
        row[0] = Some(text.strip_prefix("EXECUTE ").unwrap_or(&text).to_owned());
        (!not_run).then_some(row)
    });
    read(executions.collect())
}

/// Global status counters such as `Com_select`: kept per session and summed up, so exact at any concurrency. The session is the caller's, since
/// opening one runs statements that count.
pub fn global_status(client: &mut MysqlClient) -> Result<BTreeMap<String, u64>> {
    let rows = client.query("SHOW GLOBAL STATUS")?;
    let counters = rows.into_iter().filter_map(|row| match &row[..] {
        [Some(name), Some(value)] => Some((name.clone(), value.parse().ok()?)),
        _ => None,
    });
    Ok(counters.collect())
}

fn read(rows: Rows) -> Result<BTreeMap<String, Counted>> {
    let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
    for row in rows {
        let [Some(text), Some(calls), Some(mean), Some(min)] = &row[..] else { continue };
        let micros = |value: &str| Ok::<_, anyhow::Error>(Duration::from_secs_f64(value.parse::<f64>()? / 1e6));
        let calls: u64 = calls.parse().with_context(|| format!("calls of {text}: {calls}"))?;
        let new = Counted { calls, mean: micros(mean)?, min: micros(min)? };
        // The same statement of several users, or in both protocols: one number.
        counted
            .entry(canonical(text))
            .and_modify(|known| {
                let all = (known.calls + calls).max(1);
                known.mean =
                    (known.mean.mul_f64(known.calls as f64) + new.mean.mul_f64(calls as f64)).div_f64(all as f64);
                known.min = known.min.min(new.min);
                known.calls += calls;
            })
            .or_insert(new);
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn spellings_of_one_statement_are_equal() {
        let script = canonical("SELECT DISTINCT c FROM sbtest1 WHERE id BETWEEN ? AND ? ORDER BY c");
        let digest = canonical("SELECT DISTINCTROW `c` FROM `sbtest1` WHERE `id` BETWEEN ? AND ? ORDER BY `c` ");
        assert_eq!(script, digest);
        assert_eq!(canonical("UPDATE t SET a = a + $12 WHERE b = $1"), canonical("update t set a=a + ? where b = ?;"));
        assert_ne!(canonical("SELECT a FROM t"), canonical("SELECT b FROM t"));
    }
}
