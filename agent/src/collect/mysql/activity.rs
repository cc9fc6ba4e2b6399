//! Sessions, transactions of InnoDB, and who waits for whose locks.

use std::{sync::Arc, time::Duration};

use crate::{
    collect::{
        activity::{MAX_SESSIONS, Seen},
        blocking::Waiter,
        facts::{Facts, Grant},
        failure::Failure,
        ladder::{Need, Rung},
        own::OwnStatements,
        row::{Malformed, Row, Rows},
        session::Session,
    },
    model::Engine,
};

/// Rungs by name: what they ask differs.
const THREADS: &str = "threads, data and metadata locks";

/// Class of waits for a lock, as PostgreSQL names it.
const LOCK: &str = "Lock";

pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung {
        name: THREADS,
        needs: &[
            Need::Engine(Engine::Mysql),
            Need::Version(80_000, "8.0"),
            Need::Setting("performance_schema", &["ON"]),
            Need::Grant(Grant::PerformanceSchema),
            Need::Grant(Grant::Process),
        ],
    },
    Rung { name: "process list, InnoDB locks", needs: &[Need::Engine(Engine::Mariadb), Need::Grant(Grant::Process)] },
    Rung { name: "process list", needs: &[Need::Engine(Engine::Mysql), Need::Grant(Grant::Process)] },
];

const TRANSACTIONS: &str = "\
x.trx_state AS trx_state, TIMESTAMPDIFF(SECOND, x.trx_started, NOW()) AS trx_seconds, TIMESTAMPDIFF(SECOND, x.trx_wait_started, NOW()) AS wait_seconds";

/// Locks of rows in MySQL 8 and later.
const DATA_LOCKS: &str = "\
SELECT r.PROCESSLIST_ID AS session, b.PROCESSLIST_ID AS blocker, l.LOCK_MODE AS mode, CONCAT(l.OBJECT_SCHEMA, '.', l.OBJECT_NAME) AS relation \
FROM performance_schema.data_lock_waits w \
JOIN performance_schema.threads r ON r.THREAD_ID = w.REQUESTING_THREAD_ID JOIN performance_schema.threads b ON b.THREAD_ID = w.BLOCKING_THREAD_ID \
JOIN performance_schema.data_locks l ON l.ENGINE = w.ENGINE AND l.ENGINE_LOCK_ID = w.REQUESTING_ENGINE_LOCK_ID LIMIT 10000";

/// Locks of definitions in MySQL: an exclusive one waits for all that is granted, a shared one for the exclusive ones before it.
const METADATA_LOCKS: &str = "\
SELECT r.PROCESSLIST_ID AS session, b.PROCESSLIST_ID AS blocker, p.LOCK_TYPE AS mode, CONCAT(p.OBJECT_SCHEMA, '.', p.OBJECT_NAME) AS relation \
FROM performance_schema.metadata_locks p JOIN performance_schema.metadata_locks g \
ON g.OBJECT_TYPE = p.OBJECT_TYPE AND g.OBJECT_SCHEMA <=> p.OBJECT_SCHEMA AND g.OBJECT_NAME <=> p.OBJECT_NAME \
AND g.OWNER_THREAD_ID <> p.OWNER_THREAD_ID AND (p.LOCK_TYPE = 'EXCLUSIVE' AND g.LOCK_STATUS = 'GRANTED' \
OR p.LOCK_TYPE <> 'EXCLUSIVE' AND g.LOCK_TYPE = 'EXCLUSIVE') \
JOIN performance_schema.threads r ON r.THREAD_ID = p.OWNER_THREAD_ID JOIN performance_schema.threads b ON b.THREAD_ID = g.OWNER_THREAD_ID \
WHERE p.LOCK_STATUS = 'PENDING' AND p.OBJECT_TYPE = 'TABLE' LIMIT 10000";

