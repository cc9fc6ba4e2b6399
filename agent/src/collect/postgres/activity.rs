//! pg_stat_activity and pg_locks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::collect::{
    activity::{MAX_SESSIONS, Seen},
    blocking::Waiter,
    facts::{Facts, Grant},
    failure::Failure,
    ladder::{Need, Rung},
    own::OwnStatements,
    row::{Malformed, Row, Rows},
    session::{APPLICATION, Session},
};

/// Version with query ids in pg_stat_activity and the beginning of waits in pg_locks.
const QUERY_IDS: u32 = 140_000;

pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung {
        name: "pg_stat_activity with query ids, pg_locks",
        needs: &[
            Need::Version(QUERY_IDS, "14"),
            Need::Grant(Grant::AllStats),
            Need::Setting("track_activities", &["on"]),
            Need::Setting("compute_query_id", &["on", "auto", "regress"]),
        ],
    },
    Rung {
        name: "pg_stat_activity, pg_locks",
        needs: &[Need::Grant(Grant::AllStats), Need::Setting("track_activities", &["on"])],
    },
];

/// Asks for the sessions, and for locks if one is waited for.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
) -> Result<(Vec<Seen>, Vec<Waiter>), Failure> {
    let rows = session.ask(own, &sessions_sql(facts.version)).await?;
    let (seen, mut waiters) = decode_sessions(&rows)?;
    if !waiters.is_empty() {
        let pids: Vec<i64> = waiters.iter().map(|waiter| waiter.session).collect();
        let rows = session.ask(own, &locks_sql(facts.version, &pids)).await?;
        add_locks(&mut waiters, &rows)?;
    }
    Ok((seen, waiters))
}

/// Whom a session waits for is asked only of those that wait for a lock: the answer takes the lock manager's own locks.
fn sessions_sql(version: u32) -> String {
    let query_id = if version >= QUERY_IDS { "a.query_id" } else { "NULL::bigint" };
    let millis = |since: &str| format!("(extract(epoch FROM clock_timestamp() - a.{since}) * 1000)::bigint");
    format!(
        "SELECT a.pid, a.datname, a.usename, a.state, a.wait_event_type, a.wait_event, {query_id} AS query_id, {} AS transaction_ms, {} AS statement_ms, \
         {} AS state_ms, age(a.backend_xmin) AS xmin_age, \
         CASE WHEN a.wait_event_type = 'Lock' THEN array_to_string(pg_blocking_pids(a.pid), ',') END AS blocked_by \
         FROM pg_catalog.pg_stat_activity a \
         WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.application_name IS DISTINCT FROM '{APPLICATION}' \
         LIMIT {MAX_SESSIONS}",
        millis("xact_start"),
        millis("query_start"),
        millis("state_change"),
    )
}

/// A waiter for a row waits for the row's transaction; the table is that of the row, which it has locked meanwhile.
fn locks_sql(version: u32, pids: &[i64]) -> String {
    let waited = match version {
        QUERY_IDS.. => "(extract(epoch FROM clock_timestamp() - l.waitstart) * 1000)::bigint",
        _ => "NULL::bigint",
    };
    let pids: Vec<String> = pids.iter().map(i64::to_string).collect();
    format!(
        "SELECT l.pid, l.mode, l.granted, {waited} AS waited_ms, \
         CASE WHEN l.database IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())) \
         THEN l.relation::regclass::text ELSE 'oid ' || l.relation END AS relation \
         FROM pg_catalog.pg_locks l WHERE l.pid = ANY ('{{{}}}'::int[]) AND (NOT l.granted OR l.locktype = 'tuple')",
        pids.join(",")
    )
}

fn millis(row: &Row<'_>, column: &str) -> Result<Option<Duration>, Malformed> {
    // Clocks may be set back.
    Ok(row.get::<i64>(column)?.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))))
}

fn decode_sessions(rows: &Rows) -> Result<(Vec<Seen>, Vec<Waiter>), Malformed> {
    let (mut sessions, mut waiters) = (Vec::new(), Vec::new());
    for row in rows.iter() {
        let session = row.number("pid")?;
        let state = row.name("state")?.unwrap_or_else(|| "unknown".into());
        let active = &*state == "active" || state.starts_with("fastpath");
        let executing = if active { millis(&row, "statement_ms")? } else { None };
        let idle_in_transaction = match state.starts_with("idle in transaction") {
            true => millis(&row, "state_ms")?,
            false => None,
        };
        if let Some(by) = row.text("blocked_by")? {
            let by = by.split(',').filter_map(|pid| pid.parse().ok()).collect();
            waiters.push(Waiter { session, by, waited: executing.unwrap_or_default(), ..Waiter::default() });
        }
        sessions.push(Seen {
            session,
            task: Some(session),
            user: row.name("usename")?,
            database: row.name("datname")?,
            state,
            active,
            wait: row.name("wait_event_type")?.zip(row.name("wait_event")?),
            statement: row.name("query_id")?.filter(|_| active),
            transaction: millis(&row, "transaction_ms")?,
            executing,
            idle_in_transaction,
            xmin: row.get("xmin_age")?,
        });
    }
    Ok((sessions, waiters))
}

