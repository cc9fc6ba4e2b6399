//! Counters and sizes of tables and indexes. They lie in each database by itself, so each is connected to in turn, one at a time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    collect::{
        failure::Failure,
        kernel::Tasks,
        ladder::{Need, Rung},
        login::Way,
        own::OwnStatements,
        points::{Attribute, Points},
        postgres::server::INTERNAL,
        row::{Malformed, Rows},
        session::{Connections, Session},
    },
    model::{
        Asked,
        database_names::{attribute as a, postgresql as m},
        names::{Metric, attribute as n},
    },
};

/// Databases that are visited; of further ones nothing is told.
const MAX_DATABASES: usize = 100;
/// Time after which a round stops, since all other questions wait for it.
const ROUND_LIMIT: Duration = Duration::from_secs(2);

pub(in crate::collect) const RUNGS: &[Rung] =
    &[Rung { name: "statistics views of each database", needs: &[Need::Setting("track_counts", &["on"])] }];

const DATABASES: &str = "\
SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate AND has_database_privilege(oid, 'CONNECT')";

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(in crate::collect) struct Tables {
    /// The latest points of each database.
    by_database: BTreeMap<Arc<str>, Points>,
    /// The last database that was visited; the next round begins behind it.
    last: Option<Arc<str>>,
    /// Databases that could not be asked, or were too many, in the last round.
    left_out: u64,
    /// A database that has pg_stat_statements.
    with_statements: Option<Arc<str>>,
    /// CPU time that the connections to other databases than the usual one have cost.
    cpu: Duration,
}

impl Tables {
    /// Asks the databases one after the other, for as long as a round may take; the next round goes on behind the last one. `current` is the one
    /// that `session` is connected to; the `way` leads to the others while there is a place for a connection. One that does not answer does not hide the others.
    pub(in crate::collect) async fn ask(
        &mut self,
        session: &mut Session,
        own: &mut OwnStatements,
        (way, connections): (&Way, &Connections),
        current: &str,
        limit: usize,
        tasks: Option<&Tasks>,
    ) -> Result<(), Failure> {
        let question = format!("{DATABASES} AND datname NOT IN ({INTERNAL}) ORDER BY datname");
        let databases = session.ask(own, &question).await?;
        let names = databases.iter().map(|row| row.name("datname")).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<Arc<str>> = names.into_iter().flatten().collect();
        self.left_out = names.len().saturating_sub(MAX_DATABASES) as u64;
        names.truncate(MAX_DATABASES);
        self.by_database.retain(|name, _| names.contains(name));
        let behind = names.iter().position(|name| Some(name) > self.last.as_ref()).unwrap_or(0);
        names.rotate_left(behind);
        let (began, mut answered, mut failed) = (Instant::now(), false, None);
        for name in names {
            if began.elapsed() > ROUND_LIMIT {
                break;
            }
            let elsewhere = &*name != current;
            if elsewhere && connections.free() == 0 {
                // The other connection waits for an answer that nobody waits for any more.
                self.left_out += 1;
                self.by_database.remove(&name);
                continue;
            }
            self.last = Some(Arc::clone(&name));
            let asked = match elsewhere {
                false => self.ask_one(session, own, &name, limit).await,
                true => match way.dial(Some(&name), connections).await {
                    Ok(mut other) => {
                        let asked = self.ask_one(&mut other, own, &name, limit).await;
                        self.cpu += Tables::cost(&mut other, own, tasks).await.unwrap_or_default();
                        other.end().await;
                        // The other connection's end is no end of this one.
                        asked.map_err(|failure| Failure { fatal: false, ..failure })
                    }
                    Err(failure) => Err(Failure { fatal: false, ..failure }),
                },
            };
            match asked {
                Ok(points) => {
                    answered = true;
                    self.by_database.insert(name, points);
                }
                Err(failure) if failure.fatal => return Err(failure),
                // Asking the others would make it worse.
                Err(failure) if matches!(failure.asked, Asked::TooManyConnections | Asked::ShuttingDown) => {
                    return Err(failure);
                }
                Err(failure) => {
                    self.left_out += 1;
                    self.by_database.remove(&name);
                    tracing::debug!(database = %name, reason = %failure.reason, "tables could not be asked for");
                    failed = Some(failure);
                }
            }
        }
        match failed {
            Some(failure) if !answered => Err(failure),
            _ => Ok(()),
        }
    }