/// Locks of rows in MariaDB.
const INNODB_LOCKS: &str = "\
SELECT r.trx_mysql_thread_id AS session, b.trx_mysql_thread_id AS blocker, l.lock_mode AS mode, REPLACE(l.lock_table, '`', '') AS relation \
FROM information_schema.INNODB_LOCK_WAITS w JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id \
JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id \
JOIN information_schema.INNODB_LOCKS l ON l.lock_id = w.requested_lock_id LIMIT 10000";

/// Asks for the sessions, and for locks if one is waited for.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
    rung: &str,
) -> Result<(Vec<Seen>, Vec<Waiter>), Failure> {
    let threads = rung == THREADS;
    let rows = session.ask(own, &sessions_sql(facts.engine, threads)).await?;
    let (seen, waits) = decode_sessions(&rows)?;
    let mut questions = Vec::new();
    if waits.rows {
        match facts.engine {
            Engine::Mariadb => questions.push(INNODB_LOCKS),
            _ if threads => questions.push(DATA_LOCKS),
            _ => {}
        }
    }
    if waits.definitions && threads {
        questions.push(METADATA_LOCKS);
    }
    let mut waiters = Vec::new();
    for question in questions {
        let rows = session.ask(own, question).await?;
        add_waiters(&mut waiters, &rows, &seen)?;
    }
    Ok((seen, waiters))
}

fn sessions_sql(engine: Engine, threads: bool) -> String {
    let task = if engine == Engine::Mariadb { "p.TID" } else { "NULL" };
    match threads {
        true => format!(
            "SELECT t.PROCESSLIST_ID AS session, t.THREAD_OS_ID AS task, t.PROCESSLIST_USER AS user, t.PROCESSLIST_DB AS db, t.PROCESSLIST_COMMAND AS command, t.PROCESSLIST_STATE AS state, \
             t.PROCESSLIST_TIME AS seconds, s.DIGEST AS digest, {TRANSACTIONS} \
             FROM performance_schema.threads t \
             LEFT JOIN performance_schema.events_statements_current s \
             ON s.THREAD_ID = t.THREAD_ID AND s.END_EVENT_ID IS NULL AND s.NESTING_EVENT_LEVEL = 0 \
             LEFT JOIN information_schema.INNODB_TRX x ON x.trx_mysql_thread_id = t.PROCESSLIST_ID \
             WHERE t.TYPE = 'FOREGROUND' AND t.PROCESSLIST_ID IS NOT NULL AND t.PROCESSLIST_ID <> CONNECTION_ID() LIMIT {MAX_SESSIONS}"
        ),
        false => format!(
            "SELECT p.ID AS session, {task} AS task, p.USER AS user, p.DB AS db, p.COMMAND AS command, p.STATE AS state, p.TIME AS seconds, NULL AS digest, {TRANSACTIONS} \
             FROM information_schema.PROCESSLIST p LEFT JOIN information_schema.INNODB_TRX x ON x.trx_mysql_thread_id = p.ID \
             WHERE p.ID <> CONNECTION_ID() AND p.USER <> 'system user' AND p.COMMAND <> 'Daemon' LIMIT {MAX_SESSIONS}"
        ),
    }
}

/// Whether somebody waits for locks, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Waits {
    rows: bool,
    definitions: bool,
}

