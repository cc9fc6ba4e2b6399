//! Metrics that the databases keep themselves.

use super::{Server, Writer, text::Number};
use crate::{
    export::attributes,
    model::{Snapshot, Value, database_names},
};

/// Writes all of them, family by family.
pub(super) fn write(servers: &[Server<'_>], snapshot: &Snapshot, out: &mut Writer) {
    let collected = servers.iter().map(|Server { server, labels, .. }| {
        let points = snapshot.collected.get(&server.instance.key).map(attributes::collected).unwrap_or_default();
        (labels, points)
    });
    let collected: Vec<_> = collected.collect();
    for metric in database_names::all() {
        let mut family = out.family(metric);
        for (labels, points) in &collected {
            for (attributes, value) in points.get(metric.name).into_iter().flatten() {
                family.sample(&labels.with(attributes), *value);
            }
        }
    }
}

impl From<Value> for Number {
    fn from(value: Value) -> Number {
        match value {
            Value::Int(number) => u64::try_from(number).map_or(Number::Float(number as f64), Number::Whole),
            Value::Double(number) => Number::Float(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        export::{
            Host, OperationDurationName,
            prometheus::{Config, Exporter, Format, parse},
        },
        model::{
            Collected, Point, Question,
            database_names::{attribute as a, postgresql as m},
            testing,
        },
    };

    #[test]
    fn points_have_the_labels_of_their_server() {
        let mut snapshot = testing::busy();
        let point =
            |kind: &str, value| Point { metric: &m::CHECKPOINT_COUNT, attributes: vec![(a::TYPE, kind.into())], value };
        let lag = Point {
            metric: &m::BGWRITER_DURATION,
            attributes: vec![(a::TYPE, "sync".into())],
            value: Value::Double(0.5),
        };
        // A standby whose clock is ahead.
        let behind = Point { metric: &m::REPLAY_DELAY, attributes: Vec::new(), value: Value::Int(-1) };
        let points: Arc<[Point]> = [point("scheduled", Value::Int(7)), lag, behind].into();
        let key = snapshot.instances[0].instance.key;
        let collected = Collected { points: BTreeMap::from([(Question::Server, points)]), ..Collected::default() };
        snapshot.collected.insert(key, collected);
        let mut exporter = Exporter::new(Config::default(), OperationDurationName::Server, Host::default());
        let read = parse::parse(&exporter.render(&snapshot, Format::OpenMetrics), Format::OpenMetrics);
        let server = ("service_instance_id", "00000000-0000-0000-0000-000000001234");
        let name = "postgresql_bgwriter_checkpoint_count_total";
        assert_eq!(read.value(name, &[server, ("type", "scheduled")]), 7.0);
        assert_eq!(read.value("querylens_postgresql_replication_replay_delay_seconds", &[server]), -1.0);
        assert_eq!(read.value("postgresql_bgwriter_duration_milliseconds_total", &[server, ("type", "sync")]), 0.5);
    }
}