    /// The latest points of all databases.
    pub(in crate::collect) fn points(&self) -> Points {
        let mut all = Points::default();
        self.by_database.values().for_each(|points| all.extend(points.clone()));
        all
    }

    /// Databases that could not be asked, or were too many, in the last round.
    pub(in crate::collect) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// CPU time that the connections to other databases than the usual one have cost since this was last called.
    pub(in crate::collect) fn take_cpu(&mut self) -> Duration {
        std::mem::take(&mut self.cpu)
    }

    /// CPU time of a session from its beginning, as far as that can be read.
    async fn cost(session: &mut Session, own: &mut OwnStatements, tasks: Option<&Tasks>) -> Option<Duration> {
        let task = session.ask(own, TASK).await.ok()?.first()?.get("task").ok()??;
        Some(tasks?.used(task)?.on_cpu)
    }

    /// A database that has pg_stat_statements, if one was found.
    pub(in crate::collect) fn with_statements(&self) -> Option<&Arc<str>> {
        self.with_statements.as_ref()
    }

    async fn ask_one(
        &mut self,
        session: &mut Session,
        own: &mut OwnStatements,
        database: &Arc<str>,
        limit: usize,
    ) -> Result<Points, Failure> {
        let mut points = Points::default();
        let counts = session.ask(own, COUNTS).await?;
        if let Some(row) = counts.first() {
            let attributes = [(n::DB_NAMESPACE, database)];
            points.int(&m::TABLE_COUNT, &attributes, row.get("tables")?);
            points.int(&m::INVALID_INDEXES, &attributes, row.get("invalid_indexes")?);
            points.int(&m::UNUSED_INDEXES, &attributes, row.get("unused_indexes")?);
            points.int(&m::DUPLICATE_INDEXES, &attributes, row.get("duplicate_indexes")?);
            if row.flag("statements")? {
                self.with_statements.get_or_insert_with(|| Arc::clone(database));
            }
        }
        if limit > 0 {
            let tables = session.ask(own, &tables_sql(limit)).await?;
            add_tables(&tables, database, &mut points)?;
            let indexes = session.ask(own, &indexes_sql(limit)).await?;
            add_indexes(&indexes, database, &mut points)?;
            let sequences = session.ask(own, &sequences_sql(limit)).await?;
            add_sequences(&sequences, database, &mut points)?;
        }
        Ok(points)
    }
}

const TASK: &str = "SELECT pg_backend_pid() AS task";

const COUNTS: &str = "\
SELECT (SELECT count(*) FROM pg_catalog.pg_stat_user_tables) AS tables, \
(SELECT count(*) FROM pg_catalog.pg_index WHERE NOT indisvalid) AS invalid_indexes, \
(SELECT count(*) FROM pg_catalog.pg_stat_user_indexes s JOIN pg_catalog.pg_index i USING (indexrelid) \
WHERE s.idx_scan = 0 AND i.indisvalid AND NOT i.indisunique) AS unused_indexes, \
(SELECT coalesce(sum(alike.indexes - 1), 0) FROM (SELECT count(*) AS indexes FROM pg_catalog.pg_index i \
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indisvalid AND i.indrelid >= 16384 \
GROUP BY i.indrelid, c.relam, i.indkey, i.indclass, i.indcollation, i.indoption, i.indexprs::text, i.indpred::text HAVING count(*) > 1) alike) \
AS duplicate_indexes, \
EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'pg_stat_statements') AS statements";

/// Sizes need a lock that waits behind an exclusive one: what is locked so has none this time.
const LOCKED: &str = "\
WITH locked AS MATERIALIZED (SELECT DISTINCT relation FROM pg_catalog.pg_locks \
WHERE granted AND mode = 'AccessExclusiveLock' AND relation IS NOT NULL \
AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))";

