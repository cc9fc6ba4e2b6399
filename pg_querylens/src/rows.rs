//! What the tables in shared memory hold for a key. Times are microseconds since 2000-01-01, as PostgreSQL counts them.

use crate::{counters::Counters, moments::Moments, table::Plain};

/// How a plan did over a while.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Its executions.
    pub(crate) execution: Moments,
    /// Rows that they returned or changed.
    pub(crate) rows: u64,
}

impl Sample {
    /// More of the same.
    pub(crate) fn merge(&mut self, other: &Sample) {
        self.execution.merge(&other.execution);
        self.rows += other.rows;
    }
}

/// A plan of a statement.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanRow {
    /// Everything since the last reset.
    pub(crate) counters: Counters,
    /// The plan with the partitions of a table taken for one.
    pub(crate) collapsed_id: u64,
    /// When it was first executed.
    pub(crate) first_seen: i64,
    /// When it was last executed.
    pub(crate) last_seen: i64,
    /// The current while began then.
    pub(crate) recent_since: i64,
    /// How it does in the current while.
    pub(crate) recent: Sample,
    /// How it did in the whiles before.
    pub(crate) earlier: Sample,
}

/// How long a plan is watched before it counts as how it always was, in microseconds.
const WHILE: i64 = 300_000_000;

impl PlanRow {
    /// What a process has counted.
    pub(crate) fn merge(&mut self, counters: &Counters, collapsed_id: u64, at: i64) {
        if self.first_seen == 0 {
            self.first_seen = at;
            self.recent_since = at;
        }
        if at - self.recent_since > WHILE {
            let recent = std::mem::take(&mut self.recent);
            self.earlier.merge(&recent);
            self.recent_since = at;
        }
        self.counters.merge(counters);
        self.recent.merge(&Sample { execution: counters.execution, rows: counters.rows });
        self.collapsed_id = collapsed_id;
        self.last_seen = self.last_seen.max(at);
    }

    /// Everything since the last reset.
    pub(crate) fn whole(&self) -> Sample {
        Sample { execution: self.counters.execution, rows: self.counters.rows }
    }
}

/// A statement.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StatementRow {
    /// The plan that was executed last.
    pub(crate) plan_id: u64,
    /// Since when.
    pub(crate) since: i64,
    /// How often another plan was executed than before.
    pub(crate) changes: u64,
}

/// How a statement failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ErrorRow {
    /// How often.
    pub(crate) count: u64,
    /// Time that those executions had used, in nanoseconds.
    pub(crate) time: u64,
    /// When last.
    pub(crate) last_seen: i64,
}

/// A node of a plan, in the executions that were looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NodeRow {
    /// Executions that were looked at.
    pub(crate) executions: u64,
    /// What the node is, see [`crate::plan_id::node_name`].
    pub(crate) kind: u64,
    /// How often it was run, in all.
    pub(crate) loops: f64,
    /// Rows that the planner expected of the runs, in all.
    pub(crate) estimated_rows: f64,
    /// Rows that came, in all.
    pub(crate) actual_rows: f64,
    /// Rows that filters took away, in all.
    pub(crate) filtered_rows: f64,
    /// Executions that were timed.
    pub(crate) timed: u64,
    /// Time in the node and below, in all timed executions, in seconds.
    pub(crate) time: f64,
}

/// Where the text of a plan is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextRow {
    /// Position in the endless text of which the area holds the end.
    pub(crate) position: u64,
    /// Bytes.
    pub(crate) length: u64,
}

/// Another plan than before.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeRow {
    /// The statement.
    pub(crate) statement: crate::keys::StatementKey,
    /// The plan before.
    pub(crate) previous_plan_id: u64,
    /// The plan after.
    pub(crate) plan_id: u64,
    /// When it happened first.
    pub(crate) first_at: i64,
    /// When it happened last.
    pub(crate) at: i64,
    /// How often it happened.
    pub(crate) count: u64,
    /// How the plan before did, until the change happened first.
    pub(crate) before: Sample,
    /// How the plan after did when the change happened last.
    pub(crate) after: Sample,
}

// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for Sample {}
// SAFETY: repr(C) of numbers of 8 bytes and an even number of u32.
unsafe impl Plain for PlanRow {}
// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for StatementRow {}
// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for ErrorRow {}
// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for NodeRow {}
// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for TextRow {}
// SAFETY: repr(C) of numbers of 8 bytes.
unsafe impl Plain for ChangeRow {}
