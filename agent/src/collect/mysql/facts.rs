//! What a MySQL or MariaDB server is and has.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    collect::{
        facts::{Facts, Grant, mysql_version},
        failure::Failure,
        own::OwnStatements,
        row::Rows,
        session::Session,
    },
    model::{Asked, Engine},
};

const SERVER: &str =
    "SELECT VERSION() AS version, CURRENT_USER() AS account, @@GLOBAL.performance_schema AS performance_schema";

/// Static privileges of the account itself, without those of roles.
const PRIVILEGES: &str = "\
SELECT PRIVILEGE_TYPE AS privilege, '*' AS place FROM information_schema.USER_PRIVILEGES \
WHERE GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''') \
UNION ALL SELECT PRIVILEGE_TYPE, TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES \
WHERE GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')";

const CONSUMERS: &str = "SELECT NAME AS name, ENABLED AS enabled FROM performance_schema.setup_consumers";

/// The thread that serves the agent.
const TASK_MYSQL: &str =
    "SELECT THREAD_OS_ID AS task FROM performance_schema.threads WHERE PROCESSLIST_ID = CONNECTION_ID()";
const TASK_MARIADB: &str = "SELECT TID AS task FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()";

/// Prefix of consumers of performance_schema among the settings of [`Facts`].
pub(super) const CONSUMER: &str = "consumer ";

/// Asks for all of them.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    engine: Engine,
) -> Result<Facts, Failure> {
    let server = session.ask(own, SERVER).await?;
    let privileges = session.ask(own, PRIVILEGES).await?;
    let consumers = match session.ask(own, CONSUMERS).await {
        Err(failure) if failure.fatal => return Err(failure),
        // Not allowed or not there: then no rung can stand on one.
        consumers => consumers.unwrap_or_default(),
    };
    let task = match engine {
        Engine::Mariadb => TASK_MARIADB,
        _ => TASK_MYSQL,
    };
    let task = match session.ask(own, task).await {
        Err(failure) if failure.fatal => return Err(failure),
        task => task.unwrap_or_default(),
    };
    let mut facts = decode(engine, &server, &privileges, &consumers)?;
    if let Some(row) = task.first() {
        facts.task = row.get("task")?;
    }
    Ok(facts)
}

fn decode(engine: Engine, server: &Rows, privileges: &Rows, consumers: &Rows) -> Result<Facts, Failure> {
    let row = server.first().ok_or_else(|| Failure {
        asked: Asked::Failed,
        reason: "the server says nothing of itself".to_owned(),
        fatal: false,
    })?;
    let mut grants = BTreeSet::new();
    for row in privileges.iter() {
        let privilege = row.text("privilege")?.unwrap_or_default();
        let grant = match (privilege, row.text("place")?.unwrap_or_default()) {
            ("PROCESS", "*") => Grant::Process,
            // MariaDB 10.5 gave the same right other names.
            ("REPLICATION CLIENT" | "SLAVE MONITOR" | "REPLICA MONITOR", "*") => Grant::ReplicationClient,
            ("SELECT", "*" | "performance_schema") => Grant::PerformanceSchema,
            _ => continue,
        };
        grants.insert(grant);
    }
    let on = if row.flag("performance_schema")? { "ON" } else { "OFF" };
    let mut settings = BTreeMap::from([("performance_schema".to_owned(), on.to_owned())]);
    for row in consumers.iter() {
        if let (Some(name), Some(enabled)) = (row.text("name")?, row.text("enabled")?) {
            settings.insert(format!("{CONSUMER}{name}"), enabled.to_owned());
        }
    }
    Ok(Facts {
        engine,
        version: mysql_version(row.text("version")?.unwrap_or_default()),
        account: quoted(row.text("account")?.unwrap_or_default()),
        database: String::new(),
        task: None,
        superuser: false,
        recovery: false,
        extensions: BTreeMap::new(),
        settings,
        grants,
    })
}

/// `user@host` as SQL wants it; the host is what follows the last `@`.
fn quoted(account: &str) -> String {
    let quote = |part: &str| format!("'{}'", part.replace('\'', "''"));
    match account.rsplit_once('@') {
        Some((user, host)) => format!("{}@{}", quote(user), quote(host)),
        None => quote(account),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn answers_become_facts() {
        let server = table("version account performance_schema\n10.11.19-MariaDB-0+deb12u1 querylens@localhost 0");
        let mut privileges = Rows::new(["privilege", "place"]);
        for (privilege, place) in [("PROCESS", "*"), ("SLAVE MONITOR", "*"), ("SELECT", "shop"), ("USAGE", "*")] {
            privileges.push(vec![Some(privilege.into()), Some(place.into())]);
        }
        let consumers = table("NAME ENABLED\nstatements_digest YES");
        let facts = decode(Engine::Mariadb, &server, &privileges, &consumers).unwrap();
        assert_eq!((facts.version, facts.account.as_str()), (101_119, "'querylens'@'localhost'"));
        assert!(facts.grants(Grant::Process) && facts.grants(Grant::ReplicationClient));
        assert!(!facts.grants(Grant::PerformanceSchema));
        assert!(facts.is_set("performance_schema", &["off"]) && facts.is_set("consumer statements_digest", &["yes"]));
        assert_eq!(quoted("o'brien@%"), "'o''brien'@'%'");
    }
}