fn decode_sessions(rows: &Rows) -> Result<(Vec<Seen>, Waits), Malformed> {
    let mut waits = Waits::default();
    let mut sessions = Vec::new();
    for row in rows.iter() {
        let command = row.name("command")?.unwrap_or_else(|| "unknown".into());
        let state = row.text("state")?.unwrap_or_default();
        let active = !matches!(&*command, "Sleep" | "Daemon" | "Binlog Dump" | "Binlog Dump GTID");
        let row_lock = row.text("trx_state")? == Some("LOCK WAIT");
        let definition_lock = state.starts_with("Waiting for") && state.ends_with("metadata lock");
        waits.rows |= row_lock;
        waits.definitions |= definition_lock;
        let wait = if row_lock {
            Some((LOCK.into(), "row".into()))
        } else if state.starts_with("Waiting for") && state.ends_with("lock") {
            Some((LOCK.into(), state.into()))
        } else if state.starts_with("Waiting") {
            Some(("Other".into(), state.into()))
        } else if !active {
            Some(("Client".into(), "idle".into()))
        } else {
            None
        };
        let seconds = |row: &Row<'_>, column: &str| -> Result<Option<Duration>, Malformed> {
            Ok(row.get::<i64>(column)?.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
        };
        let transaction = seconds(&row, "trx_seconds")?;
        let in_state = seconds(&row, "seconds")?;
        sessions.push(Seen {
            session: row.number("session")?,
            task: row.get("task")?,
            user: row.name("user")?,
            database: row.name("db")?,
            state: command,
            active,
            wait,
            statement: row.name("digest")?.filter(|_| active),
            transaction,
            executing: in_state.filter(|_| active),
            idle_in_transaction: transaction.and(in_state).filter(|_| !active),
            xmin: None,
        });
    }
    Ok((sessions, waits))
}

/// One row for each pair: several locks may be waited for, of several sessions.
fn add_waiters(waiters: &mut Vec<Waiter>, rows: &Rows, sessions: &[Seen]) -> Result<(), Malformed> {
    for row in rows.iter() {
        let (session, blocker): (i64, i64) = (row.number("session")?, row.number("blocker")?);
        let waiter = match waiters.iter().position(|waiter| waiter.session == session) {
            Some(place) => &mut waiters[place],
            None => {
                let waited = sessions.iter().find(|seen| seen.session == session).and_then(|seen| seen.executing);
                let (lock, relation): (Option<Arc<str>>, _) = (row.name("mode")?, row.name("relation")?);
                let waited = waited.unwrap_or_default();
                waiters.push(Waiter { session, lock, relation, waited, ..Waiter::default() });
                let last = waiters.len() - 1;
                &mut waiters[last]
            }
        };
        waiter.by.push(blocker);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rows(values: &[[&str; 11]]) -> Rows {
        let columns = [
            "session",
            "task",
            "user",
            "db",
            "command",
            "state",
            "seconds",
            "digest",
            "trx_state",
            "trx_seconds",
            "wait_seconds",
        ];
        let mut rows = Rows::new(columns);
        for row in values {
            rows.push(row.iter().map(|value| (*value != "-").then(|| (*value).to_owned())).collect());
        }
        rows
    }

    #[test]
    fn sessions_tell_what_they_wait_for() {
        let (sessions, waits) = decode_sessions(&rows(&[
            ["1", "11", "app", "shop", "Sleep", "", "50", "-", "RUNNING", "60", "-"],
            ["2", "12", "app", "shop", "Query", "updating", "3", "ab", "LOCK WAIT", "3", "3"],
            ["3", "13", "app", "shop", "Query", "Waiting for table metadata lock", "2", "cd", "-", "-", "-"],
            ["4", "-", "-", "-", "Query", "executing", "0", "ef", "-", "-", "-"],
        ]))
        .unwrap();
        assert_eq!(waits, Waits { rows: true, definitions: true });
        assert_eq!(sessions[0].idle_in_transaction, Some(Duration::from_secs(50)));
        assert_eq!(sessions[0].transaction, Some(Duration::from_secs(60)));
        assert_eq!(sessions[1].wait, Some((LOCK.into(), "row".into())));
        assert_eq!(sessions[2].wait.as_ref().unwrap().0.as_ref(), LOCK);
        assert!(sessions[3].wait.is_none() && sessions[3].active);
        let mut waiters = Vec::new();
        let pairs = crate::collect::row::table("session blocker mode relation\n2 1 X shop.t\n2 9 X shop.t");
        add_waiters(&mut waiters, &pairs, &sessions).unwrap();
        assert_eq!((waiters.len(), &waiters[0].by[..], waiters[0].waited), (1, &[1, 9][..], Duration::from_secs(3)));
    }
}
