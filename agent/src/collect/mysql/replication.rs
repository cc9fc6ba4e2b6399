//! How far a replica is behind its source.

use crate::{
    collect::{
        facts::{Facts, Grant},
        failure::Failure,
        ladder::{Need, Rung},
        own::OwnStatements,
        points::Points,
        row::{Malformed, Rows},
        session::Session,
    },
    model::{Engine, database_names::mysql as m},
};

/// Version of MySQL that calls it a replica; MariaDB 10.5 does, too.
const REPLICA: u32 = 80_022;

pub(in crate::collect) const RUNGS: &[Rung] =
    &[Rung { name: "replica status", needs: &[Need::Grant(Grant::ReplicationClient)] }];

/// Asks for it. A server that is no replica answers nothing.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
) -> Result<Points, Failure> {
    let behind = match facts.engine {
        Engine::Mysql if facts.version >= REPLICA => "seconds_behind_source",
        _ => "seconds_behind_master",
    };
    let question = match facts.engine {
        Engine::Mysql if facts.version < REPLICA => "SHOW SLAVE STATUS",
        _ => "SHOW REPLICA STATUS",
    };
    let rows = session.ask(own, question).await?;
    Ok(decode(&rows, behind)?)
}

/// Of several sources the one that is furthest ahead counts.
fn decode(rows: &Rows, behind: &str) -> Result<Points, Malformed> {
    let largest = |column: &str| -> Result<Option<i64>, Malformed> {
        let values = rows.iter().map(|row| row.get(column)).collect::<Result<Vec<_>, _>>()?;
        Ok(values.into_iter().flatten().max())
    };
    let mut points = Points::default();
    points.int(&m::REPLICA_DELAY, &[], largest(behind)?);
    points.int(&m::REPLICA_SQL_DELAY, &[], largest("sql_delay")?);
    Ok(points)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{collect::row::table, model::Value};

    #[test]
    fn the_worst_source_counts_and_a_stopped_one_has_no_lag() {
        let rows = table("Seconds_Behind_Source SQL_Delay\n3 0\n7 0\n- 0");
        let points = decode(&rows, "seconds_behind_source").unwrap().into_vec();
        assert_eq!(points.iter().map(|point| point.value).collect::<Vec<_>>(), [Value::Int(7), Value::Int(0)]);
        assert!(decode(&Rows::default(), "seconds_behind_source").unwrap().into_vec().is_empty());
    }
}
