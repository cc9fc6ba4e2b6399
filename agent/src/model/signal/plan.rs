//! How statements are executed.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::Sampling;
use crate::model::Digest;

/// Identity of a plan: a hash of its structure, without costs and literals.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanId(pub u64);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A plan as the server wrote it. Holds literals: only the plan extractor may read it, and its `Debug` shows the length.
#[derive(Clone, Default)]
pub struct PlanText(Arc<str>);

impl PlanText {
    /// The text of a plan, JSON of PostgreSQL, MySQL or MariaDB.
    pub fn new(text: impl Into<Arc<str>>) -> PlanText {
        PlanText(text.into())
    }

    /// The text, with literals.
    pub fn raw(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PlanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanText({} bytes)", self.0.len())
    }
}

/// Where a plan came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlanSource {
    /// The extension pg_querylens: the plan that ran.
    Querylens,
    /// The log of auto_explain: the plan that ran.
    AutoExplain,
    /// `EXPLAIN` or `EXPLAIN FOR CONNECTION`: a plan that may have run.
    Explain,
}

impl PlanSource {
    /// Its name in attributes.
    pub fn name(self) -> &'static str {
        match self {
            PlanSource::Querylens => "pg_querylens",
            PlanSource::AutoExplain => "auto_explain",
            PlanSource::Explain => "explain",
        }
    }
}

/// A plan of a statement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The statement.
    pub digest: Arc<Digest>,
    /// Who told it.
    pub source: PlanSource,
    /// As the server wrote it; empty once the extractor has read it.
    pub text: PlanText,
    /// How long the execution took that it belongs to, where there was one.
    pub duration: Option<Duration>,
    /// The plan without literals, as JSON; written by the extractor.
    pub masked: Option<Arc<str>>,
    /// Its identity; written by the extractor.
    pub id: Option<PlanId>,
    /// What was read out of it; written by the extractor.
    pub facts: Option<PlanFacts>,
    /// How it differs from the statement's plan before; written by the extractor.
    pub change: Option<Change>,
    /// How many equal ones it stands for; written by the sampler.
    pub sampling: Sampling,
}

/// What is read out of a plan (`db.query.plan.*`). Costs are in the planner's units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanFacts {
    /// Type of the topmost node.
    pub operation: Arc<str>,
    /// Total cost of the topmost node.
    pub cost: f64,
    /// Cost until its first row.
    pub startup_cost: f64,
    /// Rows that it was expected to give.
    pub rows: f64,
    /// Bytes of such a row.
    pub width: u64,
    /// Rows that it gave, over all loops.
    pub actual_rows: Option<f64>,
    /// Number of nodes.
    pub nodes: u32,
    /// Nodes from the topmost to the lowest.
    pub depth: u32,
    /// Some table is read as a whole.
    pub has_seq_scan: bool,
    /// Rows of the largest such table, read or expected.
    pub seq_scan_rows: f64,
    /// Some join is a nested loop.
    pub has_nested_loop: bool,
    /// Some join is a hash join.
    pub has_hash_join: bool,
    /// Something is sorted.
    pub has_sort: bool,
    /// Something went to disk: a sort, or a hash in batches.
    pub spills: bool,
    /// Blocks found in the buffer cache, all nodes.
    pub shared_hit: u64,
    /// Blocks read.
    pub shared_read: u64,
    /// Temporary blocks read.
    pub temp_read: u64,
    /// Temporary blocks written.
    pub temp_written: u64,
    /// Largest ratio of actual to estimated rows of a node, or its inverse; 1 where the estimates were right or nothing was executed.
    pub estimate_error: f64,
}

/// How a plan differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The plan before.
    pub previous: PlanId,
}
