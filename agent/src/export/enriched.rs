//! What servers and the kernel know of statements, as points of metrics.

use std::borrow::Cow;

use super::attributes::Attributes;
use crate::model::{
    Enrichment, Value,
    names::{Metric, attribute as a, metric as m},
};

/// The metrics that [`points`] has points of.
pub(super) static METRICS: [&Metric; 14] = [
    &m::STATEMENT_SERVER_CALLS,
    &m::STATEMENT_SERVER_TIME,
    &m::STATEMENT_PLANNING_TIME,
    &m::STATEMENT_BLOCKS,
    &m::STATEMENT_BLOCK_TIME,
    &m::STATEMENT_WAL,
    &m::STATEMENT_EXAMINED_ROWS,
    &m::STATEMENT_WAIT_TIME,
    &m::STATEMENT_CPU_TIME,
    &m::STATEMENT_RUN_QUEUE_TIME,
    &m::STATEMENT_BLOCK_IO_TIME,
    &m::STATEMENT_CONTEXT_SWITCHES,
    &m::STATEMENT_MAJOR_FAULTS,
    &m::STATEMENT_DISK_IO,
];

/// One point: metric, attributes beside those of its statement, value.
type Point<'a> = (&'static Metric, Attributes<'a>, Value);

/// The points of one statement; those that are zero are left out.
pub(super) fn points(known: &Enrichment) -> Vec<Point<'_>> {
    let mut points: Vec<Point<'_>> = Vec::new();
    let none = Attributes::new;
    let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
    let seconds = |time: std::time::Duration| Value::Double(time.as_secs_f64());
    if let Some(server) = &known.server {
        points.push((&m::STATEMENT_SERVER_CALLS, none(), count(server.calls)));
        points.push((&m::STATEMENT_SERVER_TIME, none(), seconds(server.exec_time)));
        points.push((&m::STATEMENT_PLANNING_TIME, none(), seconds(server.plan_time)));
        for (state, blocks) in [
            ("hit", server.shared_hit),
            ("read", server.shared_read),
            ("dirtied", server.shared_dirtied),
            ("written", server.shared_written),
            ("temp_read", server.temp_read),
            ("temp_written", server.temp_written),
        ] {
            points.push((&m::STATEMENT_BLOCKS, vec![(a::BLOCK_STATE, state.into())], count(blocks)));
        }
        points.push((&m::STATEMENT_BLOCK_TIME, none(), seconds(server.io_time)));
        points.push((&m::STATEMENT_WAL, none(), count(server.wal_bytes)));
        points.push((&m::STATEMENT_EXAMINED_ROWS, none(), count(server.rows_examined)));
    }
    for (class, time) in &known.waits {
        let class = Cow::Borrowed(&**class).into();
        points.push((&m::STATEMENT_WAIT_TIME, vec![(a::WAIT_CLASS, class)], seconds(*time)));
    }
    if let Some(kernel) = &known.kernel {
        points.push((&m::STATEMENT_CPU_TIME, none(), seconds(kernel.on_cpu)));
        points.push((&m::STATEMENT_RUN_QUEUE_TIME, none(), seconds(kernel.run_queue)));
        points.push((&m::STATEMENT_BLOCK_IO_TIME, none(), seconds(kernel.block_io.unwrap_or_default())));
        points.push((&m::STATEMENT_CONTEXT_SWITCHES, none(), count(kernel.switches)));
        points.push((&m::STATEMENT_MAJOR_FAULTS, none(), count(kernel.major_faults)));
        for (direction, bytes) in [("read", kernel.read_bytes), ("write", kernel.written_bytes)] {
            let direction = vec![(a::DISK_IO_DIRECTION, direction.into())];
            points.push((&m::STATEMENT_DISK_IO, direction, count(bytes.unwrap_or_default())));
        }
    }
    points.retain(|(_, _, value)| !matches!(value, Value::Int(0) | Value::Double(0.0)));
    points
}
