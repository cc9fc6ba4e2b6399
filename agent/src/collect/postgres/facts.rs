//! What a PostgreSQL server is and has.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    collect::{
        facts::{Extension, Facts, Grant, extension_version},
        failure::Failure,
        own::OwnStatements,
        row::Rows,
        session::Session,
    },
    model::{Asked, Engine},
};

const SERVER: &str = "\
SELECT current_setting('server_version_num') AS version, pg_backend_pid() AS task, quote_ident(current_user) AS account, current_database() AS database, \
current_setting('is_superuser') AS superuser, pg_is_in_recovery() AS recovery, \
pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS all_stats, pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') AS all_settings, \
has_function_privilege('pg_ls_waldir()', 'EXECUTE') AS list_wal";

/// Settings hidden from the account are missing in the answer.
const SETTINGS: &str = "\
SELECT name, setting FROM pg_catalog.pg_settings \
WHERE name IN ('shared_preload_libraries', 'track_activities', 'track_counts', 'track_io_timing', 'compute_query_id')";

const EXTENSIONS: &str = "\
SELECT e.extname AS name, e.extversion AS version, quote_ident(n.nspname) AS schema \
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace";

/// Keeps the agent's own statements out of pg_stat_statements; only superusers may.
const UNTRACKED: &str = "SET pg_stat_statements.track = 'none'";

/// Asks for all of them.
pub(in crate::collect) async fn ask(session: &mut Session, own: &mut OwnStatements) -> Result<Facts, Failure> {
    let server = session.ask(own, SERVER).await?;
    let settings = session.ask(own, SETTINGS).await?;
    let extensions = session.ask(own, EXTENSIONS).await?;
    let facts = decode(&server, &settings, &extensions)?;
    if facts.superuser {
        match session.ask(own, UNTRACKED).await {
            Err(failure) if failure.fatal => return Err(failure),
            // Where it is refused, own statements are recognised by their fingerprints.
            _ => {}
        }
    }
    Ok(facts)
}

fn decode(server: &Rows, settings: &Rows, extensions: &Rows) -> Result<Facts, Failure> {
    let row = server.first().ok_or_else(|| Failure {
        asked: Asked::Failed,
        reason: "the server says nothing of itself".to_owned(),
        fatal: false,
    })?;
    let mut grants = BTreeSet::new();
    let columns = [("all_stats", Grant::AllStats), ("all_settings", Grant::AllSettings), ("list_wal", Grant::ListWal)];
    for (column, grant) in columns {
        if row.flag(column)? {
            grants.insert(grant);
        }
    }
    let mut known = BTreeMap::new();
    for row in settings.iter() {
        if let (Some(name), Some(value)) = (row.text("name")?, row.text("setting")?) {
            known.insert(name.to_owned(), value.to_owned());
        }
    }
    let mut installed = BTreeMap::new();
    for row in extensions.iter() {
        let version = extension_version(row.text("version")?.unwrap_or_default());
        let schema = row.text("schema")?.unwrap_or_default().to_owned();
        installed.insert(row.text("name")?.unwrap_or_default().to_owned(), Extension { version, schema });
    }
    Ok(Facts {
        engine: Engine::Postgresql,
        version: row.number("version")?,
        account: row.text("account")?.unwrap_or_default().to_owned(),
        database: row.text("database")?.unwrap_or_default().to_owned(),
        task: row.get("task")?,
        superuser: row.flag("superuser")?,
        recovery: row.flag("recovery")?,
        extensions: installed,
        settings: known,
        grants,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::collect::row::table;

    #[test]
    fn answers_become_facts() {
        let server = "version task account database superuser recovery all_stats all_settings list_wal\n\
             150020 4711 monitor postgres off f t f f";
        let settings = table("name setting\nshared_preload_libraries pg_stat_statements\ntrack_io_timing on");
        let extensions = table("name version schema\nplpgsql 1.0 pg_catalog\npg_stat_statements 1.10 monitoring");
        let facts = decode(&table(server), &settings, &extensions).unwrap();
        assert_eq!((facts.version, facts.task, facts.superuser, facts.recovery), (150_020, Some(4711), false, false));
        assert!(facts.grants(Grant::AllStats) && !facts.grants(Grant::AllSettings));
        assert_eq!(facts.extensions["pg_stat_statements"], Extension { version: 110, schema: "monitoring".into() });
        assert!(facts.is_set("track_io_timing", &["ON"]));
        assert!(decode(&Rows::default(), &settings, &extensions).is_err());
    }
}