/// Adds what each one waits for.
fn add_locks(waiters: &mut [Waiter], rows: &Rows) -> Result<(), Malformed> {
    let mut held: HashMap<i64, Arc<str>> = HashMap::new();
    let mut by_session: HashMap<i64, &mut Waiter> = waiters.iter_mut().map(|waiter| (waiter.session, waiter)).collect();
    for row in rows.iter() {
        let session = row.number("pid")?;
        let relation = row.name("relation")?;
        if row.flag("granted")? {
            held.extend(relation.map(|relation| (session, relation)));
        } else if let Some(waiter) = by_session.get_mut(&session) {
            waiter.lock = row.name("mode")?;
            waiter.relation = relation;
            if let Some(waited) = millis(&row, "waited_ms")? {
                waiter.waited = waited;
            }
        }
    }
    for (session, relation) in held {
        if let Some(waiter) = by_session.get_mut(&session) {
            waiter.relation.get_or_insert(relation);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn each_version_is_asked_for_what_it_has() {
        assert!(sessions_sql(130_000).contains("NULL::bigint AS query_id"));
        assert!(sessions_sql(180_000).contains("a.query_id AS query_id"));
        assert!(!locks_sql(130_000, &[1]).contains("waitstart"));
        assert!(locks_sql(150_000, &[1, 2]).contains("waitstart") && locks_sql(150_000, &[1, 2]).contains("'{1,2}'"));
    }

    #[test]
    fn rows_become_sessions_and_waiters() {
        let rows = table(
            "pid datname usename state wait_event_type wait_event query_id transaction_ms statement_ms state_ms xmin_age blocked_by\n\
             10 bench app idle_in_transaction Client ClientRead 77 9000 8000 7000 - -\n\
             11 bench app active Lock transactionid -5 500 400 400 3 10\n\
             12 bench app active Lock tuple -5 - -20 0 3 10,11\n\
             13 bench app active - - - 1 1 1 1 -",
        );
        let (sessions, mut waiters) = decode_sessions(&rows).unwrap();
        assert_eq!(sessions.len(), 4);
        assert_eq!(sessions[0].statement, None, "an idle session executes nothing");
        assert_eq!(sessions[1].statement.as_deref(), Some("-5"));
        assert_eq!(sessions[1].executing, Some(Duration::from_millis(400)));
        assert_eq!(sessions[2].executing, Some(Duration::ZERO));
        assert!(sessions[3].active && sessions[3].wait.is_none());
        assert_eq!(waiters.iter().map(|waiter| waiter.by.clone()).collect::<Vec<_>>(), [vec![10], vec![10, 11]]);
        let locks = table(
            "pid mode granted waited_ms relation\n\
             11 ExclusiveLock t - accounts\n\
             11 ShareLock f 350 -\n\
             12 AccessShareLock f - oid_7\n\
             99 AccessShareLock f 1 x",
        );
        add_locks(&mut waiters, &locks).unwrap();
        assert_eq!(waiters[0].relation.as_deref(), Some("accounts"));
        assert_eq!((waiters[0].lock.as_deref(), waiters[0].waited), (Some("ShareLock"), Duration::from_millis(350)));
        assert_eq!((waiters[1].relation.as_deref(), waiters[1].waited), (Some("oid_7"), Duration::ZERO));
    }

    #[test]
    fn idle_in_transaction_is_told_from_idle() {
        // The state holds blanks, which the tables of tests cannot.
        let mut rows = Rows::new([
            "pid",
            "datname",
            "usename",
            "state",
            "wait_event_type",
            "wait_event",
            "query_id",
            "transaction_ms",
            "statement_ms",
            "state_ms",
            "xmin_age",
            "blocked_by",
        ]);
        let value = |text: &str| Some(text.to_owned());
        let mut row = vec![
            value("1"),
            None,
            None,
            value("idle in transaction (aborted)"),
            None,
            None,
            None,
            value("9"),
            None,
            value("8"),
        ];
        row.extend([None, None]);
        rows.push(row);
        let (sessions, _) = decode_sessions(&rows).unwrap();
        assert_eq!(sessions[0].idle_in_transaction, Some(Duration::from_millis(8)));
        assert!(!sessions[0].active);
    }
}