fn tables_sql(limit: usize) -> String {
    format!(
        "{LOCKED} SELECT s.schemaname, s.relname, s.n_tup_ins, s.n_tup_upd, s.n_tup_del, s.n_tup_hot_upd, s.n_live_tup, s.n_dead_tup, s.seq_scan, \
         s.vacuum_count, s.autovacuum_count, i.heap_blks_read, i.heap_blks_hit, i.idx_blks_read, i.idx_blks_hit, i.toast_blks_read, \
         i.toast_blks_hit, i.tidx_blks_read, i.tidx_blks_hit, CASE WHEN l.relation IS NULL THEN pg_table_size(s.relid) END AS size \
         FROM pg_catalog.pg_stat_user_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid \
         JOIN pg_catalog.pg_statio_user_tables i ON i.relid = s.relid \
         LEFT JOIN locked l ON l.relation = s.relid ORDER BY c.relpages DESC, c.oid LIMIT {limit}"
    )
}

fn indexes_sql(limit: usize) -> String {
    format!(
        "{LOCKED} SELECT s.schemaname, s.relname, s.indexrelname, s.idx_scan, \
         CASE WHEN l.relation IS NULL THEN pg_relation_size(s.indexrelid) END AS size \
         FROM pg_catalog.pg_stat_user_indexes s JOIN pg_catalog.pg_class c ON c.oid = s.indexrelid \
         LEFT JOIN locked l ON l.relation = s.indexrelid ORDER BY c.relpages DESC, c.oid LIMIT {limit}"
    )
}

/// Those nearest to their ends. A sequence that was never used has no last value.
fn sequences_sql(limit: usize) -> String {
    format!(
        "SELECT schemaname, sequencename, \
         ((last_value - CASE WHEN increment_by > 0 THEN min_value ELSE max_value END)::numeric \
         / CASE WHEN increment_by > 0 THEN max_value - min_value::numeric ELSE min_value - max_value::numeric END)::float8 AS used \
         FROM pg_catalog.pg_sequences WHERE NOT cycle AND last_value IS NOT NULL AND max_value > min_value ORDER BY used DESC LIMIT {limit}"
    )
}

/// `{database}|{schema}`, as semantic conventions write a namespace of PostgreSQL.
fn namespace(database: &str, schema: Option<&str>) -> Arc<str> {
    match schema {
        Some(schema) => format!("{database}|{schema}").into(),
        None => database.into(),
    }
}

