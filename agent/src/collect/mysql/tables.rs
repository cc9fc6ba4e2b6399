//! Waits for the input and output of tables and indexes.

use std::sync::Arc;

use crate::{
    collect::{
        facts::Grant,
        failure::Failure,
        ladder::{Need, Rung},
        own::OwnStatements,
        points::{Attribute, Points},
        row::{Malformed, Rows},
        session::Session,
    },
    model::{
        database_names::{attribute as a, mysql as m},
        names::Metric,
    },
};

pub(in crate::collect) const RUNGS: &[Rung] = &[Rung {
    name: "table and index I/O summaries",
    needs: &[Need::Setting("performance_schema", &["ON"]), Need::Grant(Grant::PerformanceSchema)],
}];

const OPERATIONS: &[(&str, &str)] =
    &[("fetch", "FETCH"), ("insert", "INSERT"), ("update", "UPDATE"), ("delete", "DELETE")];

/// Asks for both, those with the most waiting first.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    limit: usize,
) -> Result<Points, Failure> {
    let mut points = Points::default();
    if limit > 0 {
        let tables = session.ask(own, &sql("table_io_waits_summary_by_table", "NULL", limit)).await?;
        add(&tables, &m::TABLE_IO_WAIT_COUNT, &m::TABLE_IO_WAIT_TIME, &mut points)?;
        // Rows found without an index have a line of their own, with no name.
        let source = "table_io_waits_summary_by_index_usage";
        let indexes = session.ask(own, &sql(source, "COALESCE(INDEX_NAME, 'NONE')", limit)).await?;
        add(&indexes, &m::INDEX_IO_WAIT_COUNT, &m::INDEX_IO_WAIT_TIME, &mut points)?;
    }
    Ok(points)
}

fn sql(source: &str, index: &str, limit: usize) -> String {
    let columns = OPERATIONS
        .iter()
        .map(|(name, column)| format!("COUNT_{column} AS {name}_count, SUM_TIMER_{column} AS {name}_time"));
    format!(
        "SELECT OBJECT_SCHEMA AS schema_name, OBJECT_NAME AS table_name, {index} AS index_name, {} \
         FROM performance_schema.{source} WHERE OBJECT_TYPE = 'TABLE' AND COUNT_STAR > 0 \
         AND OBJECT_SCHEMA NOT IN ('mysql', 'performance_schema', 'information_schema', 'sys') ORDER BY SUM_TIMER_WAIT DESC LIMIT {limit}",
        columns.collect::<Vec<_>>().join(", ")
    )
}

fn add(rows: &Rows, count: &'static Metric, time: &'static Metric, points: &mut Points) -> Result<(), Malformed> {
    for row in rows.iter() {
        let (Some(schema), Some(table)) = (row.name("schema_name")?, row.name("table_name")?) else { continue };
        let index = row.name("index_name")?;
        for (operation, _) in OPERATIONS {
            let kind = Arc::from(*operation);
            let mut attributes: Vec<Attribute<'_>> =
                vec![(a::OPERATION, &kind), (a::TABLE, &table), (a::SCHEMA, &schema)];
            attributes.extend(index.as_ref().map(|index| (a::INDEX, index)));
            points.int(count, &attributes, row.get(&format!("{operation}_count"))?);
            let picoseconds: Option<u64> = row.get(&format!("{operation}_time"))?;
            points.int(time, &attributes, picoseconds.and_then(|time| i64::try_from(time / 1000).ok()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{collect::row::table, model::Value};

    #[test]
    fn times_are_nanoseconds() {
        let rows = table(
            "schema_name table_name index_name fetch_count fetch_time insert_count insert_time update_count update_time delete_count delete_time\n\
             shop orders PRIMARY 3 5000 0 0 1 2000 0 0",
        );
        let mut points = Points::default();
        add(&rows, &m::INDEX_IO_WAIT_COUNT, &m::INDEX_IO_WAIT_TIME, &mut points).unwrap();
        let points = points.into_vec();
        assert_eq!(points.len(), 8);
        assert_eq!((points[0].value, points[1].value), (Value::Int(3), Value::Int(5)));
        let names: Vec<_> = points[0].attributes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, m::INDEX_IO_WAIT_COUNT.attributes);
    }
}
