//! Who receives this server's changes and how far behind, what replication slots hold back, and how far behind a standby is itself.

use std::sync::Arc;

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
    model::database_names::{attribute as a, postgresql as m},
};

pub(in crate::collect) const RUNGS: &[Rung] = &[
    Rung {
        name: "pg_stat_replication, slots, files of the log",
        needs: &[Need::Grant(Grant::AllStats), Need::Grant(Grant::ListWal)],
    },
    Rung { name: "pg_stat_replication, slots", needs: &[Need::Grant(Grant::AllStats)] },
];

/// Asks for all of them.
pub(in crate::collect) async fn ask(
    session: &mut Session,
    own: &mut OwnStatements,
    facts: &Facts,
    rung: &str,
) -> Result<Points, Failure> {
    let mut points = Points::default();
    let here = match facts.recovery {
        true => "pg_last_wal_receive_lsn()",
        false => "pg_current_wal_lsn()",
    };
    add_standbys(&session.ask(own, &standbys_sql(here)).await?, &mut points)?;
    add_slots(&session.ask(own, &slots_sql(here)).await?, &mut points)?;
    let files = rung == RUNGS[0].name;
    add_own(&session.ask(own, &own_sql(files)).await?, &mut points)?;
    Ok(points)
}

/// Of several standbys on one host the one furthest behind counts.
fn standbys_sql(here: &str) -> String {
    format!(
        "SELECT coalesce(host(client_addr), 'unix') AS client, max(pg_wal_lsn_diff({here}, replay_lsn))::bigint AS delay, \
         extract(epoch FROM max(write_lag))::float8 AS write, extract(epoch FROM max(flush_lag))::float8 AS flush, \
         extract(epoch FROM max(replay_lag))::float8 AS replay FROM pg_catalog.pg_stat_replication GROUP BY 1 LIMIT 1000"
    )
}

fn slots_sql(here: &str) -> String {
    format!(
        "SELECT slot_name, pg_wal_lsn_diff({here}, restart_lsn)::bigint AS retained FROM pg_catalog.pg_replication_slots LIMIT 1000"
    )
}

fn own_sql(files: bool) -> String {
    let age = match files {
        true => "(SELECT extract(epoch FROM now() - min(modification))::bigint FROM pg_catalog.pg_ls_waldir())",
        false => "NULL::bigint",
    };
    format!(
        "SELECT {age} AS wal_age, CASE WHEN pg_is_in_recovery() \
         THEN extract(epoch FROM now() - pg_last_xact_replay_timestamp())::bigint END AS replay_delay"
    )
}

fn add_standbys(rows: &Rows, points: &mut Points) -> Result<(), Malformed> {
    for row in rows.iter() {
        let Some(client) = row.name("client")? else { continue };
        points.int(&m::DATA_DELAY, &[(a::REPLICATION_CLIENT, &client)], row.get("delay")?);
        for operation in ["write", "flush", "replay"] {
            let kind = Arc::from(operation);
            let attributes = [(a::OPERATION, &kind), (a::REPLICATION_CLIENT, &client)];
            let seconds: Option<f64> = row.get(operation)?;
            points.double(&m::WAL_DELAY, &attributes, seconds);
            points.int(&m::WAL_LAG, &attributes, seconds.map(|seconds| seconds as i64));
        }
    }
    Ok(())
}

fn add_slots(rows: &Rows, points: &mut Points) -> Result<(), Malformed> {
    for row in rows.iter() {
        let Some(slot) = row.name("slot_name")? else { continue };
        points.int(&m::SLOT_RETAINED, &[(a::SLOT, &slot)], row.get("retained")?);
    }
    Ok(())
}

fn add_own(rows: &Rows, points: &mut Points) -> Result<(), Malformed> {
    let Some(row) = rows.first() else { return Ok(()) };
    points.int(&m::WAL_AGE, &[], row.get("wal_age")?);
    points.int(&m::REPLAY_DELAY, &[], row.get("replay_delay")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{collect::row::table, model::Value};

    #[test]
    fn lags_come_out_whole_and_exact() {
        let mut points = Points::default();
        add_standbys(&table("client delay write flush replay\n10.0.0.7 4096 0.25 1.5 -"), &mut points).unwrap();
        add_slots(&table("slot_name retained\nold 99"), &mut points).unwrap();
        add_own(&table("wal_age replay_delay\n60 -"), &mut points).unwrap();
        let texts: Vec<_> = points.into_vec().iter().map(|point| (point.metric.name, point.value)).collect();
        assert_eq!(
            texts,
            [
                ("postgresql.replication.data_delay", Value::Int(4096)),
                ("postgresql.wal.delay", Value::Double(0.25)),
                ("postgresql.wal.lag", Value::Int(0)),
                ("postgresql.wal.delay", Value::Double(1.5)),
                ("postgresql.wal.lag", Value::Int(1)),
                ("querylens.postgresql.slot.retained", Value::Int(99)),
                ("postgresql.wal.age", Value::Int(60)),
            ]
        );
    }
}