/// A metric whose points differ in one attribute: metric, attribute, and for each column the attribute's value.
type Kinds = (&'static Metric, &'static str, &'static [(&'static str, &'static str)]);

fn add_tables(rows: &Rows, database: &str, points: &mut Points) -> Result<(), Malformed> {
    const BLOCKS: &[(&str, &str)] = &[
        ("heap_blks_read", "heap_read"),
        ("heap_blks_hit", "heap_hit"),
        ("idx_blks_read", "idx_read"),
        ("idx_blks_hit", "idx_hit"),
        ("toast_blks_read", "toast_read"),
        ("toast_blks_hit", "toast_hit"),
        ("tidx_blks_read", "tidx_read"),
        ("tidx_blks_hit", "tidx_hit"),
    ];
    const OPERATIONS: &[(&str, &str)] =
        &[("n_tup_ins", "ins"), ("n_tup_upd", "upd"), ("n_tup_del", "del"), ("n_tup_hot_upd", "hot_upd")];
    const ROWS: &[(&str, &str)] = &[("n_live_tup", "live"), ("n_dead_tup", "dead")];
    const KINDS: &[Kinds] =
        &[(&m::BLOCKS_READ, a::SOURCE, BLOCKS), (&m::OPERATIONS, a::OPERATION, OPERATIONS), (&m::ROWS, a::STATE, ROWS)];
    const PLAIN: &[(&str, &Metric)] = &[
        ("seq_scan", &m::SEQUENTIAL_SCANS),
        ("vacuum_count", &m::VACUUM_COUNT),
        ("autovacuum_count", &m::AUTOVACUUM_COUNT),
        ("size", &m::TABLE_SIZE),
    ];
    for row in rows.iter() {
        let Some(table) = row.name("relname")? else { continue };
        let namespace = namespace(database, row.text("schemaname")?);
        let place: [Attribute<'_>; 2] = [(n::DB_NAMESPACE, &namespace), (n::DB_COLLECTION_NAME, &table)];
        for (metric, attribute, columns) in KINDS {
            for (column, kind) in *columns {
                let kind = Arc::from(*kind);
                points.int(metric, &[(*attribute, &kind), place[0], place[1]], row.get(column)?);
            }
        }
        for (column, metric) in PLAIN {
            points.int(metric, &place, row.get(column)?);
        }
    }
    Ok(())
}

fn add_indexes(rows: &Rows, database: &str, points: &mut Points) -> Result<(), Malformed> {
    for row in rows.iter() {
        let (Some(table), Some(index)) = (row.name("relname")?, row.name("indexrelname")?) else { continue };
        let namespace = namespace(database, row.text("schemaname")?);
        let place = [(n::DB_NAMESPACE, &namespace), (n::DB_COLLECTION_NAME, &table), (a::INDEX_NAME, &index)];
        points.int(&m::INDEX_SCANS, &place, row.get("idx_scan")?);
        points.int(&m::INDEX_SIZE, &place, row.get("size")?);
    }
    Ok(())
}

fn add_sequences(rows: &Rows, database: &str, points: &mut Points) -> Result<(), Malformed> {
    for row in rows.iter() {
        let Some(sequence) = row.name("sequencename")? else { continue };
        let namespace = namespace(database, row.text("schemaname")?);
        points.double(
            &m::SEQUENCE_USED,
            &[(n::DB_NAMESPACE, &namespace), (a::SEQUENCE_NAME, &sequence)],
            row.get("used")?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{collect::row::table, model::Value};

    #[test]
    fn rows_become_points_with_their_place() {
        let mut points = Points::default();
        let rows = table(
            "schemaname relname n_tup_ins n_tup_upd n_tup_del n_tup_hot_upd n_live_tup n_dead_tup seq_scan vacuum_count autovacuum_count \
             heap_blks_read heap_blks_hit idx_blks_read idx_blks_hit toast_blks_read toast_blks_hit tidx_blks_read tidx_blks_hit size\n\
             app orders 1 2 3 4 5 6 7 8 9 10 11 12 13 - - - - 8192\n\
             app locked 0 0 0 0 0 0 0 0 0 0 0 - - - - - - -",
        );
        add_tables(&rows, "shop", &mut points).unwrap();
        add_indexes(
            &table("schemaname relname indexrelname idx_scan size\napp orders orders_pkey 3 16384"),
            "shop",
            &mut points,
        )
        .unwrap();
        let sequences = table("schemaname sequencename used\napp orders_id_seq 0.75");
        add_sequences(&sequences, "shop", &mut points).unwrap();
        let points = points.into_vec();
        let used = points.iter().find(|point| *point.metric == m::SEQUENCE_USED).unwrap();
        assert_eq!((used.value, &*used.attributes[1].1), (Value::Double(0.75), "orders_id_seq"));
        let texts: Vec<String> = points
            .iter()
            .filter(|point| [&m::ROWS, &m::TABLE_SIZE, &m::INDEX_SIZE].contains(&point.metric))
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
                "postgresql.rows state=live db.namespace=shop|app db.collection.name=orders 5",
                "postgresql.rows state=dead db.namespace=shop|app db.collection.name=orders 6",
                "postgresql.table.size db.namespace=shop|app db.collection.name=orders 8192",
                "postgresql.rows state=live db.namespace=shop|app db.collection.name=locked 0",
                "postgresql.rows state=dead db.namespace=shop|app db.collection.name=locked 0",
                "postgresql.index.size db.namespace=shop|app db.collection.name=orders postgresql.index.name=orders_pkey 16384",
            ]
        );
        for point in &points {
            let names: Vec<_> = point.attributes.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, point.metric.attributes, "{}", point.metric.name);
        }
    }
}
